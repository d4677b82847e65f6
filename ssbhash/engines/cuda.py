"""The CUDA engine: tensors in, tensors out, on the device of the codes.

numpy arrays are taken too: codes go to the device in pages, on all devices present. The lists
of found codes, the planes of a page and the page itself bound the memory beside the results.
Kernels are only queued; the engine waits for the device where a result's size depends on the
data (`within`, a filter), and to check logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssbhash.arrays import NotFiniteError
from ssbhash.engines import cuda_build
from ssbhash.engines.engine import Database

__all__ = [
    "TAKES_TENSORS",
    "binarize",
    "distances",
    "pairs_within",
    "prepare",
    "sample",
    "sample_relaxed",
    "search",
    "within",
]

TAKES_TENSORS = True

cuda_build.load()
_ops: Any = torch.ops.ssbhash_cuda

_ID_BITS = 40  # of a key, which is distance * 2**40 + id
_NOTHING = torch.iinfo(torch.int64).max
_TILE = 1024  # codes that a block scans together by planes
_PAGE_BYTES = 1 << 28
_LIST_BYTES = 1 << 28
_PAIR_QUERIES = 4096
# By the count of instructions (docs/gpu.md): below it, rows are scanned.
_MIN_PLANE_QUERIES = 16
_WARPS = 32  # of a multiprocessor, each with a slice of its own, where rows are scanned
_BLOCKS = 4  # of a multiprocessor, where planes are


@dataclass(frozen=True)
class DevicePlanes:
    """What `prepare` keeps on the device: the codes and, where there are many, their bit planes."""

    codes: Tensor
    planes: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.codes.nbytes + (0 if self.planes is None else self.planes.nbytes)


class _Page(NamedTuple):
    """Codes on a device, the first of which has id `first_id`."""

    codes: Tensor
    first_id: int
    planes: Tensor | None
    allowed: Tensor | None  # a bit for each code, int32 words


def search(database: Database, queries: Any, k: int, n_threads: int) -> tuple[Tensor, Tensor]:
    """Find the k <= n smallest (distance, id) of each query."""
    home = _home(database.codes, queries)
    on_home = _tensor(queries, home)
    best = on_home.new_empty((len(on_home), 0), dtype=torch.int64)
    database, to_ids = _gathered(database, home)
    limits: Tensor | None = None
    for page in _pages(database, home):
        device = page.codes.device
        here = on_home.to(device, non_blocking=True)
        if limits is None:
            limits = _first_limits(page, here, k)
        limits = limits.to(device)
        found = _nearest(page, here, k, limits).to(home)
        best = _smallest(torch.cat([best, found], dim=1), k)
    distances, ids = _split(best)
    return distances, ids if to_ids is None else to_ids[ids]


def within(
    database: Database, queries: Any, radius: int, n_threads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """All (distance, id) with distance <= radius, sorted for each query, in CSR form."""
    home = _home(database.codes, queries)
    on_home = _tensor(queries, home)
    n_bits = 8 * on_home.shape[1]
    database, to_ids = _gathered(database, home)
    keys, owners = [on_home.new_empty(0, dtype=torch.int64)], [on_home.new_empty(0).long()]
    for page in _pages(database, home):
        parts = _all_within(page, on_home.to(page.codes.device), min(radius, n_bits))
        for into, part in zip((owners, keys), parts, strict=True):
            into.append(part.to(home))
    owner, key = torch.cat(owners), torch.cat(keys)
    distances, ids = _split(key)
    # Ids ascend already for each query: a stable sort by the rest leaves them so.
    order = torch.argsort(owner * (n_bits + 1) + distances, stable=True)
    counts = torch.bincount(owner, minlength=len(on_home))
    lims = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    ids = ids[order]
    return lims, distances[order], ids if to_ids is None else to_ids[ids]


def distances(database: Any, queries: Any, n_threads: int) -> Tensor:
    """Compute the full matrix of distances [n_queries, n]."""
    home = _home(database, queries)
    on_home = _tensor(queries, home)
    parts = [torch.empty((len(on_home), 0), dtype=torch.uint16, device=home)]
    for page in _pages(Database(database), home):
        here = on_home.to(page.codes.device)
        part = torch.empty((len(here), len(page.codes)), dtype=torch.uint16, device=here.device)
        _ops.distances(page.codes, here, part)
        parts.append(part.to(home))
    # torch joins no unsigned 16-bit numbers everywhere: their bits are joined.
    return torch.cat([part.view(torch.int16) for part in parts], dim=1).view(torch.uint16)


def pairs_within(codes: Any, radius: int, n_threads: int) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs i < j with distance <= radius, sorted: (first, second, distances)."""
    on_device: Any = _tensor(codes, _home(codes, codes))
    database = Database(on_device)
    parts = []
    for begin in range(0, max(len(on_device), 1), _PAIR_QUERIES):
        rows = on_device[begin : begin + _PAIR_QUERIES]
        lims, found, second = within(database, rows, radius, n_threads)
        first = begin + torch.repeat_interleave(lims.diff())
        is_later = second > first
        first, second, found = first[is_later], second[is_later], found[is_later]
        order = torch.argsort(first * max(len(on_device), 1) + second)
        parts.append((first[order], second[order], found[order]))
    firsts, seconds, found_distances = (torch.cat(part) for part in zip(*parts, strict=True))
    return firsts, seconds, found_distances


