"""An index that can change and be kept in a folder; near-duplicates; re-ranking."""

from ssbhash.index.groups import groups_within
from ssbhash.index.hamming_index import HammingIndex
from ssbhash.index.names import as_ids, check_one_for_each
from ssbhash.index.two_stages import Reranker, rerank

__all__ = [
    "HammingIndex",
    "Reranker",
    "as_ids",
    "check_one_for_each",
    "groups_within",
    "rerank",
]
