"""The methods by name: ours, one line each, and those of installed packages.

A package adds a method by an entry point of its own, in its `pyproject.toml`:

    [project.entry-points."ssbhash.methods"]
    my-method = "my_package:MyMethod"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

GROUP = "ssbhash.methods"


class Methods(Mapping[str, Any]):
    """Estimator classes by name, imported on first use.

    Parameters
    ----------
    own
        "module:class" by name; packages cannot change what these names mean.
    """

    def __init__(self, own: dict[str, str]) -> None:
        self._own = own

    def __getitem__(self, name: str) -> Any:
        points = [EntryPoint(name, self._own[name], GROUP)] if name in self._own else []
        for point in points or entry_points(group=GROUP, name=name):
            return point.load()
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in entry_points(group=GROUP).names  # imports nothing

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._own, *sorted(entry_points(group=GROUP).names)]))

    def __len__(self) -> int:
        return sum(1 for _ in self)


METHODS = Methods(
    {
        "ssb-vae": "ssbhash.models:SSBVAE",
        "phs-gs": "ssbhash.models:PHSGS",
        "vdsh-s": "ssbhash.models:VDSHS",
        "bernoulli-vae": "ssbhash.models:BernoulliVAE",
        "vdsh": "ssbhash.models:VDSH",
    }
)
