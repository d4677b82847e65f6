"""A lock that many readers share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Readers pass together; who closes the gate waits for them and holds off new ones."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_reading = 0
        self._is_closed = False

    @contextmanager
    def reading(self, timeout_s: float) -> Iterator[None]:
        """Pass the gate.

        Raises
        ------
        TimeoutError
            If it stays closed.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._is_closed, timeout_s):
                raise TimeoutError(f"items were being moved for more than {timeout_s:g} s")
            self._n_reading += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_reading -= 1
                self._changed.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Close the gate, for one thread at a time."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: self._n_reading == 0)
        try:
            yield
        finally:
            with self._changed:
                self._is_closed = False
                self._changed.notify_all()
