"""Texts become features over the training vocabulary, also after save and load."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.feature_extraction.text import TfidfVectorizer

from ssbhash.data.text import FILE_NAME, TextFeatures

TEXTS = [
    "Green tea and black tea",
    "black ants, red ants",
    "",
    "Der grüne Tee schmeckt: tea",
    "the of and",
]


def test_counts_inputs_and_targets() -> None:
    features = TextFeatures(min_df=1).fit(TEXTS)
    counts = features.counts(["tea tea ants", "nothing known", ""])
    columns = {term: position for position, term in enumerate(features.terms_)}
    assert counts.dtype == np.float32
    assert counts.shape == (3, len(features.terms_))
    assert counts.toarray()[0, columns["tea"]] == 2
    assert features.inputs(counts).toarray()[0, columns["tea"]] == np.log1p(np.float32(2))
    shares = features.targets(counts).toarray()
    np.testing.assert_allclose(shares.sum(axis=1), [1, 0, 0], rtol=1e-6)
    assert shares[0, columns["tea"]] == pytest.approx(2 / 3)
    assert counts.toarray()[0, columns["tea"]] == 2, "counts are left as they were"


def test_stop_words_and_min_df() -> None:
    assert "the" not in TextFeatures(min_df=1).fit(TEXTS).terms_
    assert "the" in TextFeatures(min_df=1, stop_words=None).fit(TEXTS).terms_
    assert TextFeatures(min_df=2).fit(TEXTS).terms_ == ["black", "tea"]
    assert len(TextFeatures(min_df=1, max_terms=3).fit(TEXTS).terms_) == 3


def test_ngrams() -> None:
    terms = TextFeatures(min_df=1, ngrams=3).fit(TEXTS).terms_
    assert "green tea black" in terms
    assert "black ants" in terms


def test_tf_idf_is_scikit_learns() -> None:
    ours = TextFeatures(min_df=1, weighting="tf-idf").fit(TEXTS).transform(TEXTS)
    theirs = TfidfVectorizer(stop_words="english", max_df=0.8).fit_transform(TEXTS)
    np.testing.assert_allclose(ours.toarray(), theirs.toarray(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weighting", ["log-tf", "tf-idf"])
def test_saved_and_loaded_gives_the_same_features(tmp_path: Path, weighting: str) -> None:
    features = TextFeatures(min_df=1, ngrams=2, weighting=weighting).fit(TEXTS)
    loaded = TextFeatures.from_bytes(features.to_bytes(), tmp_path / FILE_NAME)
    assert loaded.terms_ == features.terms_
    assert "grüne" in loaded.terms_
    new = ["grüne tea 茶 \U0001f375", "ants", ""]
    np.testing.assert_array_equal(
        loaded.transform(new).toarray(), features.transform(new).toarray()
    )
    assert loaded.transform([]).shape == (0, len(features.terms_))


def test_bad_texts() -> None:
    features = TextFeatures(min_df=1).fit(TEXTS)
    with pytest.raises(TypeError, match="got int at 1"):
        features.transform(["a", 5])
    with pytest.raises(TypeError, match="one string"):
        features.transform("tea")
    with pytest.raises(ValueError, match="no term is left of 2 texts"):
        TextFeatures().fit(["", "the"])
    with pytest.raises(ValueError, match="no term is left of 0 texts"):
        TextFeatures().fit([])
    with pytest.raises(ValueError, match="no term is left"):
        TextFeatures(min_df=3).fit(["tea", "ants"])
    with pytest.raises(ValueError, match="call fit first"):
        TextFeatures().transform(["tea"])


@pytest.mark.parametrize(
    "options",
    [
        {"weighting": "bm25"},
        {"ngrams": 6},
        {"analyzer": "syllable"},
        {"token_pattern": "("},
        {"token_pattern": "(a)(b)"},
        {"token_pattern": r"\S+", "analyzer": "char"},
        {"ngrams": 0},
        {"max_df": 1.5},
        {"min_df": 0},
        {"max_terms": 0},
        {"stop_words": "klingon"},
    ],
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TextFeatures(**options)


def test_foreign_vocabulary(tmp_path: Path) -> None:
    content = json.loads(TextFeatures(min_df=1).fit(TEXTS).to_bytes())
    for broken in ("", "[]", json.dumps({**content, "idf": [1]}), json.dumps({"format": "x"})):
        with pytest.raises(ValueError, match=r"text\.json is no"):
            TextFeatures.from_bytes(broken.encode(), tmp_path / FILE_NAME)


def test_scripts_without_spaces_and_short_words() -> None:
    weather = ["\u4eca\u5929\u5929\u6c14\u5f88\u597d", "\u6211\u4eec\u53bb\u516c\u56ed"] * 2
    features = TextFeatures(analyzer="char", ngrams=2).fit(weather)
    assert "\u5929\u6c14" in features.terms_
    assert features.transform(["\u5929\u6c14"]).nnz
    assert TextFeatures(token_pattern=r"\S+").fit(["a b c", "x y z"] * 2).terms_ == [*"bcxyz"]
    emoji = TextFeatures(token_pattern=r"\S+").fit(
        ["\U0001f600 \u26bd", "\U0001f35e \U0001f9c2"] * 2
    )
    assert len(emoji.terms_) == 4
    again = TextFeatures.from_bytes(features.to_bytes(), Path("text.json"))
    assert again.counts(weather).toarray().tolist() == features.counts(weather).toarray().tolist()
    with pytest.raises(ValueError, match="analyzer='char' takes characters"):
        TextFeatures().fit(weather[:2])
