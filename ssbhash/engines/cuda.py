"""The CUDA engine: for tensors it returns tensors, on the device of the codes.

numpy arrays are taken too: codes go to the device in pages, on all devices present. The lists
of found codes, the planes of a page and the page itself bound the memory beside the results.
Kernels are only queued; the engine waits for the device where a result's size depends on the
data (`within`, a filter), and to check logits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssbhash.arrays import NotFiniteError, TooManyResultsError, unpacked_tensor
from ssbhash.engines import cuda_build
from ssbhash.engines.engine import MISSING_DISTANCE, MISSING_ID, Database, Progress

NAME = "cuda"

_ID_BITS = 40  # of a key, which is distance * 2**40 + id
_NOTHING = torch.iinfo(torch.int64).max
_TILE = 1024  # codes that a block scans together by planes
_PAGE_BYTES = 1 << 28
_LIST_BYTES = 1 << 30
_CHUNK_QUERIES = 4096
_KERNELS = ("rows", "planes", "matrix")  # as csrc/cuda/search.hpp numbers them
# Measured on an H100 (docs/gpu.md): fewer queries are scanned by rows. The matrix kernel offers
# codes to lists 32 at a time, planes 1,024: with many neighbours that decides.
_MIN_BATCH = 16
_MOST_OF_MATRIX = 256
_WARPS = 32  # of a multiprocessor; "rows" gives each a slice of its own
_BLOCKS = 4  # of a multiprocessor, for "planes"


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


def search(
    database: Database, queries: Any, k: int, n_threads: int, max_distance: int | None = None
) -> tuple[Any, Any]:
    home = _home(database.codes, queries)
    on_home = _tensor(queries, home)
    n_bits = 8 * on_home.shape[1]
    limit = min(n_bits, n_bits if max_distance is None else max_distance) + 1
    limits = torch.full((len(on_home),), limit, dtype=torch.int32, device=home)
    best: Tensor | None = None
    database, to_ids = _gathered(database, home)
    for page in _pages(database, home) if k > 0 else ():
        device = page.codes.device
        limits = limits.to(device)
        found = _nearest(page, on_home.to(device, non_blocking=True), k, limits).to(home)
        if best is not None:
            found = torch.cat([best, found], dim=1)
        best = found.sort(dim=1).values[:, :k]
    if best is None:
        best = on_home.new_empty((len(on_home), 0), dtype=torch.int64)
    if best.shape[1] < k:
        best = torch.nn.functional.pad(best, (0, k - best.shape[1]), value=_NOTHING)
    found_distances, ids = _split(best, to_ids)
    return _as_given(found_distances, queries), _as_given(ids, queries)


def within(
    database: Database, queries: Any, radii: Any, n_threads: int, max_results: int | None = None
) -> tuple[Any, Any, Any]:
    home = _home(database.codes, queries)
    on_home = _tensor(queries, home)
    if max_results is not None:
        n_results = int(_counts(database, on_home, radii, home).sum())
        if n_results > max_results:
            raise TooManyResultsError(n_results)
    n_bits = 8 * on_home.shape[1]
    database, to_ids = _gathered(database, home)
    nothing = on_home.new_empty(0, dtype=torch.int64)
    owners, keys = [nothing], [nothing]
    counts = torch.zeros(len(on_home), dtype=torch.int64, device=home)
    for page in _pages(database, home):
        device = page.codes.device
        limits = _tensor(radii, device).to(torch.int32) + 1
        for begin, chunk in _chunks(on_home.to(device)):
            n_found, found = _all_within(page, chunk, limits[begin : begin + len(chunk)])
            counts[begin : begin + len(chunk)] += n_found.to(home)
            owner = begin + torch.repeat_interleave(n_found, output_size=len(found))
            owners.append(owner.to(home))
            keys.append(found.to(home))
    owner, key = torch.cat(owners), torch.cat(keys)
    found_distances, ids = _split(key, to_ids)
    # Ids ascend already for each query: a stable sort by the rest leaves them so.
    by_distance = found_distances.clamp(max=n_bits + 1)
    order = torch.argsort(owner * (n_bits + 2) + by_distance, stable=True)
    lims = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    found_distances, ids = found_distances[order], ids[order]
    return _as_given(lims, queries), _as_given(found_distances, queries), _as_given(ids, queries)


def count_within(database: Database, queries: Any, radii: Any, n_threads: int) -> Any:
    home = _home(database.codes, queries)
    return _as_given(_counts(database, _tensor(queries, home), radii, home), queries)


def _counts(database: Database, queries: Tensor, radii: Any, home: torch.device) -> Tensor:
    database, _ = _gathered(database, home)
    counts = torch.zeros(len(queries), dtype=torch.int64, device=home)
    for page in _pages(database, home):
        device = page.codes.device
        limits = _tensor(radii, device).to(torch.int32) + 1
        for begin, chunk in _chunks(queries.to(device)):
            scan = _Scan(page, len(chunk), 0)
            n_found = scan.within(chunk, limits[begin : begin + len(chunk)])
            counts[begin : begin + len(chunk)] += n_found.sum(1).to(home)
    return counts


def distances(codes: Any, queries: Any, n_threads: int) -> Any:
    home = _home(codes, queries)
    on_home = _tensor(queries, home)
    # torch joins no unsigned 16-bit numbers everywhere, but it does their bits.
    parts = [torch.empty((len(on_home), 0), dtype=torch.int16, device=home)]
    for page in _pages(Database(codes), home):
        here = on_home.to(page.codes.device)
        part = torch.empty((len(here), len(page.codes)), dtype=torch.int16, device=here.device)
        _kernels().distances(page.codes, here, part)
        parts.append(part.to(home))
    return _as_given(torch.cat(parts, dim=1).view(torch.uint16), queries)


def paired_distances(first: Any, second: Any, n_threads: int) -> Any:
    home = _home(first, second)
    differences = _tensor(first, home) ^ _tensor(second, home)
    total = torch.zeros(len(differences), dtype=torch.int32, device=home)
    for place in range(8):
        total += ((differences >> place) & 1).sum(1, dtype=torch.int32)
    return _as_given(total.to(torch.int16).view(torch.uint16), second)


def pairs_within(
    database: Database,
    radius: int,
    n_threads: int,
    max_results: int | None = None,
    progress: Progress | None = None,
) -> tuple[Any, Any, Any]:
    home = _home(database.codes, database.codes)
    gathered, to_ids = _gathered(database, home, always=True)
    codes: Any = _tensor(gathered.codes, home)
    rows = Database(codes)
    if max_results is not None:
        radii = torch.full((len(codes),), radius, dtype=torch.int64, device=home)
        n_pairs = (int(_counts(rows, codes, radii, home).sum()) - len(codes)) // 2
        if n_pairs > max_results:
            raise TooManyResultsError(n_pairs)
    nothing = codes.new_empty(0, dtype=torch.int64)
    parts = [(nothing, nothing, nothing.int())]
    for begin, chunk in _chunks(codes):
        radii = torch.full((len(chunk),), radius, dtype=torch.int64, device=home)
        lims, found, second = within(rows, chunk, radii, n_threads)
        first = begin + torch.repeat_interleave(lims.diff())
        is_later = second > first
        first, second, found = first[is_later], second[is_later], found[is_later]
        order = torch.argsort(first * len(codes) + second)
        parts.append((first[order], second[order], found[order]))
        if progress is not None:
            progress((begin + len(chunk)) / len(codes))
    firsts, seconds, found = (torch.cat(part) for part in zip(*parts, strict=True))
    if to_ids is not None:
        firsts, seconds = to_ids[firsts], to_ids[seconds]
    given = database.codes
    return _as_given(firsts, given), _as_given(seconds, given), _as_given(found, given)


def merge(parts: list[tuple[Any, Any]], k: int, n_threads: int) -> tuple[Any, Any]:
    given = parts[0][1]
    home = _home(given, given)
    found_distances, ids = (
        torch.cat([_tensor(part, home) for part in column], dim=1)
        for column in zip(*parts, strict=True)
    )
    # Ids of parts may need all 63 bits: sorted by id, then stably by distance.
    is_missing = ids < 0
    found_distances = found_distances.masked_fill(is_missing, MISSING_DISTANCE)
    order = torch.argsort(ids.masked_fill(is_missing, _NOTHING), dim=1)
    nearest = found_distances.gather(1, order).argsort(dim=1, stable=True)
    order = order.gather(1, nearest)[:, :k]
    ids = ids.masked_fill(is_missing, MISSING_ID)
    return (
        _as_given(found_distances.gather(1, order), given),
        _as_given(ids.gather(1, order), given),
    )


def prepare(codes: Any, n_threads: int) -> Any:
    """Copy the codes to the device and keep their bit planes there, if batches are searched by them.

    Whole tiles of codes have planes, so those of a few codes would be mostly padding: they are
    made for each search.
    """
    on_device = _tensor(codes, _home(codes, codes))
    facts = _facts(on_device)
    by_planes = _kernel_for(facts, _MIN_BATCH, 1) == "planes"
    is_small = 4 * facts.n_plane_words <= 2 * on_device.nbytes
    return DevicePlanes(on_device, _planes_of(on_device) if by_planes and is_small else None)


def sample(logits: Any, seed: int, first_row: int, n_samples: int, n_threads: int) -> Any:
    values = _tensor(logits, _home(logits, logits))
    codes, bad_row = sample_unchecked(values, seed, first_row, n_samples)
    _require_finite(bad_row)
    return _as_given(codes, logits)


def sample_unchecked(
    logits: Tensor, seed: int, first_row: int, n_samples: int = 1
) -> tuple[Tensor, Tensor]:
    """Draw codes without waiting for the device: also the first row that is not finite."""
    codes = _codes_for(logits, n_samples)
    bad_row = _no_bad_row(logits)
    _kernels().sample(logits, _signed(seed), _signed(first_row), codes, bad_row)
    return codes, bad_row


def binarize(logits: Any, thresholds: Any, n_threads: int) -> Any:
    values = _tensor(logits, _home(logits, logits))
    exact = _tensor(thresholds, values.device)
    if values.dtype != torch.float64:  # rounded down, which no float32 can tell
        nearest = exact.float()
        below = torch.nextafter(nearest, torch.full_like(nearest, -torch.inf))
        exact = torch.where(nearest.double() > exact, below, nearest)
    codes = _codes_for(values, 1)[0]
    bad_row = _no_bad_row(values)
    _kernels().binarize(values, exact, codes, bad_row)
    _require_finite(bad_row)
    return _as_given(codes, logits)


def sample_relaxed(logits: Any, tau: float, seed: int, first_row: int, n_threads: int) -> Any:
    values = _tensor(logits, _home(logits, logits))
    relaxed, bad_row = relaxed_unchecked(values, tau, seed, first_row)
    _require_finite(bad_row)
    return _as_given(relaxed, logits)


def relaxed_unchecked(
    logits: Tensor, tau: float, seed: int, first_row: int
) -> tuple[Tensor, Tensor]:
    """Draw relaxed bits without waiting for the device: NaN where the logit is not finite."""
    relaxed = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    bad_row = _no_bad_row(logits)
    _kernels().sample_relaxed(logits, _signed(seed), _signed(first_row), tau, relaxed, bad_row)
    return relaxed, bad_row


def _kernels() -> Any:
    cuda_build.load()
    return torch.ops.ssbhash_cuda


# ---- where things are


def _devices() -> list[torch.device]:
    """List the devices that codes of the host are spread over; the emulator has the CPU alone."""
    n_devices = torch.cuda.device_count()
    return [torch.device("cuda", i) for i in range(n_devices)] or [torch.device("cpu")]


def device_called(name: str) -> torch.device:
    """Return the device of that name; "cuda" is torch's current one."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device {name!r} is none that torch knows: {error}") from None
    if str(device) == "cuda" and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    if device not in (present := _devices()):
        raise ValueError(f"device must be one of {', '.join(map(str, present))}; got {name!r}")
    return device


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


