"""Texts to sparse features for the models, over a vocabulary that is saved.

The models read log(1 + tf) or tf-idf of a text and reconstruct its relative term
frequencies (Nanculef et al., arXiv 2007.08799). scikit-learn counts the terms. The
vocabulary is chosen on the training texts and saved as JSON beside the weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import as_count
from ssbhash.data.files import json_bytes, parse_json

if TYPE_CHECKING:
    from scipy import sparse

FILE_NAME = "text.json"
_FORMAT = "ssbhash-text-2"
WEIGHTINGS = ("log-tf", "tf-idf")


class TextFeatures:
    r"""Turn texts into CSR features over a vocabulary chosen on the training texts.

    Terms are lower-case words of two letters or more; or characters, for scripts without
    spaces. A text without a known term gives a row of zeros.

    Parameters
    ----------
    weighting : {"log-tf", "tf-idf"}
        Input of the model: log(1 + count), or scikit-learn's tf-idf in rows of length 1.
    max_terms : int
        Largest size of the vocabulary. The most frequent terms are kept.
    min_df : int
        Least number of texts that a term must occur in.
    max_df : float
        Largest share of the texts that a term may occur in.
    ngrams : int
        Longest sequence of words, or of characters, that is a term: 1 to 5.
    stop_words : {"english", None}
        Words to drop; characters are never dropped.
    analyzer : {"word", "char"}
        What a term is made of: words, or the characters within a word. Characters suit
        scripts without spaces, such as Chinese, with ngrams=2 or more.
    token_pattern : str, optional
        Regular expression of a word, in place of two letters or more. r"\S+" takes
        everything between spaces.

    Attributes
    ----------
    terms_ : list of str
        The vocabulary, in the order of the columns.
    idf_ : float64 [n_terms]
        Inverse document frequency of each term.

    Examples
    --------
    >>> features = TextFeatures(min_df=1).fit(["green tea", "red ants", "tea, tea!"])
    >>> features.terms_
    ['ants', 'green', 'red', 'tea']
    >>> counts = features.counts(["tea tea and unknown words", ""])
    >>> counts.toarray().tolist()
    [[0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]]
    >>> features.inputs(counts).toarray()[0, 3].round(2)
    np.float32(1.1)
    """

    terms_: list[str]
    idf_: npt.NDArray[np.float64]

    def __init__(
        self,
        *,
        weighting: str = "log-tf",
        max_terms: int = 10_000,
        min_df: int = 2,
        max_df: float = 0.8,
        ngrams: int = 1,
        stop_words: str | None = "english",
        analyzer: str = "word",
        token_pattern: str | None = None,
    ) -> None:
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}; got {weighting!r}")
        if stop_words not in ("english", None):
            raise ValueError(f"stop_words must be 'english' or None, got {stop_words!r}")
        if not 0 < max_df <= 1:
            raise ValueError(f"max_df must be a share above 0 and at most 1, got {max_df}")
        if as_count(ngrams, "ngrams", 1) > 5:
            raise ValueError(f"ngrams must be 1 to 5, got {ngrams}")
        if analyzer not in ("word", "char"):
            raise ValueError(f"analyzer must be 'word' or 'char', got {analyzer!r}")
        if token_pattern is not None and analyzer == "char":
            raise ValueError("token_pattern tells words apart; it needs analyzer='word'")
        try:
            groups = re.compile(token_pattern or "").groups
        except (re.error, TypeError, RecursionError, OverflowError) as error:
            raise ValueError(f"token_pattern is no regular expression: {error}") from error
        if groups > 1:
            raise ValueError(f"token_pattern must have one group at most, got {groups}")
        self.weighting = weighting
        self.max_terms = as_count(max_terms, "max_terms", 1)
        self.min_df = as_count(min_df, "min_df", 1)
        self.max_df = max_df
        self.ngrams = ngrams
        self.stop_words = stop_words
        self.analyzer = analyzer
        self.token_pattern = token_pattern

    def fit(self, texts: Iterable[str]) -> TextFeatures:
        """Choose the vocabulary.

        Parameters
        ----------
        texts : iterable of str
            The training texts.

        Returns
        -------
        TextFeatures
            Itself, fitted.

        Raises
        ------
        TypeError
            If an item is no string.
        ValueError
            If no term is left.
        """
        counter = self._counter(min_df=self.min_df, max_df=self.max_df, max_features=self.max_terms)
        texts = _checked(texts)
        try:
            counts = counter.fit_transform(texts)
        except ValueError as error:
            raise ValueError(
                f"no term is left of {len(texts)} texts: they have no words of two letters "
                "(analyzer='char' takes characters, for scripts without spaces; token_pattern says "
                f"what a word is), or min_df={self.min_df} (texts a term must occur in) or max_df={self.max_df} is too strict"
            ) from error
        self.terms_ = counter.get_feature_names_out().tolist()
        document_frequency = np.bincount(counts.indices, minlength=counts.shape[1])
        # scikit-learn's smooth idf: as if one more text had every term.
        self.idf_ = np.log((1 + len(texts)) / (1 + document_frequency)) + 1
        return self

    def counts(self, texts: Iterable[str]) -> sparse.csr_array:
        """Count the known terms.

        Parameters
        ----------
        texts : iterable of str
            n texts.

        Returns
        -------
        float32 CSR [n, n_terms]
            How often each text has each term.
        """
        from scipy import sparse

        return sparse.csr_array(self._vocabulary().transform(_checked(texts)), dtype=np.float32)

    def inputs(self, counts: sparse.csr_array) -> sparse.csr_array:
        """Weigh counts for the model's input.

        Parameters
        ----------
        counts : float32 CSR [n, n_terms]
            As `counts` returns them.

        Returns
        -------
        float32 CSR [n, n_terms]
            By `weighting`; zero where the count is.
        """
        weighed: sparse.csr_array = counts.copy()
        if self.weighting == "log-tf":
            weighed.data = np.log1p(weighed.data)
            return weighed
        weighed.data *= self.idf_.astype(np.float32)[weighed.indices]
        return _scale_rows(weighed, np.sqrt((weighed * weighed).sum(axis=1)))

    @staticmethod
    def targets(counts: sparse.csr_array) -> sparse.csr_array:
        """Compute relative term frequencies, the target of reconstruction.

        Parameters
        ----------
        counts : float32 CSR [n, n_terms]
            As `counts` returns them.

        Returns
        -------
        float32 CSR [n, n_terms]
            Rows sum to 1; those without a term to 0.
        """
        return _scale_rows(counts.copy(), counts.sum(axis=1))

    def transform(self, texts: Iterable[str]) -> sparse.csr_array:
        """Turn texts into the model's input.

        Parameters
        ----------
        texts : iterable of str
            n texts.

        Returns
        -------
        float32 CSR [n, n_terms]
            As `inputs(counts(texts))`.
        """
        return self.inputs(self.counts(texts))

    def to_bytes(self) -> bytes:
        """Write options and vocabulary as JSON.

        Returns
        -------
        bytes
            The `text.json` of a model.
        """
        self._vocabulary()
        options = {name: getattr(self, name) for name in _OPTIONS}
        content = {
            "format": _FORMAT,
            "options": options,
            "terms": self.terms_,
            "idf": self.idf_.tolist(),
        }
        return json_bytes(content)

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> TextFeatures:
        """Read what `to_bytes` wrote.

        Parameters
        ----------
        content : bytes
            JSON.
        path : Path
            The file that it comes from, for errors.

        Returns
        -------
        TextFeatures
            Fitted.

        Raises
        ------
        ValueError
            If the content is something else.
        """
        found = parse_json(content, path)
        try:
            if found["format"] != _FORMAT:
                raise ValueError(f"format {found['format']!r}")
            features = cls(**found["options"])
            features.terms_ = [str(term) for term in found["terms"]]
            features.idf_ = np.array(found["idf"], np.float64)
            if features.idf_.shape != (len(set(features.terms_)),) or not features.terms_:
                raise ValueError("terms and idf do not match")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no vocabulary of ssbhash: {error}") from error
        return features

    def _counter(self, **options: Any) -> Any:
        from sklearn.feature_extraction.text import CountVectorizer

        if self.analyzer == "char":
            options["analyzer"] = "char_wb"
        else:
            options["stop_words"] = self.stop_words
            options["token_pattern"] = self.token_pattern or r"(?u)\b\w\w+\b"
        return CountVectorizer(ngram_range=(1, self.ngrams), dtype=np.int32, **options)

    def _vocabulary(self) -> Any:
        if not hasattr(self, "terms_"):
            raise ValueError("this TextFeatures has no vocabulary yet: call fit first")
        return self._counter(vocabulary=self.terms_)


_OPTIONS = (
    *("weighting", "max_terms", "min_df", "max_df", "ngrams", "stop_words"),
    *("analyzer", "token_pattern"),
)


def _scale_rows(matrix: sparse.csr_array, lengths: npt.NDArray[Any]) -> sparse.csr_array:
    """Divide each row by its length, in place; rows of zeros have no entries to divide."""
    matrix.data /= np.repeat(lengths, np.diff(matrix.indptr))
    return matrix


def _checked(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("texts must be a sequence of strings, got one string")
    texts = list(texts)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts must be strings, got {type(text).__name__} at {position}")
    return texts
