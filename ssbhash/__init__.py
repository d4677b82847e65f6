"""ssbhash: learn binary codes from a few labels, then search them exactly.

Search and codes need numpy alone; the models need the `train` extra and load
torch on first use.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

# Reading numpy takes a moment. Ctrl-C in it ends the command line without a traceback. Python is
# still looking for the module to run where sys.argv[0] is "-m".
_STARTED_AS = os.path.basename(sys.argv[0]) if sys.argv else ""
if _STARTED_AS == "ssbhash" or (
    _STARTED_AS == "-m" and ("-m", "ssbhash") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from ssbhash._version import __version__
from ssbhash.chunks import pairs_within_chunks, within_chunks
from ssbhash.codes import pack, unpack
from ssbhash.config import show_config
from ssbhash.engines import PreparedCodes
from ssbhash.engines import available as backends
from ssbhash.hamming import (
    PairsResult,
    RangeResult,
    SearchResult,
    count_within,
    distances,
    merge,
    paired_distances,
    pairs_within,
    prepare,
    search,
    within,
)
from ssbhash.index import HammingIndex, groups_within, rerank
from ssbhash.sampling import binarize, sample, sample_relaxed
from ssbhash.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from ssbhash.models import PHSGS, SSBVAE, VDSH, VDSHS, BernoulliVAE, load
    from ssbhash.tuning import tune

# Public names that need torch, and the module that has them.
_LAZY = dict.fromkeys(
    ("SSBVAE", "PHSGS", "VDSHS", "BernoulliVAE", "VDSH", "load"), "ssbhash.models"
)
_LAZY["tune"] = "ssbhash.tuning"

__all__ = [
    "PHSGS",
    "SSBVAE",
    "VDSH",
    "VDSHS",
    "BernoulliVAE",
    "HammingIndex",
    "PairsResult",
    "PreparedCodes",
    "RangeResult",
    "SearchResult",
    "__version__",
    "backends",
    "binarize",
    "count_within",
    "distances",
    "get_num_threads",
    "groups_within",
    "load",
    "merge",
    "pack",
    "paired_distances",
    "pairs_within",
    "pairs_within_chunks",
    "prepare",
    "rerank",
    "sample",
    "sample_relaxed",
    "search",
    "set_num_threads",
    "show_config",
    "tune",
    "unpack",
    "within",
    "within_chunks",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ssbhash' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
