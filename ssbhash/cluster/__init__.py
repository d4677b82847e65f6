"""An index over several machines: shards and replicas on Ray."""

from ssbhash.cluster.building import build, data_files, n_bits_of
from ssbhash.cluster.fleet import ShardsUnavailableError
from ssbhash.cluster.sharded_index import ShardedIndex

__all__ = ["ShardedIndex", "ShardsUnavailableError", "build", "data_files", "n_bits_of"]
