import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssbhash
from ssbhash.engines import available, native_module
from ssbhash.engines.reference_sampling import flip_probability, philox

# From the authors' kat_vectors (Random123): counter, key, block.
KNOWN_BLOCKS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0"),
]
KNOWN_ANSWERS = [
    "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "408f276d 41c83b0e a20bc7c6 6d5451fd",
    "d16cfe09 94fdcceb 5001e420 24126ea1",
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "block"), [(*x, y) for x, y in zip(KNOWN_BLOCKS, KNOWN_ANSWERS, strict=True)]
)
def test_philox_gives_the_known_answers(counter, key, block):
    counter, (k0, k1) = words(counter), words(key)
    seed = k0 | k1 << 32
    row, third = (np.array([x], np.uint64) for x in (counter[0] | counter[1] << 32, counter[2]))
    assert philox(seed, row, third, counter[3])[0].tolist() == words(block)
    if "native" in available():
        assert native_module().philox(counter, seed) == words(block)
    if "numba" in available():
        from ssbhash.engines.numba_sampling import _philox

        arguments = (np.uint64(x) for x in (seed, int(row[0]), counter[2], counter[3]))
        assert [int(word) for word in _philox(*arguments)] == words(block)


def test_flip_probability_is_sigmoid():
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.prec = 200
    rng = np.random.default_rng(0)
    magnitudes = np.concatenate(
        [
            rng.uniform(0, 100, 3000),
            rng.exponential(1, 1000),
            [0.0, 1e-300, 1e-10, np.log(2), 99.99],
        ]
    )
    for magnitude, probability in zip(magnitudes, flip_probability(magnitudes), strict=True):
        truth = 1 / (1 + mpmath.exp(mpmath.mpf(float(magnitude))))
        assert abs(probability / truth - 1) < 2**-50


def engine_draws(function, logits, **options):
    return [function(logits, backend=name, **options) for name in available()]


def assert_all_equal(results):
    for result in results[1:]:
        np.testing.assert_array_equal(results[0], result)


SHAPES = st.tuples(st.integers(0, 40), st.integers(1, 150))
DTYPES = st.sampled_from(["f2", "f4", "f8"])
FIRST_ROWS = st.integers(0, 2**64 - 100) | st.integers(2**32 - 300, 2**32 + 1)
VIEWS = {  # of an array of two more columns
    "whole": lambda a: np.ascontiguousarray(a[:, 2:]),
    "columns": lambda a: a[:, :-2],
    "turned": lambda a: a[::-1, 2:],
    "every other": lambda a: np.repeat(np.repeat(a[:, 2:], 2, axis=0), 2, axis=1)[::2, ::-2],
    "transposed": lambda a: np.asfortranarray(a)[:, 2:],
}


@settings(max_examples=100, deadline=None)
@given(
    SHAPES | st.tuples(st.integers(250, 300), st.sampled_from([3, 9, 50, 64])),
    DTYPES,
    st.integers(0, 2**64 - 1),
    FIRST_ROWS,
    st.floats(0.01, 60),
    st.sampled_from(list(VIEWS)),
)
def test_engines_agree_to_the_last_bit(shape, dtype, seed, first_row, scale, view):
    rng = np.random.default_rng(seed)
    n, n_bits = shape
    logits = VIEWS[view]((rng.standard_normal((n, n_bits + 2)) * scale).astype(dtype))
    options = {"seed": seed, "first_row": min(first_row, 2**64 - n)}
    assert_all_equal(engine_draws(ssbhash.sample, logits, n_samples=2, **options))
    assert_all_equal(engine_draws(ssbhash.sample_relaxed, logits, **options))
    assert_all_equal(engine_draws(ssbhash.binarize, logits))
    threshold = rng.standard_normal(n_bits)
    assert_all_equal(engine_draws(ssbhash.binarize, logits, threshold=threshold))
    bits = logits.astype(np.float64) > threshold
    assert np.array_equal(ssbhash.binarize(logits, threshold), ssbhash.pack(bits))


@pytest.mark.parametrize("function", [ssbhash.sample, ssbhash.binarize, ssbhash.sample_relaxed])
def test_what_lies_beside_a_view_does_not_matter(backend, function):
    whole = np.random.default_rng(0).standard_normal((300, 53)).astype(np.float32)
    logits = whole[:, :50].copy()
    whole[:, 50:] = np.nan
    np.testing.assert_array_equal(
        function(whole[:, :50], backend=backend), function(logits, backend=backend)
    )


