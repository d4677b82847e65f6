"""An index that grows, shrinks and survives; near-duplicates; two stages."""

from ssbhash.index.groups import groups_within
from ssbhash.index.hamming_index import HammingIndex
from ssbhash.index.two_stages import Reranker, rerank

__all__ = ["HammingIndex", "Reranker", "groups_within", "rerank"]
