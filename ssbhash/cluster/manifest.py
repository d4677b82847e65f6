"""What the folder of a sharded index says: `cluster.json`, replaced in one step."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ssbhash.atomic import make_folder, replacing

FORMAT = 1


@dataclass
class Manifest:
    """The layout of a sharded index.

    Parameters
    ----------
    n_bits : int
        Bits in a code.
    n_shards : int
        Shards that items are spread over.
    copies : list of list of int
        For each shard and replica, the number of the copy that counts. A folder with another
        number is a leftover, and is copied anew before it serves.
    moving_to : int, optional
        The number of shards that an unfinished `rebalance` spreads the items over.
    """

    n_bits: int
    n_shards: int
    copies: list[list[int]] = field(default_factory=list)
    moving_to: int | None = None

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is none, or it holds something else.
        """
        path = folder / "cluster.json"
        try:
            described = json.loads(path.read_bytes())
            if described.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            return cls(**described)
        except FileNotFoundError:
            raise FileNotFoundError(
                2, "holds no sharded index (no cluster.json); n_bits makes one", str(folder)
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no manifest of a sharded index: {error}") from error

    @staticmethod
    def lock(folder: Path) -> int:
        """Keep other processes from owning the index, until the handle is closed.

        Raises
        ------
        BlockingIOError
            If one does.
        """
        make_folder(folder)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise BlockingIOError(11, "is open already; one process owns it", str(folder)) from None
        return handle

    def write(self, folder: Path) -> None:
        """Write the manifest, whole or not at all."""
        with replacing(folder / "cluster.json") as file:
            file.write(json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode())