def test_engines_agree_where_the_native_filter_is_unsure():
    """Logits that put the probability on the random half of their bit, or next to it."""
    n, n_bits = 2000, 64
    group = np.arange(n_bits // 8, dtype=np.uint64)
    blocks = philox(9, np.arange(n, dtype=np.uint64)[:, None], group, 0)
    half = blocks.astype("<u4").view("<u2").reshape(n, n_bits) ^ 0x8000
    offset = np.random.default_rng(0).uniform(-30, 30, half.shape)
    probability = np.clip((half + offset) / 65536, 1e-6, 1 - 1e-6)
    logits = np.log(probability) - np.log1p(-probability)
    for dtype in (np.float32, np.float64):
        assert_all_equal(engine_draws(ssbhash.sample, logits.astype(dtype), seed=9))


def test_the_same_seed_gives_the_same_codes_however_rows_are_split(backend):
    logits = np.random.default_rng(0).standard_normal((5000, 24)).astype(np.float32)
    whole = ssbhash.sample(logits, seed=3, backend=backend)
    relaxed = ssbhash.sample_relaxed(logits, seed=3, backend=backend)
    for n_threads in (1, 2, 5):
        options = {"seed": 3, "backend": backend, "n_threads": n_threads}
        assert np.array_equal(ssbhash.sample(logits, **options), whole)
        assert np.array_equal(ssbhash.sample_relaxed(logits, **options), relaxed)
    parts = [
        ssbhash.sample(logits[start:stop], seed=3, first_row=start, backend=backend)
        for start, stop in itertools.pairwise((0, 1, 1700, 5000))
    ]
    assert np.array_equal(np.concatenate(parts), whole)


def test_codes_are_those_of_every_release():
    """A change of these is a change of the specification."""
    logits = np.linspace(-3, 3, 20).reshape(2, 10)
    codes = ssbhash.sample(logits, seed=1, n_samples=2)
    assert codes.tolist() == [[[224, 0], [206, 3]], [[0, 0], [250, 3]]]


def test_samples_of_a_row_differ_and_the_first_is_the_plain_one(backend):
    logits = np.zeros((3, 64))
    many = ssbhash.sample(logits, seed=1, n_samples=4, backend=backend)
    assert many.shape == (4, 3, 8)
    assert np.array_equal(many[0], ssbhash.sample(logits, seed=1, backend=backend))
    assert len(np.unique(many.reshape(12, 8), axis=0)) == 12


def test_rows_beyond_32_bits_have_streams_of_their_own(backend):
    logits = np.zeros((3, 64))
    draws = [
        ssbhash.sample(logits, first_row=first_row, backend=backend)
        for first_row in (0, 2**32 - 1, 2**32, 2**33, 2**64 - 3)
    ]
    assert np.array_equal(draws[1][1:], draws[2][:2])
    rows = np.concatenate([draws[0], draws[1], draws[3], draws[4]])
    assert len(np.unique(rows, axis=0)) == len(rows)


def bits_of(codes, n_bits):
    return ssbhash.unpack(codes.reshape(-1, codes.shape[-1]), n_bits)


def test_bits_have_their_probability(backend):
    stats = pytest.importorskip("scipy.stats")
    logits = np.array([-12, -8.5, -5, -2, -0.5, 0, 0.1, 1, 3, 7, 9], np.float32)
    n = 400_000
    codes = ssbhash.sample(np.broadcast_to(logits, (n, len(logits))), seed=2, backend=backend)
    counts = bits_of(codes, len(logits)).sum(0)
    for logit, count in zip(logits.astype(float), counts, strict=True):
        assert stats.binomtest(int(count), n, 1 / (1 + np.exp(-logit))).pvalue > 1e-4


def test_probabilities_far_below_2_to_the_minus_16_are_kept():
    stats = pytest.importorskip("scipy.stats")
    """Only bits whose half ties with the threshold 0 go on to the tail: force that."""
    get_tail = pytest.importorskip("ssbhash.engines.reference_sampling")._tail_below
    n = 200_000
    row = np.arange(n, dtype=np.uint64)
    scaled = flip_probability(np.full(n, 14.0)) * 65536
    assert 0 < scaled[0] < 0.1
    below = get_tail(scaled, row, np.zeros(n, int), np.zeros(n, bool), 0, 0)
    assert stats.binomtest(int(below.sum()), n, scaled[0]).pvalue > 1e-3


def test_bits_are_independent(backend):
    stats = pytest.importorskip("scipy.stats")
    """Chi-square on bytes and on pairs of bits; runs along rows and along bits."""
    codes = ssbhash.sample(np.zeros((40_000, 64), np.float32), seed=5, backend=backend)
    observed = np.bincount(codes.ravel(), minlength=256)
    assert stats.chisquare(observed).pvalue > 1e-4
    bits = bits_of(codes, 64)
    correlation = np.corrcoef(bits.T) - np.eye(64)
    assert np.abs(correlation).max() < 5.5 / np.sqrt(len(bits))
    for sequence in (bits.ravel(), bits.T.ravel()):
        n, ones = len(sequence), sequence.mean()
        runs = 1 + np.count_nonzero(sequence[1:] != sequence[:-1])
        expected = 2 * n * ones * (1 - ones)
        z = (runs - expected) / (2 * np.sqrt(n) * ones * (1 - ones))
        assert abs(z) < 4.5
    neighbours = ssbhash.sample(np.zeros((40_000, 64), np.float32), seed=6, backend=backend)
    agreement = (bits == bits_of(neighbours, 64)).mean()
    assert abs(agreement - 0.5) < 4.5 * 0.5 / np.sqrt(bits.size)


def test_a_hundred_is_certain(backend):
    logits = np.repeat([[100.0, -100.0, 1e30, -1e30]], 1000, axis=0)
    for dtype in (np.float32, np.float64):
        codes = ssbhash.sample(logits.astype(dtype), seed=1, backend=backend)
        assert np.all(codes == 0b0101)
    codes = ssbhash.sample(np.array([[1e300, -1e300]]), backend=backend)
    assert codes.tolist() == [[1]]
    assert ssbhash.binarize(np.array([[1e300, -1e300]]), backend=backend).tolist() == [[1]]
    relaxed = ssbhash.sample_relaxed(np.array([[1e300, -1e300]]), backend=backend)
    assert relaxed[0, 0] == 1
    assert 0 <= relaxed[0, 1] < 1e-30


def test_the_bit_grows_with_the_logit(backend):
    """One random number decides a bit for every logit: common random numbers."""
    base = np.random.default_rng(0).standard_normal((300, 40))
    lower = ssbhash.unpack(ssbhash.sample(base, seed=4, backend=backend), 40)
    higher = ssbhash.unpack(ssbhash.sample(base + 0.3, seed=4, backend=backend), 40)
    assert np.all(lower <= higher)
    assert np.any(lower < higher)


def test_relaxed_bits_follow_the_concrete_distribution(backend):
    stats = pytest.importorskip("scipy.stats")
    n = 50_000
    for logit, tau in ((0.0, 2 / 3), (1.5, 2 / 3), (-1.0, 0.5), (0.5, 3.0)):
        relaxed = ssbhash.sample_relaxed(
            np.full((n, 1), logit), seed=8, tau=tau, backend=backend
        ).astype(np.float64)
        inside = np.clip(relaxed[:, 0], 1e-12, 1 - 1e-7)
        noise = tau * (np.log(inside) - np.log1p(-inside)) - logit
        assert stats.kstest(noise, "logistic").pvalue > 1e-3


def test_relaxed_bits_are_accurate():
    seed, n_bits = 3, 8
    logits = np.random.default_rng(0).standard_normal((500, n_bits)) * 4
    blocks = philox(
        seed, np.arange(500, dtype=np.uint64)[:, None], np.arange(2, dtype=np.uint64) + (2 << 30), 0
    )
    u = ((blocks.reshape(500, n_bits) >> np.uint64(9)) + 0.5) * 2.0**-23
    exact = 1 / (1 + np.exp(-(logits + np.log(u / (1 - u))) / (2 / 3)))
    np.testing.assert_allclose(ssbhash.sample_relaxed(logits, seed=seed), exact, atol=2e-6)


def test_shapes(backend):
    options = {"backend": backend}
    empty = np.zeros((0, 10))
    assert ssbhash.sample(empty, **options).shape == (0, 2)
    assert ssbhash.sample(empty, n_samples=3, **options).shape == (3, 0, 2)
    assert ssbhash.binarize(empty, **options).shape == (0, 2)
    assert ssbhash.sample_relaxed(empty, **options).shape == (0, 10)
    assert ssbhash.sample(np.zeros(10), **options).shape == (2,)
    assert ssbhash.sample(np.zeros(10), n_samples=3, **options).shape == (3, 2)
    assert ssbhash.binarize(np.zeros(10), **options).shape == (2,)
    assert ssbhash.sample_relaxed(np.zeros(10), **options).shape == (10,)
    assert ssbhash.sample([[1, -1]], **options).shape == (1, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(backend, dtype, bad):
    for n_bits in (1, 8, 21, 64):
        logits = np.zeros((3000, n_bits), dtype)
        logits[[1234, 2900], n_bits // 2] = bad
        for function in (ssbhash.sample, ssbhash.binarize, ssbhash.sample_relaxed):
            with pytest.raises(ValueError, match="row 1234 holds a NaN or an infinity"):
                function(logits, backend=backend)
            with pytest.raises(ValueError, match="row 1234 "):
                function(np.asfortranarray(logits), backend=backend)


LOGITS = np.zeros((2, 8))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ssbhash.sample(LOGITS, seed=-1), ValueError, "seed must be at least 0"),
        (lambda: ssbhash.sample(LOGITS, seed=2**64), ValueError, r"seed must be below 2\*\*64"),
        (lambda: ssbhash.sample(LOGITS, seed=1.5), TypeError, "seed must be an integer"),
        (lambda: ssbhash.sample(LOGITS, n_samples=0), ValueError, "n_samples must be at least 1"),
        (lambda: ssbhash.sample(LOGITS, n_samples=2**32 + 1), ValueError, "n_samples must be at"),
        (lambda: ssbhash.sample(LOGITS, first_row=-1), ValueError, "first_row"),
        (lambda: ssbhash.sample(LOGITS, first_row=2**64 - 1), ValueError, "first_row must leave"),
        (lambda: ssbhash.sample(LOGITS, n_threads=0), ValueError, "n_threads"),
        (lambda: ssbhash.sample(LOGITS, backend="fpga"), ValueError, "backend must be one of"),
        (lambda: ssbhash.sample(LOGITS[:, :0]), ValueError, "logits must have shape"),
        (
            lambda: ssbhash.sample(LOGITS[None]),
            ValueError,
            r"logits must have shape .* \(1, 2, 8\)",
        ),
        (lambda: ssbhash.sample(1.0), ValueError, r"logits must have shape .* \(\)"),
        (lambda: ssbhash.sample([["a"]]), TypeError, "logits must be a numeric array"),
        (lambda: ssbhash.sample(LOGITS.astype("g")), TypeError, "logits must be float16"),
        (lambda: ssbhash.sample_relaxed(LOGITS, tau=0), ValueError, "tau must be"),
        (lambda: ssbhash.sample_relaxed(LOGITS, tau=np.nan), ValueError, "tau must be"),
        (lambda: ssbhash.binarize(LOGITS, np.zeros(7)), ValueError, r"shape \[8\], got \(7,\)"),
        (lambda: ssbhash.binarize(LOGITS, np.nan), ValueError, "threshold must be finite"),
        (lambda: ssbhash.binarize(LOGITS, "a"), TypeError, "threshold must be a numeric"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_thresholds_are_compared_exactly(backend):
    """0.1 lies between two floats: rounding it to float32 would turn these bits."""
    around = np.array([[np.nextafter(np.float32(0.1), np.float32(0)), np.float32(0.1)]])
    assert ssbhash.binarize(around, 0.1, backend=backend).tolist() == [[2]]
    largest = np.array([[3.4e38, -3.4e38]], np.float32)
    assert ssbhash.binarize(largest, 1e300, backend=backend).tolist() == [[0]]
    assert ssbhash.binarize(largest, -1e300, backend=backend).tolist() == [[3]]
    assert ssbhash.binarize(np.array([[0.0, -0.0]]), 0.0, backend=backend).tolist() == [[0]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_tensors_go_in_without_a_copy_and_come_out(backend, dtype):
    torch = pytest.importorskip("torch")
    logits = (torch.randn(50, 19, generator=torch.Generator().manual_seed(0)) * 5).to(
        getattr(torch, dtype)
    )
    exact = logits.double().numpy()
    for function in (ssbhash.sample, ssbhash.binarize):
        codes = function(logits.requires_grad_(), backend=backend)
        assert isinstance(codes, torch.Tensor)
        assert np.array_equal(codes.numpy(), function(exact, backend=backend))
        strided = logits.detach().T.contiguous().T
        assert torch.equal(function(strided, backend=backend), codes)
    relaxed = ssbhash.sample_relaxed(logits, backend=backend)
    assert torch.equal(relaxed, torch.from_numpy(ssbhash.sample_relaxed(exact, backend=backend)))
    bad = torch.zeros(4, 9, dtype=getattr(torch, dtype))
    bad[2, 8] = float("inf")
    with pytest.raises(ValueError, match="row 2 holds"):
        ssbhash.sample(bad, backend=backend)


@pytest.mark.skipif("native" not in available(), reason="no native engine")
def test_every_instruction_set_gives_the_same_bits():
    program = """
import hashlib, numpy as np, ssbhash
rng = np.random.default_rng(0)
digest = hashlib.sha256()
for dtype in ("f2", "f4", "f8"):
    for n_bits in (1, 12, 16, 64):
        logits = (rng.standard_normal((2500, n_bits)) * 5).astype(dtype)
        digest.update(ssbhash.sample(logits, seed=7).tobytes())
        digest.update(ssbhash.sample_relaxed(logits, seed=7).tobytes())
        digest.update(ssbhash.binarize(logits, 0.1).tobytes())
print(digest.hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "SSBHASH_BACKEND": "native", "SSBHASH_ISA": isa},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for isa in native_module().isas()
    }
    assert len(digests) == 1
