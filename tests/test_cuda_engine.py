"""The cuda engine on tensors, in pages and over several devices; its absence in one sentence."""

import numpy as np
import pytest

import ssbhash
from ssbhash.engines import available

torch = pytest.importorskip("torch")
if "cuda" not in available():
    pytest.skip("neither a device nor its emulator", allow_module_level=True)

from ssbhash.engines import cuda

DEVICE = cuda._devices()[0]  # of the emulator: the CPU
RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 256, (3000, 3), dtype=np.uint8)
QUERIES = RNG.integers(0, 256, (20, 3), dtype=np.uint8)
ON_DEVICE = {
    "codes": torch.from_numpy(CODES).to(DEVICE),
    "query": torch.from_numpy(QUERIES).to(DEVICE),
}
MASK = RNG.random(3000) < 0.3
IDS = RNG.integers(0, 3000, 40)


def same(found: tuple, expected: tuple) -> None:
    for part, whole in zip(found, expected, strict=True):
        assert isinstance(part, torch.Tensor)
        assert part.device == DEVICE
        np.testing.assert_array_equal(part.cpu().numpy(), whole)


def on_host(value: object) -> object:
    if isinstance(value, ssbhash.SearchResult):
        return ssbhash.SearchResult(*(each.cpu().numpy() for each in value))
    return value.cpu().numpy() if isinstance(value, torch.Tensor) else value


@pytest.fixture
def no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that goes to the host is an error, on the emulator's CPU too."""

    def refuse(self: torch.Tensor) -> None:
        raise AssertionError("a tensor left its device")

    monkeypatch.setattr(torch.Tensor, "numpy", refuse)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": torch.from_numpy(MASK)},
        {"mask": torch.from_numpy(np.packbits(MASK, bitorder="little"))},
        {"ids": torch.from_numpy(IDS)},
        {"exclude": list(range(20)), "max_distance": 9, "pad": True},
        {"max_distance": 4},
    ],
    ids=["all", "mask", "packed mask", "ids", "exclude", "max_distance"],
)
def test_tensors_stay_on_their_device(options: dict, no_numpy: None, monkeypatch) -> None:
    options = {
        name: option.to(DEVICE) if isinstance(option, torch.Tensor) else option
        for name, option in options.items()
    }
    found = ssbhash.search(**ON_DEVICE, k=7, backend="cuda", **options)
    monkeypatch.undo()
    plain = {
        name: option.cpu().numpy() if isinstance(option, torch.Tensor) else option
        for name, option in options.items()
    }
    same(found, ssbhash.search(CODES, QUERIES, 7, backend="reference", **plain))


def test_the_other_functions_keep_tensors_too(no_numpy: None, monkeypatch) -> None:
    logits = torch.randn(9, 12, generator=torch.Generator().manual_seed(0))
    on_device = logits.to(DEVICE)
    prepared = ssbhash.prepare(ON_DEVICE["codes"], backend="cuda")
    found = [
        ssbhash.within(**ON_DEVICE, radius=6, backend="cuda"),
        ssbhash.search(prepared, ON_DEVICE["query"], 5, backend="cuda"),
        (ssbhash.distances(**ON_DEVICE, backend="cuda"),),
        (ssbhash.sample(on_device, 3, backend="cuda"),),
        (ssbhash.sample_relaxed(on_device, 3, backend="cuda"),),
        (ssbhash.binarize(on_device, 0.25, backend="cuda"),),
    ]
    monkeypatch.undo()
    expected = [
        ssbhash.within(CODES, QUERIES, 6),
        ssbhash.search(CODES, QUERIES, 5),
        (ssbhash.distances(CODES, QUERIES),),
        (ssbhash.sample(logits, 3).numpy(),),
        (ssbhash.sample_relaxed(logits, 3).numpy(),),
        (ssbhash.binarize(logits, 0.25).numpy(),),
    ]
    for ours, theirs in zip(found, expected, strict=True):
        same(ours, theirs)


def test_merged_results_stay_on_their_device(no_numpy: None, monkeypatch) -> None:
    codes, query = ON_DEVICE["codes"], ON_DEVICE["query"]
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0)) + 2000
    shuffled = order.to(DEVICE)
    # The last part has fewer codes than there are columns, and ids that ascend with no row.
    rows = [codes[:1500], codes[1500:1995], codes[1995:2000], codes[shuffled]]
    ids = [0, torch.arange(1500, 1995, device=DEVICE), 1995, shuffled]
    parts = [
        (ssbhash.search(part, query, 9, pad=True, backend="cuda"), of_part)
        for part, of_part in zip(rows, ids, strict=True)
    ]
    found = ssbhash.merge(parts, 9, backend="cuda")
    single = [
        (ssbhash.SearchResult(result.distances[0], result.ids[0]), own) for result, own in parts
    ]
    found_by_one = ssbhash.merge(single, 9, backend="cuda")
    monkeypatch.undo()
    # Within a part equal distances are in the order of its rows: a part's k-th tie may be lost.
    nearest = ssbhash.merge([(on_host(result), on_host(own)) for result, own in parts], 9)
    same(found, nearest)
    same(found_by_one, (nearest.distances[0], nearest.ids[0]))
    in_order = ssbhash.merge(parts[:3], 9, backend="cuda")
    same(in_order, ssbhash.search(CODES[:2000], QUERIES, 9))