def prepare(codes: Any, n_threads: int) -> DevicePlanes:
    """Copy the codes to the device and keep their bit planes there.

    Whole tiles of codes have planes, so those of a few codes would be mostly padding: they are
    made for each search.
    """
    on_device = _tensor(codes, _home(codes, codes))
    planes = _planes_of(on_device)
    return DevicePlanes(on_device, planes if planes.nbytes <= 2 * on_device.nbytes else None)


def sample(logits: Any, seed: int, first_row: int, n_samples: int, n_threads: int) -> Tensor:
    """Draw codes uint8 [n_samples, n, n_bytes], bit ~ Bernoulli(sigmoid(logit))."""
    values = _tensor(logits, _home(logits, logits))
    codes, bad_row = sample_unchecked(values, seed, first_row, n_samples)
    _require_finite(bad_row)
    return codes


def sample_unchecked(
    logits: Tensor, seed: int, first_row: int, n_samples: int = 1
) -> tuple[Tensor, Tensor]:
    """Draw codes without waiting for the device: also the first row that is not finite."""
    codes = _codes_for(logits, n_samples)
    bad_row = _no_bad_row(logits)
    _ops.sample(logits, _signed(seed), _signed(first_row), codes, bad_row)
    return codes, bad_row


def binarize(logits: Any, thresholds: Any, n_threads: int) -> Tensor:
    """Codes uint8 [n, n_bytes], bit = logit > threshold, compared exactly."""
    values = _tensor(logits, _home(logits, logits))
    exact = _tensor(thresholds, values.device)
    if values.dtype != torch.float64:  # rounded down, which no float32 can tell
        nearest = exact.float()
        below = torch.nextafter(nearest, torch.full_like(nearest, -torch.inf))
        exact = torch.where(nearest.double() > exact, below, nearest)
    codes = _codes_for(values, 1)[0]
    bad_row = _no_bad_row(values)
    _ops.binarize(values, exact, codes, bad_row)
    _require_finite(bad_row)
    return codes


def sample_relaxed(logits: Any, tau: float, seed: int, first_row: int, n_threads: int) -> Tensor:
    """Draw relaxed bits float32 [n, n_bits] from the binary Concrete distribution."""
    values = _tensor(logits, _home(logits, logits))
    relaxed, bad_row = relaxed_unchecked(values, tau, seed, first_row)
    _require_finite(bad_row)
    return relaxed


def relaxed_unchecked(
    logits: Tensor, tau: float, seed: int, first_row: int
) -> tuple[Tensor, Tensor]:
    """Draw relaxed bits without waiting for the device: NaN where the logit is not finite."""
    relaxed = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    bad_row = _no_bad_row(logits)
    _ops.sample_relaxed(logits, _signed(seed), _signed(first_row), tau, relaxed, bad_row)
    return relaxed, bad_row


# ---- where things are


def _devices() -> list[torch.device]:
    """Devices that codes of the host are spread over; the emulator has the CPU alone."""
    n_devices = torch.cuda.device_count()
    return [torch.device("cuda", i) for i in range(n_devices)] or [torch.device("cpu")]


def _home(codes: Any, queries: Any) -> torch.device:
    """Return the device of the results: that of the codes, or of the queries."""
    for array in (codes, queries):
        if isinstance(array, Tensor) and array.device in _devices():
            return array.device
    return _devices()[0]


