"""A process of the cluster, which holds replicas of several shards. Runs as a Ray actor."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ssbhash.cluster.replica import How, NotCurrentError, Progress, Replica
from ssbhash.threads import resolve

# Questions that a process works on at a time. All else has threads of its own: a change never waits
# for searches, nor a copy for the process that copies at the same time in the other direction, and
# a busy process still shows that it lives.
QUESTIONS = 8
GROUPS = {"changes": 16, "copies": 4, "life": 2}


class Handle(NamedTuple):
    """One replica in a process. A replica that is opened again gets another key."""

    actor: Any
    key: int

    def change(self, method: str, *arguments: Any) -> Any:
        """Call a method that opens or changes the replica; returns a reference."""
        return self._call("changes", method, arguments)

    def copy(self, method: str, *arguments: Any) -> Any:
        """Call a method that another replica copies by; returns a reference."""
        return self._call("copies", method, arguments)

    def _call(self, group: str, method: str, arguments: tuple[Any, ...]) -> Any:
        call = self.actor.call.options(concurrency_group=group)
        return call.remote(self.key, method, *arguments)


class Host:
    """Replicas, by their keys."""

    def __init__(self) -> None:
        self._replicas: dict[int, Replica] = {}
        self._ended = threading.Event()

    def open(self, key: int, folder: str, n_bits: int, how: How) -> Progress:
        """Open a replica."""
        replica = self._replicas[key] = Replica(folder, n_bits)
        return replica.open(how)

    def call(self, key: int, method: str, *arguments: Any) -> Any:
        """Call a method of a replica."""
        replica = self._replicas.get(key)
        if replica is None:
            raise NotCurrentError("it was closed")
        return getattr(replica, method)(*arguments)

    def ask(
        self, method: str, questions: Mapping[int, tuple[int, int, dict[str, Any]]], **shared: Any
    ) -> dict[int, Any]:
        """Ask replicas of several shards.

        Parameters
        ----------
        method
            A method of `HammingIndex`.
        questions
            For each shard the key of its replica, the version that is needed, and arguments.
        shared
            Arguments for every shard. `n_threads` is for all of them together.

        Returns
        -------
        dict
            The answer of each shard; NotCurrentError in place of that of a replica that lacks changes.
        """
        n_threads = resolve(shared.get("n_threads")) if "n_threads" in shared else 1
        n_at_once = min(n_threads, len(questions))
        if "n_threads" in shared:
            shared["n_threads"] = n_threads // n_at_once

        def answer(question: tuple[int, int, dict[str, Any]]) -> Any:
            key, version, own = question
            try:
                return self.call(key, "ask", version, method, {**shared, **own})
            except NotCurrentError as error:
                return error

        if n_at_once == 1:
            answers = [answer(question) for question in questions.values()]
        else:
            with ThreadPoolExecutor(n_at_once) as pool:
                answers = list(pool.map(answer, questions.values()))
        return dict(zip(questions, answers, strict=True))

    def drop(self, key: int) -> None:
        """Close a replica."""
        replica = self._replicas.pop(key, None)
        if replica is not None:
            replica.close()

    def where(self) -> tuple[str, int]:
        """Return Ray's id of the node, and the process id."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def wait(self) -> None:
        """Return when the process is to end; the caller of one that dies gets an error at once."""
        self._ended.wait()

    def close(self) -> None:
        """Let go of all folders."""
        for key in list(self._replicas):
            self.drop(key)
        self._ended.set()