@pytest.mark.parametrize("n_bytes", [8, 16, 32])
@pytest.mark.parametrize("kernel", ["", "rows", "planes", "matrix"])
def test_every_kernel_finds_the_same(kernel: str, n_bytes: int, monkeypatch) -> None:
    rng = np.random.default_rng(n_bytes)
    codes = rng.integers(0, 4, (1500, n_bytes), dtype=np.uint8)
    queries = rng.integers(0, 4, (70, n_bytes), dtype=np.uint8)
    at_odd_address = torch.zeros(70 * n_bytes + 1, dtype=torch.uint8, device=DEVICE)[1:]
    at_odd_address = at_odd_address.view(70, n_bytes).copy_(torch.from_numpy(queries))
    mask = rng.random(1500) < 0.7
    if kernel == "matrix" and not cuda._facts(torch.from_numpy(codes).to(DEVICE)).has_matrix:
        pytest.skip("this device's matrix units take no single bits")
    monkeypatch.setenv("SSBHASH_CUDA_KERNEL", kernel)
    radius = 5 * n_bytes // 8
    found = [
        *ssbhash.search(codes, queries, 20, backend="cuda"),
        ssbhash.search(codes, at_odd_address, 20, backend="cuda").ids.cpu().numpy(),
        *ssbhash.search(
            ssbhash.prepare(codes, backend="cuda"), queries, 1, mask=mask, backend="cuda"
        ),
        *ssbhash.within(codes, queries, radius, mask=mask, backend="cuda"),
    ]
    nearest = ssbhash.search(codes, queries, 20, backend="reference")
    expected = [
        *nearest,
        nearest.ids,
        *ssbhash.search(codes, queries, 1, mask=mask, backend="reference"),
        *ssbhash.within(codes, queries, radius, mask=mask, backend="reference"),
    ]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_kernel_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSBHASH_CUDA_KERNEL", "matrix")
    with pytest.raises(ValueError, match="'matrix'; these codes on this device have kernels rows"):
        ssbhash.search(CODES, QUERIES, 1, backend="cuda")


@pytest.mark.parametrize("n_devices", [1, 3])
def test_codes_of_the_host_go_in_pages_to_all_devices(n_devices: int, monkeypatch) -> None:
    monkeypatch.setattr(cuda, "_PAGE_BYTES", 1024 * 3)
    monkeypatch.setattr(cuda, "_LIST_BYTES", 1 << 14)
    monkeypatch.setattr(cuda, "_devices", lambda: [DEVICE] * n_devices)
    for k in (1, 40, 2500):
        found = ssbhash.search(CODES, QUERIES, k, backend="cuda")
        expected = ssbhash.search(CODES, QUERIES, k)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_array_equal(found.distances, expected.distances)
    found = ssbhash.within(CODES, QUERIES, 6, backend="cuda")
    for part, whole in zip(found, ssbhash.within(CODES, QUERIES, 6), strict=True):
        np.testing.assert_array_equal(part, whole)


def test_an_index_is_held_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssbhash.index.store.TAIL_ITEMS", 1000)
    on_device, on_host = ssbhash.HammingIndex(24, device=str(DEVICE)), ssbhash.HammingIndex(24)
    for index in (on_device, on_host):
        index.add(CODES[:2500], ids=np.arange(2500) * 3)
        index.add(CODES[2500:], ids=np.arange(500) * 3 + 1)
        index.remove(np.arange(0, 1500, 9) * 3)
    options: dict = {
        "all": {},
        "mask": {"mask": np.arange(7500) % 2 == 0},
        "few": {"ids": np.arange(0, 300, 3)},
        "exclude": {"exclude": np.arange(20) * 3},
    }
    query = ON_DEVICE["query"]
    for chosen in options.values():
        found = on_device.search(query, 30, max_distance=9, **chosen)
        same(found, on_host.search(QUERIES, 30, max_distance=9, **chosen))
        same(on_device.within(query, 6, **chosen), on_host.within(QUERIES, 6, **chosen))
        counts = on_device.count_within(QUERIES, 6, **chosen)
        np.testing.assert_array_equal(counts, on_host.count_within(QUERIES, 6, **chosen))
    copies = on_device._device._copies  # the parts are copied once, and let go with their part
    before = {id(segment) for segment in copies}
    on_device.search(query, 3)
    assert before == {id(segment) for segment in copies}
    on_device.compact()
    same(on_device.search(query[0], 9), on_host.search(QUERIES[0], 9))
    assert len(copies) == 1
    numpy_found = on_device.search(QUERIES, 5, backend="reference")
    np.testing.assert_array_equal(numpy_found.ids, on_host.search(QUERIES, 5).ids)
    vectors = np.random.default_rng(0).normal(size=(7500, 4))
    ranked = [
        index.search(QUERIES, 5, rerank=(vectors, vectors[:20])) for index in (on_device, on_host)
    ]
    np.testing.assert_array_equal(ranked[0].ids, ranked[1].ids)


def test_an_index_on_no_device_says_so() -> None:
    for name in ("meta", "bogus", "cuda:77"):
        with pytest.raises(ValueError, match=f"device.*{name}"):
            ssbhash.HammingIndex(8, device=name)


def test_absence_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssbhash.engines import _engine, cuda_build

    monkeypatch.delenv("SSBHASH_CUDA_LIBRARY", raising=False)
    if torch.cuda.is_available():
        monkeypatch.setattr(cuda_build, "_toolkit", lambda: None)
    _engine.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"backend 'cuda' cannot run here: (torch|nvcc)"):
            ssbhash.search(CODES, QUERIES, 1, backend="cuda")
    finally:
        _engine.cache_clear()
