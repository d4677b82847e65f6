"""Examples of requests and answers, for the OpenAPI description."""

from __future__ import annotations

from typing import Any


def _named(**values: Any) -> dict[str, Any]:
    return {name: {"value": value} for name, value in values.items()}


_CODES = {"codes": ["00ff00ff00ff00ff"]}
_FOUND = {"ids": [[4, 17]], "distances": [[0, 3]]}

# Of each address: requests by name, and an answer.
OF: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/encode": (
        _named(texts={"texts": ["green tea"]}, vectors={"vectors": [[0.5, 1.0]]}, ids={"ids": [4]}),
        {**_CODES, "n_bits": 64, "classes": [{"drink": 0.9, "insect": 0.1}]},
    ),
    "/search": (
        _named(
            text={"texts": ["green tea"], "k": 2},
            code={**_CODES, "k": 2, "max_distance": 12},
            more_like_this={"ids": [4], "k": 2},
        ),
        _FOUND,
    ),
    "/within": (_named(code={**_CODES, "radius": 3}, id={"ids": [4], "radius": 3}), _FOUND),
    "/histogram": (_named(code=_CODES, id={"ids": [4]}), {"counts": [1, 0, 2], "n": 3}),
    "/items": (
        _named(ids={"ids": [4]}),
        {
            "items": [
                {"id": 4, "code": _CODES["codes"][0], "text": "green tea", "label": "drink"},
            ]
        },
    ),
    "/add": (
        _named(codes={**_CODES, "ids": [18]}, texts={"texts": ["black tea"]}),
        {"ids": [18]},
    ),
    "/remove": (_named(ids={"ids": [4, 17]}), {"n_removed": 2}),
}
