"""An index that grows, shrinks and survives; near-duplicates; two stages."""

from ssbhash.index.hamming_index import HammingIndex
from ssbhash.index.rerank import rerank

__all__ = ["HammingIndex", "rerank"]