def _as_given(result: Tensor, given: Any) -> Any:
    return result if isinstance(given, Tensor) else result.cpu().numpy()


def _chunks(rows: Tensor, size: int = _CHUNK_QUERIES) -> Iterator[tuple[int, Tensor]]:
    for begin in range(0, len(rows), size):
        yield begin, rows[begin : begin + size]


def _gathered(
    database: Database, home: torch.device, always: bool = False
) -> tuple[Database, Tensor | None]:
    """Gather the allowed codes where they are few, and their ids: less to scan than all."""
    codes: Any = database.codes
    ids: Any = database.ids
    if database.allowed is not None and (always or 8 * len(database) <= len(codes)):
        ids = unpacked_tensor(_tensor(database.allowed, home), len(codes)).nonzero().squeeze(1)
    if ids is None or not (always or 8 * len(ids) <= len(codes)):
        return database, None
    at_home = _tensor(ids, home)
    rows = codes[at_home.to(codes.device) if isinstance(codes, Tensor) else at_home.cpu().numpy()]
    return Database(rows), at_home


def _pages(database: Database, home: torch.device) -> Iterator[_Page]:
    """Go through the codes in pages, those of the host spread over all devices."""
    codes: Any = database.codes
    allowed = None
    if database.allowed is not None:
        packed = _tensor(database.allowed, home)
        allowed = torch.nn.functional.pad(packed, (0, -len(packed) % 4)).view(torch.int32)
    elif database.ids is not None:
        is_allowed = torch.zeros(-(-len(codes) // 32) * 32, dtype=torch.bool, device=home)
        is_allowed[_tensor(database.ids, home)] = True
        places = torch.arange(8, dtype=torch.uint8, device=home)
        packed = (is_allowed.view(-1, 8).to(torch.uint8) << places).sum(1, dtype=torch.uint8)
        allowed = packed.view(torch.int32)
    prepared: Any = database.planes
    if isinstance(prepared, DevicePlanes):
        yield _Page(prepared.codes, 0, prepared.planes, allowed)
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


class _Facts(NamedTuple):
    n_plane_words: int
    n_scratch_bytes: int  # for each query
    has_planes: bool
    has_matrix: bool
    n_multiprocessors: int


def _facts(codes: Tensor) -> _Facts:
    return _Facts(*_kernels().facts(codes))


def _kernel_for(facts: _Facts, n_queries: int, k: int) -> str:
    """Choose a kernel for a search (k = 0: all within), or take that of SSBHASH_CUDA_KERNEL."""
    able = [True, facts.has_planes, facts.has_matrix]
    names = [name for name, is_able in zip(_KERNELS, able, strict=True) if is_able]
    if forced := os.environ.get("SSBHASH_CUDA_KERNEL", ""):
        if forced not in names:
            raise ValueError(
                f"SSBHASH_CUDA_KERNEL is {forced!r}; these codes on this device have kernels "
                f"{', '.join(names)}"
            )
        return forced
    if n_queries < _MIN_BATCH:
        return "rows"
    return "planes" if facts.has_planes and k > _MOST_OF_MATRIX else names[-1]


def _planes_of(codes: Tensor) -> Tensor:
    n_words = _facts(codes).n_plane_words
    planes = torch.empty(n_words, dtype=torch.int32, device=codes.device)
    if len(codes):
        _kernels().make_planes(codes, planes)
    return planes


class _Scan:
    """A kernel on one page, and the number of its slices."""

    def __init__(self, page: _Page, n_queries: int, k: int) -> None:
        facts = _facts(page.codes)
        self.page, self.kernel = page, _kernel_for(facts, n_queries, k)
        self.planes, self.n_scratch_bytes, unit = None, 0, 256
        if self.kernel == "planes":
            self.n_scratch_bytes = facts.n_scratch_bytes
            self.planes = _planes_of(page.codes) if page.planes is None else page.planes
            n_blocks = -(-n_queries // 256)
            wanted, unit = -(-_BLOCKS * facts.n_multiprocessors // n_blocks), _TILE
        else:
            # A slice has a warp for each 64 queries, of which the matrix units serve so many.
            n_warps = -(-n_queries // 64) if self.kernel == "matrix" else 1
            wanted = -(-_WARPS * facts.n_multiprocessors // max(n_warps, 1))
        self.n_slices = max(1, min(wanted, -(-len(page.codes) // unit)))

    def within(
        self,
        queries: Tensor,
        limits: Tensor,
        starts: Tensor | None = None,
        found: Tensor | None = None,
    ) -> Tensor:
        """Put keys below the limits on lists in `found` that begin at `starts`, or only count them.

        Returns how many each list has [n_queries, n_slices].
        """
        if found is None:
            found = queries.new_empty(0, dtype=torch.int64)
        return self._run(queries, 0, limits, self.n_slices, found, starts=starts)

    def nearest(
        self, queries: Tensor, k: int, limits: Tensor, n_slices: int, capacity: int, n_sample: int
    ) -> Tensor:
        """Find the k smallest keys of each query, in the order of ids [n_queries, k].

        The limits are lowered: first to what a sample of the codes allows, then as keys are found.
        """
        n_bits = 8 * queries.shape[1]
        found = limits.new_empty((len(queries), n_slices, capacity), dtype=torch.int64)
        counts = limits.new_zeros((len(queries), n_bits + 1))
        nearest = limits.new_empty((len(queries), k), dtype=torch.int64)
        self._run(queries, k, limits, n_slices, found, counts, n_sample=n_sample, nearest=nearest)
        return nearest

    def _run(
        self,
        queries: Tensor,
        k: int,
        limits: Tensor,
        n_slices: int,
        found: Tensor,
        counts: Tensor | None = None,
        starts: Tensor | None = None,
        n_sample: int = 0,
        nearest: Tensor | None = None,
    ) -> Tensor:
        n_found = limits.new_zeros((len(queries), n_slices), dtype=torch.int64)
        scratch = queries.new_empty(len(queries) * self.n_scratch_bytes)
        capacity = found.shape[2] if k > 0 else 0
        _kernels().scan(
            _KERNELS.index(self.kernel), self.page.codes, self.planes, self.page.allowed,
            self.page.first_id, queries, k, limits, counts, starts, found, n_found, capacity,
            scratch, n_sample, nearest,
        )  # fmt: skip
        return n_found


def _nearest(page: _Page, queries: Tensor, k: int, limits: Tensor) -> Tensor:
    """Find keys of the page [n_queries, at most k] that are each query's smallest, in any order."""
    scan, k = _Scan(page, len(queries), k), min(k, len(page.codes))
    n_slices, capacity = scan.n_slices, _capacity(page, scan.n_slices, k)
    if 8 * capacity * n_slices > _LIST_BYTES:
        n_slices = max(1, _LIST_BYTES // (8 * capacity))
        capacity = _capacity(page, n_slices, k)
    n_sample = max(4096, 16 * k)
    if page.first_id > 0 or 16 * n_sample > len(page.codes):
        n_sample = 0  # limits of the first page serve the others too
    step = max(1, min(1 << 16, _LIST_BYTES // (8 * capacity * n_slices)))
    parts = [
        scan.nearest(chunk, k, limits[begin : begin + step], n_slices, capacity, n_sample)
        for begin, chunk in _chunks(queries, step)
    ]
    if len(parts) == 1:
        return parts[0]
    return torch.cat([queries.new_empty((0, k), dtype=torch.int64), *parts])


def _capacity(page: _Page, n_slices: int, k: int) -> int:
    """Return the length of a list: all codes of a slice, or enough to be seldom cut to k."""
    return min(2 * k + 64, -(-len(page.codes) // n_slices) + _TILE + 32)


def _all_within(page: _Page, queries: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """Find all codes of the page below the limits: their number [n_queries], then their keys.

    Keys are by query, then id. Rows that change between the two scans may leave _NOTHING there.
    """
    scan = _Scan(page, len(queries), 0)
    counts = scan.within(queries, limits)
    starts = torch.nn.functional.pad(counts.flatten().cumsum(0), (1, 0))
    total = int(starts[-1])  # waits for the device: the size of the result
    found = torch.full((total,), _NOTHING, dtype=torch.int64, device=queries.device)
    if total:
        scan.within(queries, limits, starts, found)
    return counts.sum(1), found


def _split(keys: Tensor, to_ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """Distances and ids of keys; the latter by a table, where codes were gathered."""
    is_missing = keys == _NOTHING
    ids = keys & ((1 << _ID_BITS) - 1)
    if to_ids is not None and len(to_ids):
        ids = to_ids[ids.clamp(max=len(to_ids) - 1)]
    found_distances = (keys >> _ID_BITS).to(torch.int32)
    return (
        found_distances.masked_fill(is_missing, MISSING_DISTANCE),
        ids.masked_fill(is_missing, MISSING_ID),
    )


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
