"""What a service serves, to whom, and its limits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Settings:
    """What a service serves, to whom, and its limits.

    Parameters
    ----------
    folder : str, optional
        The index. A symbolic link may be changed to a new index while the service runs.
    model : str, optional
        Folder of a trained model, which encodes texts or vectors.
    items : str, optional
        Data file with the texts or vectors and labels of the items, for the page.
    id_field : str, optional
        Its field with the id of each item; without it ids are row numbers.
    thumbnails : str, optional
        Folder with a picture `ID.png` (jpg, webp, gif) of each item, for the page.
    read_keys, write_keys : tuple of str
        API keys. Without read keys everybody reads; without any keys everybody writes.
    writes : bool
        Whether items can be added and removed.
    max_body_bytes, max_k, max_rows, max_results : int
        Limits of a request: its body, neighbours of a query, queries or items, and
        neighbours of all its queries together.
    max_connections : int
        Connections to a worker; one more gets status 503.
    timeout_s : float
        Seconds that a client may take to send a request, and a search may take.
    gather_us : float
        Microseconds between two looks while concurrent small searches gather into one batch;
        0 searches for each request by itself.
    max_gathered : int
        Queries in a batch.
    look_s : float
        Seconds between looks for changes that other processes made to the index.
    socket : str, optional
        Unix socket on which the worker that writes takes changes from the other workers.
    n_threads : int, optional
        Threads of a search at most.

    Examples
    --------
    >>> Settings.from_json(Settings(folder="index", max_k=10).to_json()).max_k
    10
    """

    folder: str | None = None
    model: str | None = None
    items: str | None = None
    id_field: str | None = None
    thumbnails: str | None = None
    read_keys: tuple[str, ...] = ()
    write_keys: tuple[str, ...] = ()
    writes: bool = True
    max_body_bytes: int = 64 << 20
    max_k: int = 1000
    max_rows: int = 100_000
    max_results: int = 1_000_000
    max_connections: int = 1000
    timeout_s: float = 10.0
    gather_us: float = 200.0
    max_gathered: int = 256
    look_s: float = 0.2
    socket: str | None = None
    n_threads: int | None = None

    def to_json(self) -> str:
        """Write the settings as JSON, to hand them to another process.

        Returns
        -------
        str
            For `from_json`.
        """
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what `to_json` wrote.

        Parameters
        ----------
        text : str
            JSON.

        Returns
        -------
        Settings
            Equal ones.
        """
        values = json.loads(text)
        for name in ("read_keys", "write_keys"):
            values[name] = tuple(values[name])
        return cls(**values)