def _tensor(array: Any, device: torch.device) -> Tensor:
    if isinstance(array, Tensor):
        return array.to(device, non_blocking=True)
    is_bfloat16 = array.dtype == np.uint16
    if array.size == 0 or not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()  # torch takes no others
    tensor = torch.from_numpy(array.view(np.int16) if is_bfloat16 else array)
    return (tensor.view(torch.bfloat16) if is_bfloat16 else tensor).to(device)


def _gathered(database: Database, home: torch.device) -> tuple[Database, Tensor | None]:
    """Gather the allowed codes where they are few; then also their ids."""
    if database.ids is None or 8 * len(database.ids) > len(database.codes):
        return database, None
    codes: Any = database.codes
    ids: Any = database.ids
    rows = codes[ids.to(codes.device) if isinstance(codes, Tensor) else ids]
    return Database(rows), _tensor(ids, home)


def _pages(database: Database, home: torch.device) -> Iterator[_Page]:
    """Go through the codes in pages, those of the host spread over all devices."""
    codes: Any = database.codes
    allowed = None
    if database.ids is not None:
        is_allowed = torch.zeros(-(-len(codes) // 32) * 32, dtype=torch.bool, device=home)
        is_allowed[_tensor(database.ids, home)] = True
        places = torch.arange(8, dtype=torch.uint8, device=home)
        packed = (is_allowed.view(-1, 8).to(torch.uint8) << places).sum(1, dtype=torch.uint8)
        allowed = packed.view(torch.int32)
    if isinstance(database.planes, DevicePlanes):
        yield _Page(database.planes.codes, 0, database.planes.planes, allowed)
        return
    on_device = isinstance(codes, Tensor) and codes.device in _devices()
    devices = [home] if on_device else _devices()
    rows = max(_PAGE_BYTES // codes.shape[1] // _TILE, 1) * _TILE
    for number, begin in enumerate(range(0, len(codes), rows)):
        device = devices[number % len(devices)]
        here = _tensor(codes[begin : begin + rows], device).contiguous()
        words = None if allowed is None else allowed[begin // 32 : (begin + rows) // 32].to(device)
        yield _Page(here, begin, None, words)


# ---- search


def _planes_of(codes: Tensor) -> Tensor:
    n_words = _ops.facts(codes, 0)[0]
    planes = torch.empty(n_words, dtype=torch.int32, device=codes.device)
    if len(codes):
        _ops.make_planes(codes, planes)
    return planes


class _Scan:
    """The kernels on one page: by planes or by rows, in how many slices."""

    def __init__(self, page: _Page, n_queries: int, by_planes: bool) -> None:
        self.page = page
        _, _, has_planes, n_multiprocessors, _ = _ops.facts(page.codes, 0)
        n = len(page.codes)
        planes: Tensor | None
        if by_planes and has_planes and n_queries >= _MIN_PLANE_QUERIES:
            planes = _planes_of(page.codes) if page.planes is None else page.planes
            n_blocks = -(-n_queries // 256)
            wanted, unit = -(-_BLOCKS * n_multiprocessors // n_blocks), _TILE
        else:
            planes = None
            wanted, unit = _WARPS * n_multiprocessors, 8 * 32
        self.planes = planes
        self.n_slices = max(1, min(wanted, -(-n // unit)))

    def run(
        self,
        queries: Tensor,
        k: int,
        limits: Tensor,
        capacity: int,
        n_slices: int,
        starts: Tensor | None = None,
        found: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the lists of found keys and how many are on each [n_queries, n_slices]."""
        codes = self.page.codes
        n_queries = len(queries)
        counts = None
        if found is None:
            shape = (n_queries, n_slices, capacity)
            found = torch.empty(shape, dtype=torch.int64, device=codes.device)
        if k > 0:
            counts = torch.zeros(
                (n_queries, 8 * codes.shape[1] + 1), dtype=torch.int32, device=codes.device
            )
        n_found = torch.zeros((n_queries, n_slices), dtype=torch.int64, device=codes.device)
        n_scratch = _ops.facts(codes, n_queries)[1]
        scratch = torch.empty(n_scratch, dtype=torch.uint8, device=codes.device)
        _ops.scan(
            codes, self.planes, self.page.allowed, self.page.first_id, queries, k, limits, counts,
            starts, found, n_found, capacity, scratch,
        )  # fmt: skip
        return found, n_found


def _no_limits(queries: Tensor) -> Tensor:
    return torch.full(
        (len(queries),), 8 * queries.shape[1] + 1, dtype=torch.int32, device=queries.device
    )


def _first_limits(page: _Page, queries: Tensor, k: int) -> Tensor:
    """Bound the k-th distance of each query by that in a sample of the codes."""
    limits = _no_limits(queries)
    n_sample = max(4096, 16 * k)
    if page.allowed is None and len(page.codes) >= 16 * n_sample:
        codes = page.codes[:: len(page.codes) // n_sample].contiguous()
        found = _nearest(_Page(codes, 0, None, None), queries, k, limits)
        limits = (_smallest(found, k)[:, k - 1] >> _ID_BITS).to(torch.int32) + 1
    return limits


def _nearest(page: _Page, queries: Tensor, k: int, limits: Tensor) -> Tensor:
    """Keys of the page among which each query's k smallest are [n_queries, some number]."""
    scan = _Scan(page, len(queries), by_planes=True)
    codes_of_slice = -(-len(page.codes) // scan.n_slices) + _TILE
    capacity = min(2 * k + 64, codes_of_slice + 32)
    n_slices = max(1, min(scan.n_slices, _LIST_BYTES // (8 * capacity)))
    if n_slices < scan.n_slices:
        capacity = min(2 * k + 64, -(-len(page.codes) // n_slices) + _TILE + 32)
    step = max(1, min(1 << 16, _LIST_BYTES // (8 * capacity * n_slices)))
    parts = [queries.new_empty((0, min(k, len(page.codes))), dtype=torch.int64)]
    for begin in range(0, len(queries), step):
        chunk = queries[begin : begin + step]
        bounds = limits[begin : begin + step]
        found, n_found = scan.run(chunk, k, bounds, capacity, n_slices)
        places = torch.arange(capacity, device=found.device)
        found.masked_fill_(places >= n_found[:, :, None], _NOTHING)
        keys = _smallest(found.flatten(1), k)
        missing = min(k, len(page.codes)) - keys.shape[1]
        parts.append(torch.nn.functional.pad(keys, (0, missing), value=_NOTHING))
    return torch.cat(parts)


def _all_within(page: _Page, queries: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Find (query, key) of all codes of the page in the radius: by query, then id."""
    # Where much is found, each code is looked at anyway.
    scan = _Scan(page, len(queries), by_planes=6 * radius < 8 * queries.shape[1] * 2)
    owners, keys = [], []
    for begin in range(0, len(queries), 1 << 12):
        chunk = queries[begin : begin + (1 << 12)]
        limits = torch.full((len(chunk),), radius + 1, dtype=torch.int32, device=chunk.device)
        none = torch.empty(0, dtype=torch.int64, device=chunk.device)
        _, counts = scan.run(chunk, 0, limits, 0, scan.n_slices, found=none)
        ends = counts.flatten().cumsum(0)
        total = int(ends[-1])  # waits for the device: the size of the result
        starts = (ends - counts.flatten()).view_as(counts)
        found = torch.empty(total, dtype=torch.int64, device=chunk.device)
        if total:
            scan.run(chunk, 0, limits, total, scan.n_slices, starts=starts, found=found)
        keys.append(found)
        owners.append(begin + torch.repeat_interleave(counts.sum(1), output_size=total))
    nothing = queries.new_empty(0, dtype=torch.int64)
    return torch.cat([nothing, *owners]), torch.cat([nothing, *keys])


def _smallest(keys: Tensor, k: int) -> Tensor:
    k = min(k, keys.shape[1])
    return torch.topk(keys, k, dim=1, largest=False, sorted=True).values


def _split(keys: Tensor) -> tuple[Tensor, Tensor]:
    return (keys >> _ID_BITS).to(torch.int32), keys & ((1 << _ID_BITS) - 1)


# ---- logits


def _codes_for(logits: Tensor, n_samples: int) -> Tensor:
    n, n_bits = logits.shape
    shape = (n_samples, n, (n_bits + 7) // 8)
    return torch.empty(shape, dtype=torch.uint8, device=logits.device)


def _no_bad_row(logits: Tensor) -> Tensor:
    return torch.full((1,), _NOTHING, dtype=torch.int64, device=logits.device)


def _require_finite(bad_row: Tensor) -> None:
    row = int(bad_row)  # waits for the device
    if row != _NOTHING:
        raise NotFiniteError(row)


def _signed(number: int) -> int:
    """Return the 64-bit pattern of `number` as torch counts it."""
    return number - (1 << 64) if number >= 1 << 63 else number
