"""An index that grows, shrinks and survives; near-duplicates; two stages."""

from ssbhash.index.groups import groups_within
from ssbhash.index.hamming_index import HammingIndex
from ssbhash.index.two_stages import rerank

__all__ = ["HammingIndex", "groups_within", "rerank"]
