"""The replicas of all shards, seen from the process that owns the index.

Replicas live in processes, which are Ray actors. A process has those of one number on its node, so
that a search is one call for each process. Ray starts a process once and never again: what dies
is replaced from here, so that a replica serves again only after it has been compared with the others.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ssbhash.arrays import Codes
from ssbhash.cluster.hashing import Ids
from ssbhash.cluster.host import GROUPS, QUESTIONS, Handle, Host
from ssbhash.cluster.manifest import Manifest
from ssbhash.cluster.replica import How, Progress

_START_S = 120.0
_RETRY_S = 0.2


class ShardsUnavailableError(TimeoutError):
    """Shards gave no answer in time.

    Parameters
    ----------
    message : str
        What went wrong.
    shards : list of int
        Numbers of the shards.
    """

    def __init__(self, message: str, shards: list[int]) -> None:
        super().__init__(message)
        self.shards = shards

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.shards)


@dataclass(eq=False)
class Process:
    """A process that holds replicas, as the owner knows it."""

    actor: Any
    ending: Any  # a reference that is ready when the process has ended
    node: str
    number: int  # of its replicas
    pid: int = 0
    slow_until: float = 0.0  # until when others are asked first
    n_waiting: int = 0  # questions that it has not answered yet

    def sign_of_life(self) -> Any:
        """Ask where it is; returns a reference."""
        return self.actor.where.options(concurrency_group="life").remote()


@dataclass(eq=False)
class Member:
    """A replica, as the owner knows it."""

    shard: Shard
    number: int
    copy: int
    process: Any = None  # a Process; None from its loss until it is started again
    replica: Any = None  # a Handle; None as long
    version: int = 0
    is_serving: bool = False
    is_starting: bool = False
    not_before: float = 0.0  # when to replace it
    trouble: str = ""

    @property
    def node(self) -> str:
        """The node that it is on."""
        return str(self.process.node) if self.process else ""


class Change(NamedTuple):
    """A change, and the version that it leads to; `codes` is None where items are removed."""

    version: int
    next_id: int
    ids: Ids
    codes: Codes | None


@dataclass(eq=False)
class Shard:
    """A shard: what every replica has (`version`), and what some of them may lack (`pending`)."""

    number: int
    version: int = 0
    n: int = 0
    pending: Change | None = None
    members: list[Member] = field(default_factory=list)
    copying: threading.Lock = field(default_factory=threading.Lock)


class Fleet:
    """All replicas; starts them, asks them, changes them, and replaces those that die."""

    def __init__(
        self, folder: Path, manifest: Manifest, timeout_s: float, n_cpus: float, how: How
    ) -> None:
        import ray

        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        self.ray: Any = ray
        self._host = ray.remote(concurrency_groups=GROUPS)(Host)
        # What goes wrong when a replica dies, its disk fails or the index is closed meanwhile.
        self.troubles = (ray.exceptions.RayError, OSError, RuntimeError, ValueError)
        self.folder, self.manifest = folder, manifest
        self.timeout_s, self._n_cpus = timeout_s, n_cpus
        self.shards: list[Shard] = []
        self.changed = threading.Condition()
        self.turn = 0  # of the replicas, to spread questions
        self.n_replaced = self._n_started = 0
        self._is_closed = False
        self._lock = manifest.lock(folder)
        self._keeper = threading.Thread(target=self._keep, daemon=True, name="ssbhash-cluster")
        try:
            self.next_id = self.add_shards(manifest.copies, how)
        except BaseException:
            self.close()
            raise
        self._keeper.start()

    # Starting

    def add_shards(self, copies: list[list[int]], how: How) -> int:
        """Start the replicas of more shards; return the smallest id that none of them has seen.

        Raises
        ------
        ShardsUnavailableError
            If a shard has no replica that can be opened.
        """
        added = []
        for number, own in enumerate(copies, len(self.shards)):
            shard = Shard(number)
            shard.members = [Member(shard, r, copy, is_starting=True) for r, copy in enumerate(own)]
            added.append(shard)
        members = [member for shard in added for member in shard.members]
        with self.changed:
            self.shards += added
        opening = {}
        for member in members:
            opening[self._start(member, how)] = member
        found: dict[Member, Progress] = {}
        ready, _ = self.ray.wait(list(opening), num_returns=len(opening), timeout=_START_S)
        for reference in ready:
            member = opening[reference]
            try:
                found[member] = self.ray.get(reference)
                if how != "open":
                    member.copy = found[member].copy
            except self.troubles as error:
                member.trouble = first_line(error)
        for shard in added:
            self._take_over(shard, found)
        self.write_manifest()
        for member in members:
            if member in found:
                target, arguments = self._catch_up, (member, found[member])
                threading.Thread(target=target, args=arguments, daemon=True).start()
            else:
                self.lose(member, member.replica, member.trouble or "it did not start")
        self._wait(lambda: all(not member.is_starting for member in members), _START_S)
        return max((progress.next_id for progress in found.values()), default=0)

    def _take_over(self, shard: Shard, found: dict[Member, Progress]) -> None:
        """Choose the replica that is right; the others must agree with it or copy it."""
        own = {m: found[m] for m in shard.members if m in found and found[m].copy == m.copy > 0}
        sound = [member for member, progress in own.items() if not progress.is_changing]
        if own and not sound:
            # All died within one change, which was never confirmed. It is as one of them has it.
            member = max(own, key=lambda m: own[m].version)
            own[member] = found[member] = self.ray.get(member.replica.change("settle"))
            sound = [member]
        if not sound:
            trouble = "; ".join(m.trouble or "its folder is gone" for m in shard.members)
            raise ShardsUnavailableError(
                f"no replica of shard {shard.number} of {self.folder} can be opened: {trouble}",
                [shard.number],
            )
        best = max(sound, key=lambda member: own[member].version)
        shard.version, shard.n = own[best].version, own[best].n
        for member in shard.members:
            if member not in sound or own[member].version != shard.version:
                member.copy += 1  # so that its folder never counts again

    def _start(self, member: Member, how: How) -> Any:
        """Open a replica on the node that suits it best; return a reference to its progress."""
        nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
        with self.changed:
            self.require_open()
            others = [m for m in self.members() if m is not member and m.process is not None]
            peers = {m.node for m in others if m.shard is member.shard}
            load = {node: sum(m.node == node for m in others) for node in nodes}
            node = min(nodes, key=lambda node: (node in peers, load[node], node))
            there = [p for p in self.processes() if (p.node, p.number) == (node, member.number)]
            member.process = there[0] if there else self._start_process(node, member.number)
            self._n_started += 1
            actor, key = member.process.actor, self._n_started
            member.replica = Handle(actor, key)
        folder = self.folder / f"shard-{member.shard.number:03d}" / f"replica-{member.number}"
        start = actor.open.options(concurrency_group="changes")
        return start.remote(key, str(folder), self.manifest.n_bits, how)

    def _start_process(self, node: str, number: int) -> Process:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = self._host.options(
            num_cpus=self._n_cpus,
            max_restarts=0,
            max_concurrency=QUESTIONS,
            # Not "soft": Ray then takes any node, the one of the other replica too.
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote()
        ending = actor.wait.options(concurrency_group="life").remote()
        return Process(actor, ending, node, number)

    # Keeping

    def members(self) -> list[Member]:
        """Every replica of every shard."""
        return [member for shard in self.shards for member in shard.members]

    def processes(self) -> list[Process]:
        """Every process that holds replicas."""
        return list({m.process: None for m in self.members() if m.process is not None})

    def lose(self, member: Member, replica: Handle | None, why: str) -> None:
        """Stop using a replica that has gone wrong. It cannot serve again under this handle."""
        with self.changed:
            if member.replica is not replica:
                return
            process, member.process, member.replica = member.process, None, None
            member.is_serving = member.is_starting = False
            member.trouble, member.not_before = why, time.monotonic() + _RETRY_S
            is_empty = process not in self.processes()
            self.changed.notify_all()
        with suppress(*self.troubles):
            if replica is not None and is_empty:
                self.ray.kill(replica.actor)
            elif replica is not None:
                replica.actor.drop.options(concurrency_group="changes").remote(replica.key)

    def end(self, process: Process, why: str) -> None:
        """Stop using a process that has died or does not answer, and all replicas in it."""
        with self.changed:
            inside = [(m, m.replica) for m in self.members() if m.process is process]
        with suppress(*self.troubles):
            self.ray.kill(process.actor)
        for member, replica in inside:
            self.lose(member, replica, why)

    def _fail(self, member: Member, replica: Handle | None, error: Exception) -> None:
        """Stop using a replica after an error, and its process where that gave no answer."""
        process, kinds = member.process, self.ray.exceptions
        is_answer = isinstance(error, kinds.RayTaskError) or not isinstance(error, kinds.RayError)
        if process is not None and member.replica is replica and not is_answer:
            self.end(process, first_line(error))
        self.lose(member, replica, first_line(error))

    def _keep(self) -> None:
        """Replace replicas that are lost, and notice when one is."""
        while not self._is_closed and self.ray.is_initialized():
            with self.changed:
                now = time.monotonic()
                lost = [
                    member
                    for member in self.members()
                    if member.process is None
                    and not member.is_starting
                    and member.not_before <= now
                ]
                for member in lost:
                    member.is_starting = True
                watched = {process.ending: process for process in self.processes()}
            for member in lost:
                threading.Thread(target=self._replace, args=(member,), daemon=True).start()
            if not watched:
                time.sleep(_RETRY_S)
                continue
            ended, _ = self.ray.wait(list(watched), timeout=_RETRY_S)
            for reference in ended:
                self.end(watched[reference], "its process ended")

    def _replace(self, member: Member) -> None:
        replica = None
        try:
            opening = self._start(member, "open")
            replica = member.replica
            progress = self.ray.get(opening, timeout=_START_S)
            self.n_replaced += 1
        except self.troubles as error:
            self._fail(member, replica, error)
            return
        self._catch_up(member, progress)

    def _catch_up(self, member: Member, progress: Progress) -> None:
        """Give a replica what it lacks, then let it serve."""
        with self.changed:
            replica, process, shard = member.replica, member.process, member.shard
        if replica is None:
            return  # it was given up meanwhile
        try:
            where = self.ray.get(process.sign_of_life(), timeout=_START_S)
            while True:
                with self.changed:
                    if member.replica is not replica:
                        return
                    change = shard.pending
                    newest = shard.version if change is None else change.version
                    is_own = progress.copy == member.copy > 0
                    if is_own and not progress.is_changing and progress.version == newest:
                        process.node, process.pid = where
                        member.version, member.trouble = progress.version, ""
                        member.is_serving, member.is_starting = True, False
                        self._confirm(shard, progress.n)
                        return
                if change is not None and is_own and progress.version == newest - 1:
                    progress = self.ray.get(replica.change("apply", *change))
                else:
                    progress = self._copy(member, replica)
        except self.troubles as error:
            self._fail(member, replica, error)

    def _copy(self, member: Member, replica: Handle) -> Progress:
        """Copy the content of a replica that serves."""
        with member.shard.copying:  # a replica makes one snapshot at a time
            with self.changed:
                serving = [other for other in member.shard.members if other.is_serving]
                if not serving:
                    raise RuntimeError("its folder is gone or out of date, and no replica has it")
                source = max(serving, key=lambda other: other.version).replica
            copying = replica.change("receive", source, member.copy + 1)
            progress: Progress = self.ray.get(copying)
            with self.changed:
                member.copy = progress.copy
                self.write_manifest()
            return progress

    def write_manifest(self) -> None:
        """Write down which copies count."""
        with self.changed:
            self.manifest.copies = [[m.copy for m in shard.members] for shard in self.shards]
            self.manifest.write(self.folder)

    def _confirm(self, shard: Shard, n: int) -> None:
        """Take a change as confirmed when every replica has it."""
        change = shard.pending
        if change is not None and all(
            member.is_serving and member.version == change.version for member in shard.members
        ):
            shard.version, shard.n, shard.pending = change.version, n, None
        self.changed.notify_all()

    def _wait(self, is_done: Any, timeout_s: float) -> bool:
        with self.changed:
            return bool(self.changed.wait_for(is_done, timeout_s))

    # Changing

    def on_every_replica(self, method: str) -> None:
        """Call a method of each replica that serves."""
        calls = [m.replica.change("own", method) for m in self.members() if m.is_serving]
        for call in calls:
            try:
                self.ray.get(call)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self.ray.exceptions.RayError:
                pass  # it died; the one that takes its place copies what is needed

    def change(self, changes: Mapping[int, tuple[Ids, Codes | None]], next_id: int) -> None:
        """Change shards; return when every replica of each has it on disk. One call at a time.

        Raises
        ------
        ShardsUnavailableError
            If a replica did not confirm in time. The change is not lost: it is completed when
            the replica is back, and later changes wait for that.
        """
        give_up = time.monotonic() + self.timeout_s
        shards = [self.shards[number] for number in changes]
        self._wait_for_changes(shards, give_up)
        with self.changed:
            self.require_open()
            for shard in shards:
                shard.pending = Change(shard.version + 1, next_id, *changes[shard.number])
            # Those that do not serve now are given the change before they do.
            told = [
                (member, member.replica, shard.pending)
                for shard in shards
                for member in shard.members
                if member.is_serving and shard.pending is not None
            ]
        sent = {r.change("apply", *change): (member, r) for member, r, change in told}
        while sent and time.monotonic() < give_up:
            ready, _ = self.ray.wait(list(sent), timeout=max(0.0, give_up - time.monotonic()))
            for reference in ready:
                member, replica = sent.pop(reference)
                try:
                    progress = self.ray.get(reference)
                except self.troubles as error:
                    self._fail(member, replica, error)
                    continue
                with self.changed:
                    if member.replica is replica:
                        member.version = progress.version
                        self._confirm(member.shard, progress.n)
        for member, replica in sent.values():
            process = member.process
            if member.replica is replica and process is not None:
                self.end(process, f"it did not confirm a change in {self.timeout_s:g} s")
        self._wait_for_changes(shards, give_up)

    def _wait_for_changes(self, shards: list[Shard], give_up: float) -> None:
        def is_done() -> bool:
            return all(shard.pending is None for shard in shards)

        if not self._wait(is_done, max(0.0, give_up - time.monotonic())):
            raise self.unavailable(
                [shard.number for shard in shards if shard.pending is not None],
                "did not confirm the change",
            )

    def unavailable(self, shards: list[int], what: str) -> ShardsUnavailableError:
        """Make an error that says what is wrong with some shards."""
        told = []
        for number in shards:
            troubles = [
                f"replica {member.number}: {member.trouble}"
                for member in self.shards[number].members
                if member.trouble
            ]
            told.append(f"shard {number}" + (f" ({'; '.join(troubles)})" if troubles else ""))
        return ShardsUnavailableError(f"{', '.join(told)} {what} in {self.timeout_s:g} s", shards)

    def require_open(self) -> None:
        """Raise where the index was closed."""
        if self._is_closed:
            raise ValueError(f"{self.folder} is closed")

    def drop_shards(self, n_kept: int) -> None:
        """Remove the last shards."""
        with self.changed:
            dropped = self.shards[n_kept:]
            del self.shards[n_kept:]
            self.write_manifest()
            members = [member for shard in dropped for member in shard.members]
        calls = [member.replica.change("discard") for member in members if member.replica]
        with suppress(*self.troubles):
            self.ray.wait(calls, num_returns=len(calls), timeout=self.timeout_s)
        for member in members:
            self.lose(member, member.replica, "its shard was removed")

    def spread(self) -> None:
        """Move replicas from the nodes with most to those with least.

        Only those of shards with another replica that serves: searches must go on, and the
        new one may have to copy.
        """
        for _ in self.members():
            nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
            with self.changed:
                load = {node: sum(m.node == node for m in self.members()) for node in nodes}
                movable = [m for m in self.members() if self._is_misplaced(m, load)]
            if not movable:
                return
            member = max(movable, key=lambda member: load.get(member.node, 0))
            self.lose(member, member.replica, "it moves")
            if not self._wait(lambda member=member: member.is_serving, _START_S):
                raise self.unavailable([member.shard.number], "did not come back")

    def _is_misplaced(self, member: Member, load: Mapping[str, int]) -> bool:
        """Whether a replica may move, and another node would suit it better."""
        others = [other for other in member.shard.members if other is not member]
        taken = {other.node for other in others}
        free = [load[node] for node in load if node not in taken and node != member.node]
        if not (free and others and member.is_serving and all(m.is_serving for m in others)):
            return False
        return member.node in taken or load.get(member.node, 0) > min(free) + 1

    def stats(self) -> dict[str, Any]:
        """Tell which replicas serve."""
        with self.changed:
            return {
                "n_replaced": self.n_replaced,
                "shards": [
                    {
                        "n": shard.n,
                        "version": shard.version,
                        "is_changing": shard.pending is not None,
                        "replicas": [
                            {
                                "is_serving": member.is_serving,
                                "node": member.node,
                                "process": member.process.pid if member.process else 0,
                                "trouble": member.trouble,
                            }
                            for member in shard.members
                        ],
                    }
                    for shard in self.shards
                ],
            }

    def close(self) -> None:
        """Stop all replicas."""
        with self.changed:
            if self._is_closed:
                return
            self._is_closed = True
            processes = self.processes()
        with suppress(*self.troubles):
            closing = [process.actor.close.remote() for process in processes]
            self.ray.wait(closing, num_returns=len(closing), timeout=10)
        for process in processes:
            with suppress(*self.troubles):
                self.ray.kill(process.actor)
        if self._keeper.is_alive():
            self._keeper.join()
        os.close(self._lock)


def first_line(error: Exception) -> str:
    """Tell what went wrong in one line."""
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, Exception) else error
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
