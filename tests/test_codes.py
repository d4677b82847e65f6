import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import ssbhash
from ssbhash.arrays import as_codes, as_count, as_numpy
from ssbhash.codes import (
    from_hex,
    from_integers,
    from_layout,
    from_strings,
    to_hex,
    to_integers,
    to_layout,
    to_strings,
)

packed_codes = npst.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 20)))
BITS = npst.arrays(bool, st.tuples(st.integers(0, 20), st.integers(1, 130)))


def is_set(codes, row, bit):
    """Read one bit as the format defines it."""
    return bool(codes[row, bit // 8] >> (bit % 8) & 1)


@given(BITS)
def test_pack_follows_the_format_and_unpack_inverts_it(bits):
    codes = ssbhash.pack(bits)
    n, n_bits = bits.shape
    assert codes.dtype == np.uint8
    assert codes.shape == (n, -(-n_bits // 8))
    for row in range(n):
        assert [is_set(codes, row, bit) for bit in range(n_bits)] == bits[row].tolist()
        assert not any(is_set(codes, row, bit) for bit in range(n_bits, 8 * codes.shape[1]))
    assert np.array_equal(ssbhash.unpack(codes, n_bits), bits)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i4", "u8", "f2", "f4", "f8", ">i4", ">f8"])
def test_pack_takes_zero_and_one_of_any_type(dtype):
    bits = np.random.default_rng(0).random((7, 13)) < 0.5
    expected = ssbhash.pack(bits)
    assert np.array_equal(ssbhash.pack(bits.astype(dtype)), expected)
    assert np.array_equal(ssbhash.pack(bits.astype(dtype).tolist()), expected)


def test_memory_layout_does_not_matter():
    bits = np.random.default_rng(0).random((12, 26)) < 0.5
    expected = ssbhash.pack(bits[::2, ::-2])
    assert np.array_equal(expected, ssbhash.pack(bits[::2, ::-2].copy()))
    assert np.array_equal(ssbhash.pack(np.asfortranarray(bits)), ssbhash.pack(bits))
    bits.flags.writeable = False
    codes = ssbhash.pack(bits)
    codes.flags.writeable = False
    assert np.array_equal(ssbhash.unpack(codes, 26), bits)
    wide = np.repeat(codes, 2, axis=1)[:, ::2]
    assert np.array_equal(ssbhash.unpack(wide, 26), bits)


def test_one_code_gives_one_code():
    assert ssbhash.pack([1, 0, 1]).tolist() == [5]
    assert ssbhash.unpack(np.array([5], np.uint8), 3).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        ([[0, 2]], ValueError, "only 0 and 1, got 2; binarize"),
        ([[0.0, 0.5]], ValueError, "got 0.5"),
        ([[0.0, np.nan]], ValueError, "got nan"),
        ([[1, -1]], ValueError, r"got -1; pack\(bits > 0\)"),
        ([[-1.0, 1.0]], ValueError, r"pack\(bits > 0\)"),
        ([[1], [1, 0]], TypeError, "bits must be an array, got a ragged"),
        ([["0", "1"]], TypeError, "numeric"),
        ([[None]], TypeError, "numeric"),
        ("01", TypeError, "got str"),
        (object(), TypeError, "got object"),
        ([[1j]], TypeError, "complex"),
        (np.zeros((2, 3, 4), bool), ValueError, r"shape \[n, n_bits\].*\(2, 3, 4\)"),
        (np.zeros((4, 0), bool), ValueError, r"\(4, 0\)"),
        ([], ValueError, r"\(0,\)"),
        (True, ValueError, r"\(\)"),
        (np.ma.array([[0, 1]], mask=[[True, False]]), ValueError, "masked"),
    ],
)
def test_pack_refuses_what_are_no_bits(bits, error, message):
    with pytest.raises(error, match=message):
        ssbhash.pack(bits)


@pytest.mark.parametrize(
    ("codes", "n_bits", "error", "message"),
    [
        ([[1]], 8, TypeError, "uint8, got int64"),
        (np.zeros((1, 2), np.uint8), 8, ValueError, "2 bytes a code"),
        (np.zeros((1, 2), np.uint8), 17, ValueError, "2 bytes a code"),
        (np.zeros((1, 0), np.uint8), 1, ValueError, "n_bytes >= 1"),
        (np.zeros((1, 1, 1), np.uint8), 1, ValueError, "n_bytes"),
        (np.array([[3], [4]], np.uint8), 2, ValueError, "padding bits set.*row 1"),
        (np.zeros((1, 1), np.uint8), 0, ValueError, "n_bits must be at least 1"),
        (np.zeros((1, 1), np.uint8), 8.0, TypeError, "n_bits must be an integer"),
        (np.zeros((1, 1), np.uint8), True, TypeError, "n_bits must be an integer"),
    ],
)
def test_unpack_refuses_what_are_no_codes(codes, n_bits, error, message):
    with pytest.raises(error, match=message):
        ssbhash.unpack(codes, n_bits)


@given(BITS)
def test_layouts_of_other_software(bits):
    codes = ssbhash.pack(bits)
    n_bits = bits.shape[1]
    big = np.packbits(bits, axis=1)
    signed = (big.astype(np.int16) - 128).astype(np.int8)
    for layout, packed in {
        "faiss": codes,
        "packbits": big,
        "ubinary": big,
        "binary": signed,
    }.items():
        assert np.array_equal(from_layout(packed, layout, n_bits), codes)
        assert np.array_equal(to_layout(codes, layout), packed)
        assert to_layout(codes, layout).dtype == packed.dtype


def test_layouts_agree_with_the_software_they_name():
    values = np.random.default_rng(0).standard_normal((5, 24)).astype(np.float32)
    codes = ssbhash.pack(values > 0)
    faiss = pytest.importorskip("faiss")
    packed = np.empty((5, 3), np.uint8)
    faiss.real_to_binary(values.size, faiss.swig_ptr(values), faiss.swig_ptr(packed))
    assert np.array_equal(from_layout(packed, "faiss", 24), codes)


def test_layouts_are_checked():
    with pytest.raises(ValueError, match="layout must be one of faiss"):
        from_layout(np.zeros((1, 1), np.uint8), "msb")
    with pytest.raises(TypeError, match="'binary' has dtype int8, got uint8"):
        from_layout(np.zeros((1, 1), np.uint8), "binary")
    with pytest.raises(ValueError, match="padding bits"):
        from_layout(np.array([[1]], np.uint8), "packbits", 7)
    with pytest.raises(ValueError, match="n_bytes"):
        from_layout(np.zeros(3, np.uint8), "faiss")


@given(BITS.filter(len))
def test_strings_of_bits(bits):
    strings = ["".join("01"[bit] for bit in row) for row in bits.tolist()]
    codes = from_strings(strings)
    assert np.array_equal(codes, ssbhash.pack(bits))
    assert to_strings(codes, bits.shape[1]) == strings


@pytest.mark.parametrize("strings", [[], [""], ["01", "0"], ["01", "0a"], ["0 1"], ["é1"]])
def test_strings_are_checked(strings):
    with pytest.raises(ValueError, match="strings must"):
        from_strings(strings)


class Exporter:
    """Another library's array, which speaks DLPack alone."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def test_dlpack_goes_in():
    codes = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(as_codes(Exporter(codes), "codes"), codes)
    assert np.shares_memory(as_numpy(Exporter(codes), "codes"), codes)


def test_a_failing_export_is_named():
    class Broken:
        def __dlpack__(self, **options):
            raise BufferError("lives elsewhere")

        def __dlpack_device__(self):
            return (1, 0)

    with pytest.raises(TypeError, match=r"codes cannot be read.*lives elsewhere"):
        as_codes(Broken(), "codes")


def test_sparse_matrices_are_refused():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match="bits must be a numeric array, got csr"):
        ssbhash.pack(sparse.csr_matrix([[0, 1]]))


def test_torch_goes_in_and_comes_out():
    torch = pytest.importorskip("torch")
    bits = torch.rand(5, 11) < 0.5
    codes = ssbhash.pack(bits)
    assert isinstance(codes, torch.Tensor)
    assert codes.dtype == torch.uint8
    assert np.array_equal(codes.numpy(), ssbhash.pack(bits.numpy()))
    assert torch.equal(ssbhash.unpack(codes, 11), bits)
    with_gradient = bits.float().requires_grad_()
    assert torch.equal(ssbhash.pack(with_gradient), codes)
    assert torch.equal(ssbhash.pack(bits.T.contiguous().T), codes)
    with pytest.raises(TypeError, match=r"bits cannot be read.*BFloat16"):
        ssbhash.pack(bits.bfloat16())
    with pytest.raises(TypeError, match="bits cannot be read"):
        ssbhash.pack(bits.float().to_sparse())
    with pytest.raises(TypeError, match="bits cannot be read"):
        ssbhash.pack(bits.to("meta"))


def test_packing_does_not_import_torch():
    code = (
        "import sys, ssbhash; ssbhash.unpack(ssbhash.pack([[1, 0]]), 2);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=".")


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3)])
def test_counts_are_integers(value):
    assert as_count(value, "k", 1) == 3


@pytest.mark.parametrize("value", [3.0, "3", None, np.bool_(True)])
def test_other_counts_are_refused(value):
    with pytest.raises(TypeError, match="k must be an integer"):
        as_count(value, "k", 1)


def test_strings_come_from_files_with_their_line_ends():
    expected = from_strings(["0101", "1111"])
    for lines in (["0101\n", "1111\r\n"], (line for line in ("  0101", "1111 "))):
        np.testing.assert_array_equal(from_strings(lines), expected)
    with pytest.raises(ValueError, match="row 1"):
        from_strings(["0101\n", "\n"])
    with pytest.raises(ValueError, match=r"row 0 is '0b101'; .*from_integers"):
        from_strings([bin(5), bin(7)])
    with pytest.raises(ValueError, match="from_hex"):
        from_strings(["ffd8e000c0f0f8fc"])
    with pytest.raises(TypeError, match="row 1 is int"):
        from_strings(["01", 1])


@given(packed_codes, st.sampled_from(["faiss", "packbits", "ubinary", "binary"]))
def test_hexadecimal_digits(codes, layout):
    np.testing.assert_array_equal(from_hex(to_hex(codes, layout), layout), codes)
    assert to_hex(codes) == [row.tobytes().hex() for row in codes]
    spelled = [f" 0x{digits.upper()}\n" for digits in to_hex(codes)]
    np.testing.assert_array_equal(from_hex(spelled), codes)


def test_hexadecimal_digits_of_imagehash():
    """imagehash writes the bits of its matrix, first one first, as one hexadecimal number."""
    bits = np.random.default_rng(0).random((3, 64)) < 0.5
    digits = [f"{int(''.join('01'[bit] for bit in row.tolist()), 2):016x}" for row in bits]
    np.testing.assert_array_equal(from_hex(digits, layout="packbits"), ssbhash.pack(bits))


@pytest.mark.parametrize(
    ("strings", "options", "message"),
    [
        (["fff"], {}, "odd number of digits"),
        (["fg"], {}, "row 0 is 'fg'"),
        (["ff", "ffff"], {}, "row 1 has 2"),
        ([], {}, "at least one code"),
        (["0x"], {}, "row 0 is '0x'"),
        (["ff"], {"n_bits": 3}, "padding bits"),
        (["ff"], {"layout": "what"}, "layout must be"),
    ],
)
def test_hexadecimal_digits_are_checked(strings, options, message):
    with pytest.raises(ValueError, match=message):
        from_hex(strings, **options)


@given(packed_codes)
def test_whole_numbers(codes):
    integers = to_integers(codes)
    n_bits = 8 * codes.shape[1]
    np.testing.assert_array_equal(from_integers(integers, n_bits), codes)
    plain = [int.from_bytes(row.tobytes(), "little") for row in codes]
    np.testing.assert_array_equal(from_integers(plain, n_bits), codes)
    if integers.ndim == 1:
        assert integers.tolist() == plain


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "<i4", ">u4", "<i8", ">u8"])
def test_bit_j_of_a_number_is_bit_j_of_its_code(dtype):
    numbers = np.array([5, 100, 0], dtype)
    codes = from_integers(numbers)
    assert codes.shape == (3, np.dtype(dtype).itemsize)
    bits = ssbhash.unpack(codes, 8 * codes.shape[1])
    assert (bits @ (2.0 ** np.arange(bits.shape[1]))).tolist() == [5, 100, 0]
    if np.dtype(dtype).kind == "i":
        assert from_integers(np.array([-1], dtype)).tolist() == [[255] * codes.shape[1]]


@pytest.mark.parametrize(
    ("integers", "n_bits", "error", "message"),
    [
        ([8], 3, ValueError, "row 0 has more"),
        ([2**64], None, ValueError, "n_bits=64"),
        ([-1], None, ValueError, "at least 0"),
        ([0.5], None, TypeError, r"integers\[0\] must be an integer"),
        (np.array([0.5]), None, TypeError, "whole numbers"),
        (np.array([1, 8], np.uint8), 3, ValueError, "row 1 has more"),
        (np.array([1], np.uint8), 9, ValueError, "8 bits cannot make n_bits=9"),
        (np.zeros((1, 1, 1), int), None, ValueError, "shape"),
    ],
)
def test_whole_numbers_are_checked(integers, n_bits, error, message):
    with pytest.raises(error, match=message):
        from_integers(integers, n_bits)


@pytest.mark.parametrize("integers", [[], np.zeros(0, np.uint32), np.zeros((0, 2), np.int16)])
def test_no_whole_numbers_make_no_codes(integers):
    assert from_integers(integers, n_bits=9).shape == (0, 2)


def test_errors_name_the_converter():
    words = np.array([[2**63 + 5]], np.uint64)
    for use in (lambda: ssbhash.search(words, words, 1), lambda: ssbhash.pack(words)):
        with pytest.raises((TypeError, ValueError), match="from_integers"):
            use()
    with pytest.raises(TypeError, match=r"\.view\(numpy\.uint8\)"):
        ssbhash.search(words, words, 1)
    assert ssbhash.search(words.view(np.uint8), from_integers(words), 1).ids.tolist() == [[0]]
    for text in (["ff"], np.array(["ff"], object)):
        with pytest.raises(TypeError, match="from_hex"):
            ssbhash.search(text, text, 1)


def test_nullable_frames_are_codes():
    pd = pytest.importorskip("pandas")
    codes = np.random.default_rng(0).integers(0, 256, (9, 4), dtype=np.uint8)
    frame = pd.DataFrame(codes)
    frames = [frame, frame.astype("UInt8")]
    if importlib.util.find_spec("pyarrow"):
        frames.append(frame.convert_dtypes(dtype_backend="pyarrow"))
    for one in frames:
        assert ssbhash.search(one, one, 1).ids.tolist() == [[i] for i in range(9)]
        assert ssbhash.unpack(one, 32).shape == (9, 32)
    gap = frame.astype("UInt8")
    gap.iloc[3, 1] = pd.NA
    with pytest.raises(TypeError, match="missing values"):
        ssbhash.search(gap, codes, 1)
    with pytest.raises(TypeError, match="numeric"):
        ssbhash.search(frame.astype(str), codes, 1)
