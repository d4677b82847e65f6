"""The replicas of all shards, seen from the process that owns the index.

Every replica is a Ray actor that is started once. One that dies is never restarted by Ray but
replaced from here, so that it serves again only after it has been compared with the others.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ssbhash.arrays import Codes
from ssbhash.cluster.hashing import Ids
from ssbhash.cluster.manifest import Manifest
from ssbhash.cluster.replica import How, NotCurrentError, Progress, Replica

_START_S = 120.0
# A replica that is silent this long is asked for a sign of life. If that does not come in as
# long again, another replica is asked too, and first from then on for some seconds. A dead
# node may take longer to be known as dead.
_PATIENCE_S = 0.5
_AVOIDED_S = 10.0
_RETRY_S = 0.2
# Calls that a replica works on at a time; one of them is `wait`.
_CALLS = 8


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
class Member:
    """A replica, as its owner knows it."""

    shard: Shard
    number: int
    copy: int
    actor: Any = None  # None from its death until the next one is started
    ending: Any = None  # a reference that is ready when the actor has ended
    node: str = ""
    process: int = 0
    version: int = 0
    is_serving: bool = False
    is_starting: bool = False
    not_before: float = 0.0  # when to replace it
    slow_until: float = 0.0  # until when others are asked first
    n_waiting: int = 0  # reads that it has not answered yet
    trouble: str = ""


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
    turn: int = 0  # of the members, to spread reads
    copying: threading.Lock = field(default_factory=threading.Lock)


class Fleet:
    """All replicas; starts them, asks them, changes them, and replaces those that die."""

    def __init__(
        self, folder: Path, manifest: Manifest, timeout_s: float, n_cpus: float, how: How
    ) -> None:
        import ray

        if not ray.is_initialized():
            ray.init()
        self.ray: Any = ray
        self._replica_class = ray.remote(Replica)
        # What goes wrong when a replica dies, its disk fails or the index is closed meanwhile.
        self.troubles = (ray.exceptions.RayError, OSError, RuntimeError, ValueError)
        self.folder, self.manifest = folder, manifest
        self.timeout_s, self._n_cpus = timeout_s, n_cpus
        self.shards: list[Shard] = []
        self.changed = threading.Condition()
        self.n_replaced = 0
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
            self._start(member)
            opening[member.actor.open.remote(how)] = member
        found: dict[Member, Progress] = {}
        ready, _ = self.ray.wait(list(opening), num_returns=len(opening), timeout=_START_S)
        for reference in ready:
            member = opening[reference]
            try:
                found[member] = self.ray.get(reference)
                if how != "open":
                    member.copy = found[member].copy
            except self.troubles as error:
                member.trouble = _first_line(error)
        for shard in added:
            self._take_over(shard, found)
        self.write_manifest()
        for member in members:
            if member in found:
                target, arguments = self._catch_up, (member, found[member])
                threading.Thread(target=target, args=arguments, daemon=True).start()
            else:
                self.lose(member, member.actor, member.trouble or "it did not start")
        self._wait(lambda: all(not member.is_starting for member in members), _START_S)
        return max((progress.next_id for progress in found.values()), default=0)

    def _take_over(self, shard: Shard, found: dict[Member, Progress]) -> None:
        """Choose the replica that is right; the others must agree with it or copy it."""
        own = {m: found[m] for m in shard.members if m in found and found[m].copy == m.copy > 0}
        sound = [member for member, progress in own.items() if not progress.is_changing]
        if own and not sound:
            # All died within one change, which was never confirmed. It is as one of them has it.
            member = max(own, key=lambda m: own[m].version)
            own[member] = found[member] = self.ray.get(member.actor.settle.remote())
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

    def _start(self, member: Member) -> None:
        """Start an actor for a replica on the node that suits it best."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
        with self.changed:
            others = [m for m in self.members() if m is not member and m.actor is not None]
            peers = {m.node for m in others if m.shard is member.shard}
            load = {node: sum(m.node == node for m in others) for node in nodes}
            member.node = min(nodes, key=lambda node: (node in peers, load[node], node))
            place = NodeAffinitySchedulingStrategy(member.node, soft=True)
            folder = self.folder / f"shard-{member.shard.number:03d}" / f"replica-{member.number}"
            self.require_open()
            member.actor = self._replica_class.options(
                num_cpus=self._n_cpus,
                max_restarts=0,
                max_concurrency=_CALLS,
                scheduling_strategy=place,
            ).remote(str(folder), self.manifest.n_bits)

    # Keeping

    def members(self) -> Iterable[Member]:
        """Every replica of every shard."""
        return [member for shard in self.shards for member in shard.members]

    def lose(self, member: Member, actor: Any, why: str) -> None:
        """Stop using an actor that has died or gone wrong. It cannot serve again."""
        with self.changed:
            if actor is None or member.actor is not actor:
                return
            member.actor, member.ending, member.is_serving = None, None, False
            member.trouble, member.is_starting = why, False
            member.not_before = time.monotonic() + _RETRY_S
            self.changed.notify_all()
        with suppress(*self.troubles):
            self.ray.kill(actor)

    def _keep(self) -> None:
        """Replace replicas that are lost, and notice when one is."""
        while not self._is_closed and self.ray.is_initialized():
            with self.changed:
                now = time.monotonic()
                lost = [
                    member
                    for member in self.members()
                    if member.actor is None and not member.is_starting and member.not_before <= now
                ]
                for member in lost:
                    member.is_starting = True
                watched = {
                    member.ending: member for member in self.members() if member.ending is not None
                }
            for member in lost:
                threading.Thread(target=self._replace, args=(member,), daemon=True).start()
            if not watched:
                time.sleep(_RETRY_S)
                continue
            ended, _ = self.ray.wait(list(watched), timeout=_RETRY_S)
            for reference in ended:
                member = watched[reference]
                actor = member.actor
                if member.ending is reference:
                    self.lose(member, actor, "it ended")

    def _replace(self, member: Member) -> None:
        actor = None
        try:
            self._start(member)
            actor = member.actor
            progress = self.ray.get(actor.open.remote("open"), timeout=_START_S)
            self.n_replaced += 1
        except self.troubles as error:
            self.lose(member, actor, _first_line(error))
            with self.changed:
                member.is_starting = False
            return
        self._catch_up(member, progress)

    def _catch_up(self, member: Member, progress: Progress) -> None:
        """Give a replica what it lacks, then let it serve."""
        actor, shard = member.actor, member.shard
        try:
            node, process = self.ray.get(actor.where.remote(), timeout=_START_S)
            while True:
                with self.changed:
                    if member.actor is not actor:
                        return  # it was given up meanwhile
                    change = shard.pending
                    newest = shard.version if change is None else change.version
                    is_own = progress.copy == member.copy > 0
                    if is_own and not progress.is_changing and progress.version == newest:
                        member.node, member.process, member.trouble = node, process, ""
                        member.version, member.ending = progress.version, actor.wait.remote()
                        member.is_serving, member.is_starting = True, False
                        self._confirm(shard, progress.n)
                        return
                if change is not None and is_own and progress.version == newest - 1:
                    call = actor.apply.remote(*change)
                    progress = self.ray.get(call)
                else:
                    progress = self._copy(member, actor)
        except self.troubles as error:
            self.lose(member, actor, _first_line(error))

    def _copy(self, member: Member, actor: Any) -> Progress:
        """Copy the content of a replica that serves."""
        with member.shard.copying:  # a replica makes one snapshot at a time
            with self.changed:
                serving = [other for other in member.shard.members if other.is_serving]
                if not serving:
                    raise RuntimeError("its folder is gone or out of date, and no replica has it")
                source = max(serving, key=lambda other: other.version).actor
            progress: Progress = self.ray.get(actor.receive.remote(source, member.copy + 1))
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

    # Asking

    def ask(self, method: str, questions: Mapping[int, Mapping[str, Any]]) -> Asked:
        """Ask shards; `questions` has the arguments for each."""
        return Asked(self, method, questions)

    def every(self, method: str, **arguments: Any) -> list[Any]:
        """Ask every shard the same, and wait for all answers."""
        return self.all(method, {shard.number: arguments for shard in self.shards})

    def all(self, method: str, questions: Mapping[int, Mapping[str, Any]]) -> list[Any]:
        """Ask shards, and wait for all answers."""
        answers, missing = self.ask(method, questions).answers()
        if missing:
            raise self.unavailable(missing, "gave no answer")
        return [answers[number] for number in questions]

    def on_every_replica(self, method: str) -> None:
        """Call a method of each replica that serves."""
        calls = [m.actor.own.remote(method) for m in self.members() if m.is_serving]
        for call in calls:
            try:
                self.ray.get(call)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self.ray.exceptions.RayError:
                pass  # it died; the one that takes its place copies what is needed

    # Changing

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
                (member, member.actor, shard.pending)
                for shard in shards
                for member in shard.members
                if member.is_serving and shard.pending is not None
            ]
        sent = {actor.apply.remote(*change): (member, actor) for member, actor, change in told}
        while sent and time.monotonic() < give_up:
            ready, _ = self.ray.wait(list(sent), timeout=max(0.0, give_up - time.monotonic()))
            for reference in ready:
                member, actor = sent.pop(reference)
                try:
                    progress = self.ray.get(reference)
                except self.troubles as error:
                    self.lose(member, actor, _first_line(error))
                    continue
                with self.changed:
                    if member.actor is actor:
                        member.version = progress.version
                        self._confirm(member.shard, progress.n)
        for member, actor in sent.values():
            self.lose(member, actor, f"it did not confirm a change in {self.timeout_s:g} s")
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
        for member in [member for shard in dropped for member in shard.members]:
            with suppress(*self.troubles):
                self.ray.get(member.actor.discard.remote(), timeout=self.timeout_s)
            self.lose(member, member.actor, "its shard was removed")

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
            self.lose(member, member.actor, "it moves")
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
                                "process": member.process,
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
            actors = [member.actor for member in self.members() if member.actor is not None]
        with suppress(*self.troubles):
            closing = [actor.close.remote() for actor in actors]
            self.ray.wait(closing, num_returns=len(closing), timeout=10)
        for actor in actors:
            with suppress(*self.troubles):
                self.ray.kill(actor)
        if self._keeper.is_alive():
            self._keeper.join()
        os.close(self._lock)


