"""Answers concurrent small questions as one batch.

The engine answers a batch in far less time than its queries one by one. While a batch is
answered the next one gathers by itself. Then it waits for the clients that the last batch
answered: they come back one by one, and a batch of those that were first takes nearly as long
as one of all.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
_Waiting = tuple[Question, "asyncio.Future[Answer]"]


class Gatherer(Generic[Question, Answer]):
    """Answers questions of many tasks in batches, on a thread of its own.

    A thread, since timers of event loops count in milliseconds.

    Parameters
    ----------
    answer
        Answers a batch, in order. What it raises goes to everybody who asked.
    pause_us
        Microseconds between two looks at what has come.
    max_questions
        Questions in a batch.
    timeout_s
        Seconds that a question may wait for its answer.

    Examples
    --------
    >>> async def ask_both() -> list[int]:
    ...     gatherer = Gatherer(lambda batch: [2 * one for one in batch])
    ...     try:
    ...         return await asyncio.gather(gatherer.ask(1), gatherer.ask(2))
    ...     finally:
    ...         gatherer.close()
    >>> asyncio.run(ask_both())
    [2, 4]
    """

    def __init__(
        self,
        answer: Callable[[list[Question]], Sequence[Answer]],
        *,
        pause_us: float = 200.0,
        max_questions: int = 256,
        timeout_s: float = 30.0,
    ) -> None:
        self._answer = answer
        self._pause_s = pause_us / 1e6
        self._max_questions, self._timeout_s = max_questions, timeout_s
        self._waiting: queue.SimpleQueue[_Waiting[Question, Answer] | None] = queue.SimpleQueue()
        self._last_s, self._last_n = 0.0, 0  # of the last batch
        self._thread = threading.Thread(target=self._run, name="ssbhash-gatherer", daemon=True)
        self._thread.start()

    async def ask(self, question: Question) -> Answer:
        """Wait for the answer to a question.

        Raises
        ------
        TimeoutError
            If it takes too long.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        # A timer of its own takes a microsecond, `asyncio.timeout` four.
        timer = loop.call_later(self._timeout_s, _give_up, future)
        self._waiting.put((question, future))
        try:
            return await future
        finally:
            timer.cancel()

    def close(self) -> None:
        """Answer all that wait, then stop."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = self._gather()
            is_open = None not in batch
            # Nobody waits any more where a client left or its time was over.
            asked = [one for one in batch if one is not None and not one[1].done()]
            if asked:
                start = time.perf_counter()
                self._answer_to(asked)
                self._last_s, self._last_n = time.perf_counter() - start, len(asked)

    def _gather(self) -> list[_Waiting[Question, Answer] | None]:
        """Wait for a question; then for as many as in the last batch, half of its time at most."""
        batch = [self._waiting.get()]
        until = time.perf_counter() + self._last_s / 2
        while len(batch) < self._max_questions and None not in batch:
            n_before = len(batch)
            time.sleep(self._pause_s)
            with suppress(queue.Empty):
                while len(batch) < self._max_questions:
                    batch.append(self._waiting.get_nowait())
            if len(batch) == n_before >= self._last_n or time.perf_counter() > until:
                break
        return batch

    def _answer_to(self, asked: list[_Waiting[Question, Answer]]) -> None:
        answers: Sequence[Answer] | None = None
        failure: Exception | None = None
        try:
            answers = self._answer([question for question, _ in asked])
        except Exception as error:  # noqa: BLE001  whatever it is, who asked is told
            failure = error

        def tell() -> None:
            for number, (_, future) in enumerate(asked):
                if future.done():
                    continue
                if answers is None:
                    assert failure is not None
                    future.set_exception(failure)
                else:
                    future.set_result(answers[number])

        asked[0][1].get_loop().call_soon_threadsafe(tell)


def _give_up(future: asyncio.Future[Answer]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
