"""A question to several shards: who is asked, and who in their place."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ssbhash.cluster.fleet import Fleet, Member, Process, first_line
from ssbhash.cluster.host import Handle
from ssbhash.cluster.replica import NotCurrentError

# A process that is silent this long is asked for a sign of life. If that does not come in as
# long again, other replicas are asked too, and first from then on for some seconds. A dead
# node may take longer to be known as dead.
_PATIENCE_S = 0.5
_AVOIDED_S = 10.0
# Between looks for a replica that serves, where a shard has none.
_PAUSE_S = 0.02


@dataclass(eq=False)
class _Call:
    """A call to one process, about some shards."""

    process: Process
    since: float
    replicas: dict[int, tuple[Member, Handle]] = field(default_factory=dict)
    questions: dict[int, tuple[int, int, Mapping[str, Any]]] = field(default_factory=dict)
    sign: Any = None  # of life, asked for


class Asked:
    """A question to several shards that is under way.

    Parameters
    ----------
    fleet
        The replicas.
    method
        A method of `HammingIndex`.
    own
        For each shard that is asked, arguments of its own.
    **shared
        Arguments for every shard.
    """

    def __init__(
        self,
        fleet: Fleet,
        method: str,
        own: Mapping[int, Mapping[str, Any]],
        **shared: Any,
    ) -> None:
        self._fleet, self._method, self._own, self._shared = fleet, method, own, shared
        self._ray = fleet.ray
        fleet.require_open()
        self._give_up = time.monotonic() + fleet.timeout_s
        self._calls: dict[Any, _Call] = {}
        self._send(own)

    def _send(self, numbers: Iterable[int]) -> None:
        """Ask, for each shard, the replica with the least to do that is not being asked."""
        fleet, now = self._fleet, time.monotonic()
        asked = {member for call in self._calls.values() for member, _ in call.replicas.values()}
        calls: dict[Process, _Call] = {}
        with fleet.changed:
            fleet.turn += 1
            for number in numbers:
                shard = fleet.shards[number]
                free = [m for m in shard.members if m.is_serving and m not in asked]
                if not free:
                    continue
                turns = [(member.number + fleet.turn) % len(shard.members) for member in free]
                burdens = [(m.process.slow_until > now, m.process.n_waiting) for m in free]
                member = free[min(range(len(free)), key=lambda n: (burdens[n], turns[n]))]
                call = calls.setdefault(member.process, _Call(member.process, now))
                call.replicas[number] = member, member.replica
                call.questions[number] = member.replica.key, shard.version, self._own[number]
            for process in calls:
                process.n_waiting += 1
        for process, call in calls.items():
            ask = process.actor.ask.remote
            self._calls[ask(self._method, call.questions, **self._shared)] = call

    def answers(self) -> tuple[dict[int, Any], list[int]]:
        """Wait for the answers; also return the shards that gave none in time."""
        answers: dict[int, Any] = {}
        while len(answers) < len(self._own) and (now := time.monotonic()) < self._give_up:
            self._ask_again(self._own.keys() - answers.keys(), now)
            asked = {number for call in self._calls.values() for number in call.replicas}
            pause = _PATIENCE_S if asked | answers.keys() == self._own.keys() else _PAUSE_S
            pause = min(pause, max(0.0, self._give_up - now))
            if not self._calls:
                time.sleep(pause)
                continue
            for reference in self._ray.wait(list(self._calls), timeout=pause)[0]:
                answers = {**self._answers_of(reference), **answers}
        for reference in list(self._calls):
            self._done(reference)
        return answers, [number for number in self._own if number not in answers]

    def _ask_again(self, missing: set[int], now: float) -> None:
        """Ask others in place of those that failed, or that show no sign of life."""
        for call in self._calls.values():
            if now - call.since > _PATIENCE_S:
                call.since = now
                if call.sign is None:
                    call.sign = call.process.sign_of_life()
                elif self._ray.wait([call.sign], timeout=0)[0]:
                    call.sign = None
                else:
                    call.process.slow_until = now + _AVOIDED_S
                    continue
            missing -= call.replicas.keys()
        if missing:
            self._send(missing)

    def _answers_of(self, reference: Any) -> dict[int, Any]:
        """Take the answers of a process; stop using what cannot answer."""
        call = self._done(reference)
        try:
            found: dict[int, Any] = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # the question is wrong
            for other in list(self._calls):
                self._done(other)
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            self._fleet.end(call.process, first_line(error))
            return {}
        for number, answer in list(found.items()):
            if isinstance(answer, NotCurrentError):
                del found[number]
                self._fleet.lose(*call.replicas[number], first_line(answer))
        return found

    def _done(self, reference: Any) -> _Call:
        call = self._calls.pop(reference)
        with self._fleet.changed:
            call.process.n_waiting -= 1
        return call


def ask_all(
    fleet: Fleet, method: str, own: Mapping[int, Mapping[str, Any]], **shared: Any
) -> list[Any]:
    """Ask shards, as `Asked` does, and wait for all answers.

    Raises
    ------
    ShardsUnavailableError
        If a shard gave no answer in time.
    """
    answers, missing = Asked(fleet, method, own, **shared).answers()
    if missing:
        raise fleet.unavailable(missing, "gave no answer")
    return [answers[number] for number in own]


def ask_every(fleet: Fleet, method: str, **shared: Any) -> list[Any]:
    """Ask every shard the same, as `ask_all` does."""
    return ask_all(fleet, method, {shard.number: {} for shard in fleet.shards}, **shared)
