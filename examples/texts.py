"""Texts with few labels -> codes -> search, on texts that come with Python.

    python examples/texts.py

The texts are the docstrings of some standard modules. The class of a text is its module.
One in five texts keeps its label for training.
"""

import importlib
import inspect

import numpy as np

import ssbhash
from ssbhash.data.named_labels import encode_labels, hide_labels
from ssbhash.data.text import TextFeatures

MODULES = ("asyncio", "datetime", "decimal", "email.message", "inspect", "logging", "ssl")
MODULES += ("statistics", "tarfile", "unittest", "unittest.mock", "zipfile")


def docstrings() -> tuple[list[str], list[str]]:
    """Collect the docstrings of functions, classes and methods, and the module of each."""
    texts: dict[str, str] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for _, member in inspect.getmembers(module):
            members = [member, *vars(member).values()] if inspect.isclass(member) else [member]
            for one in members:
                text = inspect.getdoc(one) if callable(one) else None
                if text and len(text) > 60:
                    texts.setdefault(text, name)
    return list(texts), list(texts.values())


texts, modules = docstrings()
(y,), names = encode_labels(modules)
order = np.random.default_rng(0).permutation(len(texts))
query, database = order[:5], order[5:]

features = TextFeatures(ngrams=2).fit([texts[i] for i in database])
counts = features.counts([texts[i] for i in database])
hasher = ssbhash.SSBVAE(n_bits=64)
few = hide_labels(y[database], supervision=0.2, seed=0)
hasher.fit(features.inputs(counts), few)

codes = hasher.transform(features.inputs(counts))
asked = hasher.transform(features.transform([texts[i] for i in query]))
distances, ids = ssbhash.search(codes, asked, k=3)
print(f"{len(database)} texts, {(few >= 0).sum()} with labels, {len(features.terms_)} terms")
for i, found, bits in zip(query, ids, distances, strict=True):
    print(f"\n{modules[i]}: {texts[i].splitlines()[0]}")
    for item, distance in zip(database[found], bits, strict=True):
        print(f"  {distance:>2} bits  {modules[item]}: {texts[item].splitlines()[0]}")
