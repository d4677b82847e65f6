"""What the service does, without HTTP: questions and changes, within limits and in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, as_codes
from ssbhash.codes import to_hex
from ssbhash.serve import metrics
from ssbhash.serve.bodies import Asked
from ssbhash.serve.gathering import Gatherer
from ssbhash.serve.knowledge import Catalogue, Encoder
from ssbhash.serve.limits import time_limit
from ssbhash.serve.settings import Settings
from ssbhash.serve.source import FixedSource, FolderSource, Index

# Requests of so many queries at most are gathered; a larger one is a batch by itself.
_SMALL = 16
# Items whose distances are counted for a histogram; of a larger index a sample.
_SAMPLE = 100_000
# Distances that are held at once to answer `within`.
_HELD = 1 << 24

Result = TypeVar("Result")
Lists = Sequence[npt.NDArray[Any]]
_Question = tuple[Codes, int, int | None]


class TooMuch(ValueError):
    """A request beyond a limit."""


class Known(ValueError):
    """An id that is in the index already."""


class Service:
    """An index with a model and what is known of its items.

    Parameters
    ----------
    source
        Holds the index.
    encoder
        Encodes texts or vectors; None: codes and ids alone can be asked about.
    catalogue
        Texts, labels and pictures.
    settings
        Limits.
    """

    def __init__(
        self,
        source: FolderSource | FixedSource,
        encoder: Encoder | None,
        catalogue: Catalogue,
        settings: Settings,
    ) -> None:
        self.source, self.encoder, self.catalogue = source, encoder, catalogue
        self.settings = settings
        self._sample: tuple[Index, int, Any] | None = None
        self._gatherer: Gatherer[_Question, tuple[Lists, Lists]] | None = None
        self._encoding: Gatherer[Any, Codes] | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def index(self) -> Index:
        """The index that is served now."""
        return self.source.index

    # Life

    async def start(self) -> None:
        """Begin to gather and to look for changes."""
        if self.settings.gather_us > 0:
            options: dict[str, Any] = {
                "pause_us": self.settings.gather_us,
                "max_questions": self.settings.max_gathered,
                "timeout_s": self.settings.timeout_s,
            }
            self._gatherer = Gatherer(self._search_batch, **options)
            if self.encoder is not None:
                self._encoding = Gatherer(self._encode_batch, **options)
        await asyncio.to_thread(self.source.look)
        self._looking = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """Answer all that wait, and close the index."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        for gatherer in (self._encoding, self._gatherer):
            if gatherer is not None:
                await asyncio.to_thread(gatherer.close)
        self.source.close()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self.settings.look_s)
            await asyncio.to_thread(self.source.look)

    # Questions

    async def encode(self, asked: Asked) -> tuple[Codes, list[dict[str, float]] | None]:
        """Return codes, and class probabilities where the model has classes."""
        codes = await self.codes_of(asked)
        inputs = asked.texts if asked.texts is not None else asked.vectors
        if inputs is None or self.encoder is None or not self.encoder.classes:
            return codes, None
        return codes, await self._timed(self.encoder.probabilities, inputs)

    async def codes_of(self, asked: Asked) -> Codes:
        """Return the codes of what is asked about.

        Raises
        ------
        ValueError, TypeError
            If it is not what the index or the model reads.
        KeyError
            If an id is not in the index.
        """
        if len(asked) > self.settings.max_rows:
            raise TooMuch(f"a request takes {self.settings.max_rows} items, got {len(asked)}")
        if asked.codes is not None:
            return as_codes(asked.codes, "codes", self.index.n_bits)
        if asked.ids is not None:
            return await self._timed(self.index.get, asked.ids)
        if self.encoder is None:
            raise ValueError("this service has no model: give codes or ids")
        self.encoder.check(asked.texts, asked.vectors)
        inputs = asked.texts if asked.texts is not None else asked.vectors
        if self._encoding is None or len(asked) > _SMALL:
            return await self._timed(self.encoder.encode, inputs)
        return await self._encoding.ask(inputs)

    def _encode_batch(self, inputs: list[Any]) -> list[Codes]:
        assert self.encoder is not None
        is_text = self.encoder.reads_texts
        joined = [text for part in inputs for text in part] if is_text else np.concatenate(inputs)
        codes = self.encoder.encode(joined)
        return np.split(codes, np.cumsum([len(part) for part in inputs])[:-1])

    async def search(
        self, asked: Asked, k: int, max_distance: int | None = None
    ) -> tuple[Lists, Lists]:
        """Return distances and ids of the k nearest of each; an item does not find itself."""
        if k > self.settings.max_k:
            raise TooMuch(f"k must be {self.settings.max_k} at most, got {k}")
        if k * len(asked) > self.settings.max_results:
            raise TooMuch(
                f"{len(asked)} queries of {k} neighbours are more than "
                f"{self.settings.max_results} neighbours in all"
            )
        codes = await self.codes_of(asked)
        # An item that is asked about takes one of the k + 1 places at most.
        question = codes, k + (asked.ids is not None), max_distance
        if self._gatherer is None or len(codes) > _SMALL:
            (found,) = await self._timed(self._search_batch, [question])
        else:
            found = await self._gatherer.ask(question)
        return _without_own(found, asked.ids, k)

    def _search_batch(self, questions: list[_Question]) -> list[tuple[Lists, Lists]]:
        """Answer questions; those of equal options in one search."""
        together: dict[tuple[int, int | None], list[int]] = {}
        for number, (_, k, most) in enumerate(questions):
            together.setdefault((k, most), []).append(number)
        answers: list[tuple[Lists, Lists]] = [([], [])] * len(questions)
        for (k, most), numbers in together.items():
            codes = [questions[number][0] for number in numbers]
            joined = codes[0] if len(codes) == 1 else np.concatenate(codes)
            metrics.BATCH.observe(len(joined))
            found = self.index.search(joined, k, max_distance=most)
            # A query may find fewer than others; the places left are at its end.
            distances, ids = found.distances, found.ids
            n_found = (distances <= (self.index.n_bits if most is None else most)).sum(1)
            first = 0
            for number, part in zip(numbers, codes, strict=True):
                rows = range(first, first + len(part))
                first += len(part)
                answers[number] = (
                    [distances[row, : n_found[row]] for row in rows],
                    [ids[row, : n_found[row]] for row in rows],
                )
        return answers

    async def within(self, asked: Asked, radius: int) -> tuple[Lists, Lists]:
        """Return distances and ids of all at most `radius` bits away; not the items themselves."""
        codes = await self.codes_of(asked)
        found = await self._timed(self._within, codes, radius)
        return _without_own(found, asked.ids, None)

    def _within(self, codes: Codes, radius: int) -> tuple[Lists, Lists]:
        index, left = self.index, self.settings.max_results
        distances: list[npt.NDArray[Any]] = []
        ids: list[npt.NDArray[Any]] = []
        n_together = max(1, _HELD // max(1, len(index)))
        for first in range(0, len(codes), n_together):
            found = index.within(codes[first : first + n_together], radius)
            left -= len(found.ids)
            if left < 0:
                raise TooMuch(f"radius {radius} finds more than {self.settings.max_results} items")
            cuts = [slice(*pair) for pair in zip(found.lims, found.lims[1:], strict=False)]
            distances += [found.distances[cut] for cut in cuts]
            ids += [found.ids[cut] for cut in cuts]
        return distances, ids

    async def histogram(self, asked: Asked) -> npt.NDArray[np.int64]:
        """Count the items at each distance from one query, among all items or a sample."""
        if len(asked) != 1:
            raise ValueError(f"a histogram is that of one query, got {len(asked)}")
        codes = await self.codes_of(asked)
        return await self._timed(self._histogram, codes)

    def _histogram(self, codes: Codes) -> npt.NDArray[np.int64]:
        index = self.index
        found = index.within(codes, index.n_bits, ids=self._sampled(index))
        return np.bincount(found.distances, minlength=index.n_bits + 1)

    def _sampled(self, index: Index) -> Any:
        """Ids of a sample, drawn anew when the index has changed by a hundredth; None for all."""
        n = len(index)
        if n <= _SAMPLE:
            return None
        known = self._sample
        if known is None or known[0] is not index or abs(known[1] - n) > n // 100:
            ids = index.ids()
            chosen = np.random.default_rng(0).choice(len(ids), _SAMPLE, replace=False)
            self._sample = known = index, n, ids[np.sort(chosen)]
        return known[2]

    async def describe(self, ids: list[Any]) -> list[dict[str, Any]]:
        """Tell what is known of items."""
        if len(ids) > self.settings.max_k:
            raise TooMuch(f"ids must be {self.settings.max_k} at most, got {len(ids)}")
        codes = to_hex(await self._timed(self.index.get, ids))
        return await self._timed(self._describe, ids, codes)

    def _describe(self, ids: list[Any], codes: list[str]) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = [
            {"id": one, "code": code, **self.catalogue.of(one)}
            for one, code in zip(ids, codes, strict=True)
        ]
        places, inputs = self.catalogue.inputs(ids)
        if places and self.encoder is not None and self.encoder.classes:
            for place, found in zip(places, self.encoder.probabilities(inputs), strict=True):
                items[place]["classes"] = found
        return items

    def stats(self) -> dict[str, Any]:
        """Count items and bytes; tell what the model reads."""
        encoder = self.encoder
        return {
            "index": self.index.stats(),
            "model": None
            if encoder is None
            else {
                "method": encoder.method,
                "reads": "texts" if encoder.reads_texts else "vectors",
                "n_features": encoder.n_features,
                "classes": encoder.classes,
            },
            "writes": self.settings.writes,
            "limits": {
                "max_body_bytes": self.settings.max_body_bytes,
                "max_k": self.settings.max_k,
                "max_rows": self.settings.max_rows,
                "max_results": self.settings.max_results,
                "timeout_s": self.settings.timeout_s,
            },
        }

    # Changes: never given up half-way, so that an answer always tells what happened

    async def add(self, asked: Asked, ids: Any) -> Any:
        """Add items; return their ids once they are on the disk."""
        codes = await self.codes_of(asked)
        return await asyncio.to_thread(self._change, _add, codes, ids)

    async def remove(self, ids: Any) -> None:
        """Remove items; return once that is on the disk."""
        await asyncio.to_thread(self._change, lambda index: index.remove(ids))

    def _change(self, change: Callable[..., Result], *arguments: Any) -> Result:
        with self.source.changing:  # nobody replaces the index meanwhile
            index = self.index
            result = change(index, *arguments)
            index.commit()
            metrics.ITEMS.set(len(index))
        return result

    async def _timed(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function on a thread; TimeoutError when it takes too long."""
        async with time_limit(self.settings.timeout_s):
            return await asyncio.to_thread(function, *arguments)


def _add(index: Index, codes: Codes, ids: Any) -> Any:
    try:
        return index.add(codes, ids)
    except ValueError as error:
        if ids is not None and any(one in index for one in ids):
            raise Known(str(error)) from error
        raise


def _without_own(found: tuple[Lists, Lists], own: Any, k: int | None) -> tuple[Lists, Lists]:
    """Leave out each query's own id, and what is beyond k."""
    if own is None:
        return found
    distances, ids = [], []
    for near, names, one in zip(*found, own, strict=True):
        is_other = names != one
        distances.append(near[is_other][:k])
        ids.append(names[is_other][:k])
    return distances, ids