class Asked:
    """A question to several shards that is under way."""

    def __init__(
        self,
        fleet: Fleet,
        method: str,
        questions: Mapping[int, Mapping[str, Any]],
    ) -> None:
        self._fleet, self._method, self._questions = fleet, method, questions
        self._ray = fleet.ray
        fleet.require_open()
        self._give_up = time.monotonic() + fleet.timeout_s
        self._sent: dict[Any, tuple[int, Member, Any]] = {}
        self._last_sent = dict.fromkeys(questions, 0.0)
        self._signs: dict[int, Any] = {}  # of life, asked for
        for number in questions:
            self._send(number)

    def _send(self, number: int) -> None:
        """Ask the replica with the least to do that has not been asked yet."""
        fleet = self._fleet
        asked = {member for shard, member, _ in self._sent.values() if shard == number}
        now = time.monotonic()
        with fleet.changed:
            for member in asked:
                member.slow_until = now + _AVOIDED_S
            free = [m for m in fleet.shards[number].members if m.is_serving and m not in asked]
            if not free:
                return
            shard = fleet.shards[number]
            shard.turn += 1
            turn, n = shard.turn, len(free)
            member = min(
                free, key=lambda m: (m.slow_until > now, m.n_waiting, (m.number + turn) % n)
            )
            version, actor = shard.version, member.actor
            member.n_waiting += 1
        call = actor.ask.remote(version, self._method, **self._questions[number])
        self._sent[call] = number, member, actor
        self._last_sent[number] = now

    def _doubt(self, number: int) -> None:
        """Ask another replica where the last one shows no sign of life."""
        sign = self._signs.pop(number, None)
        self._last_sent[number] = time.monotonic()
        if sign is None:
            actor = [actor for shard, _, actor in self._sent.values() if shard == number][-1]
            self._signs[number] = actor.where.remote()
        elif not self._ray.wait([sign], timeout=0)[0]:
            self._send(number)

    def answers(self) -> tuple[dict[int, Any], list[int]]:
        """Wait for the answers; also return the shards that gave none in time."""
        answers: dict[int, Any] = {}
        while len(answers) < len(self._questions) and time.monotonic() < self._give_up:
            now = time.monotonic()
            waiting = {number for number, _, _ in self._sent.values()}
            for number in self._questions:
                if number in answers:
                    continue
                if number not in waiting:
                    self._send(number)
                elif now - self._last_sent[number] > _PATIENCE_S:
                    self._doubt(number)
            asked = {number for number, _, _ in self._sent.values()}
            is_stranded = len(asked) + len(answers) < len(self._questions)
            pause = min(0.02 if is_stranded else _PATIENCE_S, max(0.0, self._give_up - now))
            if not self._sent:
                time.sleep(pause)
                continue
            ready, _ = self._ray.wait(list(self._sent), num_returns=len(asked), timeout=pause)
            for reference in ready:
                number, member, actor = self._done(reference)
                try:
                    answer = self._ray.get(reference)
                    answers.setdefault(number, answer)
                except self._ray.exceptions.RayTaskError as error:
                    if not isinstance(error.cause, NotCurrentError):
                        self._forget()
                        raise error.cause from None
                    self._fleet.lose(member, actor, _first_line(error))
                except self._ray.exceptions.RayError as error:
                    self._fleet.lose(member, actor, _first_line(error))
            for reference, (number, _, _) in list(self._sent.items()):
                if number in answers:
                    self._done(reference)
        self._forget()
        return answers, [number for number in self._questions if number not in answers]

    def _done(self, reference: Any) -> tuple[int, Member, Any]:
        number, member, actor = self._sent.pop(reference)
        with self._fleet.changed:
            member.n_waiting -= 1
        return number, member, actor

    def _forget(self) -> None:
        for reference in list(self._sent):
            self._done(reference)


def _first_line(error: Exception) -> str:
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, Exception) else error
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
