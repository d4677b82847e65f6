"""Packed codes: bit j of a code is bit j % 8 of byte j // 8, as in faiss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import (
    AnyArray,
    ArrayIn,
    Codes,
    as_array,
    as_codes,
    as_count,
    as_numpy,
    like,
    on_accelerator,
    unpacked_tensor,
)
from ssbhash.engines import CodesIn, PreparedCodes

if TYPE_CHECKING:
    from torch import Tensor

# Layouts of other software: whether the first bit is a byte's most significant, and the dtype.
_LAYOUTS: dict[str, tuple[bool, type[np.generic]]] = {
    "faiss": (False, np.uint8),
    "packbits": (True, np.uint8),  # numpy.packbits unless told otherwise, usearch's b1
    "ubinary": (True, np.uint8),  # sentence-transformers
    "binary": (True, np.int8),  # sentence-transformers: the byte of ubinary - 128
}
_REVERSED = np.packbits(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), axis=1, bitorder="little"
)[:, 0]


@overload
def pack(bits: Tensor) -> Tensor: ...
@overload
def pack(bits: ArrayIn) -> Codes: ...
def pack(bits: AnyArray) -> Any:
    """Pack bits into codes.

    Parameters
    ----------
    bits : [n, n_bits] or [n_bits]
        bool, or the numbers 0 and 1 of any integer or floating type.

    Returns
    -------
    uint8 [n, n_bytes] or [n_bytes]
        n_bytes = ceil(n_bits / 8), padding bits zero. A torch tensor gives a torch
        tensor on its device.

    Raises
    ------
    TypeError
        If `bits` is no numeric array.
    ValueError
        If the shape does not fit, or another number than 0 and 1 is met.

    Examples
    --------
    >>> import ssbhash
    >>> ssbhash.pack([[1, 0, 0, 0, 0, 0, 0, 0, 1]]).tolist()
    [[1, 1]]
    """
    array = as_numpy(bits, "bits")
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise ValueError(
            f"bits must have shape [n, n_bits] or [n_bits], n_bits >= 1, got {array.shape}"
        )
    packed = np.packbits(_as_bool(array), axis=-1, bitorder="little")
    return like(packed, bits)


def _as_bool(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    is_set: npt.NDArray[np.bool_] = array if array.dtype == bool else array != 0
    if is_set is array:
        return is_set
    is_other = array != is_set
    if is_other.any():
        value = array[is_other][0]
        hint = "binarize packs real values by their sign"
        if value == -1:
            hint = "pack(bits > 0) packs -1/+1 codes"
        elif array.dtype.kind in "iu":
            hint += ", ssbhash.codes.from_integers reads whole numbers that are codes"
        raise ValueError(f"bits must hold only 0 and 1, got {value}; {hint}")
    return is_set


@overload
def unpack(codes: Tensor, n_bits: int) -> Tensor: ...
@overload
def unpack(codes: ArrayIn | PreparedCodes, n_bits: int) -> npt.NDArray[np.bool_]: ...
def unpack(codes: CodesIn, n_bits: int) -> Any:
    """Unpack codes into bits.

    Parameters
    ----------
    codes : uint8 [n, n_bytes] or [n_bytes]
        Packed codes.
    n_bits : int
        Bits in a code.

    Returns
    -------
    bool [n, n_bits] or [n_bits]
        A torch tensor gives a torch tensor on its device.

    Raises
    ------
    TypeError, ValueError
        If `codes` is not of dtype uint8, its shape does not fit `n_bits`, or a
        padding bit is set.

    Examples
    --------
    >>> import ssbhash
    >>> ssbhash.unpack(ssbhash.pack([[1, 0, 1]]), 3).astype(int).tolist()
    [[1, 0, 1]]
    """
    n_bits = as_count(n_bits, "n_bits", 1)
    tensors = on_accelerator(codes)
    array = as_array(codes, "codes", tensors)
    rows = array[None] if array.ndim == 1 else array
    checked = as_codes(rows, "codes", n_bits, tensors=tensors)
    if tensors:
        return unpacked_tensor(array, n_bits)
    bits = np.unpackbits(checked, axis=1, count=n_bits, bitorder="little").view(bool)
    return like(bits[0] if array.ndim == 1 else bits, codes)


def from_layout(array: AnyArray, layout: str, n_bits: int | None = None) -> Codes:
    """Read codes that other software packed.

    Parameters
    ----------
    array : uint8 or int8 [n, n_bytes]
        Codes in `layout`.
    layout : {"faiss", "packbits", "ubinary", "binary"}
        "faiss": as here. "packbits": the first bit is the most significant of its byte,
        as in `numpy.packbits` and usearch. "ubinary", "binary": the precisions of
        sentence-transformers; "binary" is int8, 128 less than "ubinary".
    n_bits : int, optional
        Bits in a code; given, the padding bits are checked to be zero.

    Returns
    -------
    uint8 [n, n_bytes]
        Codes as `pack` makes them.

    Raises
    ------
    TypeError, ValueError
        If the layout is unknown or does not have the dtype of `array`, if the shape
        does not fit, or if a padding bit is set.

    Examples
    --------
    >>> import numpy as np
    >>> from ssbhash.codes import from_layout
    >>> from_layout(np.packbits([[1, 0, 0, 0]], axis=1), "packbits").tolist()
    [[1]]
    """
    most_significant_first, dtype = _layout(layout)
    packed = as_numpy(array, "array")
    if packed.dtype != dtype:
        raise TypeError(f"layout {layout!r} has dtype {np.dtype(dtype)}, got {packed.dtype}")
    if dtype == np.int8:
        packed = packed.view(np.uint8) ^ np.uint8(128)
    if most_significant_first:
        packed = _REVERSED[packed]
    return as_codes(packed, "array", None if n_bits is None else as_count(n_bits, "n_bits", 1))


def to_layout(codes: CodesIn, layout: str) -> npt.NDArray[np.uint8 | np.int8]:
    """Write codes in the layout of other software: the inverse of `from_layout`.

    Parameters
    ----------
    codes : uint8 [n, n_bytes] or PreparedCodes
        Packed codes.
    layout : {"faiss", "packbits", "ubinary", "binary"}
        As in `from_layout`.

    Returns
    -------
    uint8 or int8 [n, n_bytes]
        Codes in `layout`.

    Raises
    ------
    TypeError, ValueError
        If the layout is unknown, or `codes` are no packed codes.

    Examples
    --------
    >>> import ssbhash
    >>> from ssbhash.codes import to_layout
    >>> to_layout(ssbhash.pack([[1, 0, 0, 0]]), "binary").tolist()
    [[0]]
    """
    most_significant_first, dtype = _layout(layout)
    packed = as_codes(codes, "codes")
    if most_significant_first:
        packed = _REVERSED[packed]
    return (packed ^ np.uint8(128)).view(np.int8) if dtype == np.int8 else packed


def _layout(layout: str) -> tuple[bool, type[np.generic]]:
    if layout not in _LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(_LAYOUTS)}; got {layout!r}")
    return _LAYOUTS[layout]


def from_strings(strings: Iterable[str]) -> Codes:
    """Read codes written as strings of 0 and 1.

    Parameters
    ----------
    strings : iterable of str
        One for each code; its first character is bit 0. Blanks and line ends around a
        string are ignored.

    Returns
    -------
    uint8 [n, n_bytes]
        Codes as `pack` makes them.

    Raises
    ------
    TypeError, ValueError
        If there is no string, lengths differ, or another character is met.

    Examples
    --------
    >>> from ssbhash.codes import from_strings
    >>> from_strings(["100000001", "010000000"]).tolist()
    [[1, 1], [2, 0]]
    """
    lines = _lines(strings)
    for row, line in enumerate(lines):
        if line.startswith(("0b", "0x")) or set(line) - set("01"):
            raise ValueError(
                f"strings must be of 0 and 1, row {row} is {line!r}; from_hex reads hexadecimal "
                "digits, from_integers what bin() or hex() was given"
            )
    characters = _stacked([line.encode("ascii") for line in lines], "characters")
    return np.packbits(characters & 1, axis=1, bitorder="little")


def _lines(strings: Iterable[str]) -> list[str]:
    """Strip blanks and line ends; refuse what is no text, and empty strings."""
    lines = [strings] if isinstance(strings, str) else list(strings)
    for row, line in enumerate(lines):
        if not isinstance(line, str):
            raise TypeError(f"strings must be text, row {row} is {type(line).__name__}")
    lines = [line.strip() for line in lines]
    if not lines or not all(lines):
        row = lines.index("") if lines else 0
        raise ValueError(f"strings must hold at least one code of at least one bit; row {row}")
    return lines


def _stacked(rows: list[bytes], unit: str) -> npt.NDArray[np.uint8]:
    """Stack rows of one length into a matrix."""
    for row, content in enumerate(rows):
        if len(content) != len(rows[0]):
            raise ValueError(
                f"strings must have one length, {len(rows[0])} {unit} as the first, "
                f"row {row} has {len(content)}"
            )
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)


def to_strings(codes: CodesIn, n_bits: int) -> list[str]:
    """Write codes as strings of 0 and 1: the inverse of `from_strings`.

    Parameters
    ----------
    codes : uint8 [n, n_bytes] or PreparedCodes
        Packed codes.
    n_bits : int
        Bits in a code.

    Returns
    -------
    list of str
        `n_bits` characters each.

    Raises
    ------
    TypeError, ValueError
        As `unpack`.

    Examples
    --------
    >>> import ssbhash
    >>> from ssbhash.codes import to_strings
    >>> to_strings(ssbhash.pack([[1, 0, 1]]), 3)
    ['101']
    """
    bits = unpack(as_codes(codes, "codes"), n_bits)
    return [row.tobytes().decode("ascii") for row in bits.view(np.uint8) | ord("0")]


def from_hex(strings: Iterable[str], layout: str = "faiss", n_bits: int | None = None) -> Codes:
    """Read codes written as hexadecimal digits.

    Parameters
    ----------
    strings : iterable of str
        Two digits a byte, first byte first, as `bytes.hex` writes them. They may begin
        with "0x".
    layout : str
        How bits lie in the bytes, as in `from_layout`. imagehash writes "packbits".
    n_bits : int, optional
        Bits in a code; given, the padding bits are checked to be zero.

    Returns
    -------
    uint8 [n, n_bytes]
        Codes as `pack` makes them.

    Raises
    ------
    TypeError, ValueError
        If there is no string, lengths differ, a character is no hexadecimal digit, or the
        number of digits is odd.

    Examples
    --------
    >>> from ssbhash.codes import from_hex
    >>> from_hex(["ff01", "0xA000"]).tolist()
    [[255, 1], [160, 0]]
    >>> from_hex(["a000"], layout="packbits").tolist()
    [[5, 0]]
    """
    rows = []
    for row, line in enumerate(_lines(strings)):
        digits = line.removeprefix("0x").removeprefix("0X")
        try:
            rows.append(bytes.fromhex(digits or "no digits"))
        except ValueError as error:
            odd = "; an odd number of digits: write a 0 before or behind" if len(digits) % 2 else ""
            raise ValueError(
                f"strings must be hexadecimal digits, row {row} is {line!r}{odd}"
            ) from error
    packed = _stacked(rows, "bytes")
    if _layout(layout)[1] == np.int8:
        packed = packed.view(np.int8)
    codes: Codes = from_layout(packed, layout, n_bits).copy()
    return codes


def to_hex(codes: Any, layout: str = "faiss") -> list[str]:
    """Write codes as hexadecimal digits: the inverse of `from_hex`.

    Parameters
    ----------
    codes : uint8 [n, n_bytes]
        Packed codes.
    layout : str
        As in `from_hex`.

    Returns
    -------
    list of str
        2 * n_bytes digits each.

    Raises
    ------
    TypeError, ValueError
        If the layout is unknown, or `codes` are no packed codes.

    Examples
    --------
    >>> import numpy as np
    >>> from ssbhash.codes import to_hex
    >>> to_hex(np.array([[255, 1]], np.uint8))
    ['ff01']
    """
    return [row.tobytes().hex() for row in to_layout(codes, layout)]


def from_integers(integers: Any, n_bits: int | None = None) -> Codes:
    """Read codes that are whole numbers: bit j of a code is bit j of its number.

    Parameters
    ----------
    integers : int [n], or [n, n_words]
        An array of any integer type; a negative number stands for its two's complement.
        Several words make a longer code, lowest bits first. Or a list of Python integers
        from 0, of any size.
    n_bits : int, optional
        Bits in a code. By default as many as the array's type has, 64 for a list. Higher
        bits must be zero.

    Returns
    -------
    uint8 [n, n_bytes]
        Codes as `pack` makes them.

    Raises
    ------
    TypeError, ValueError
        If a number is not whole, or has more than `n_bits` bits.

    Examples
    --------
    >>> import numpy as np
    >>> from ssbhash.codes import from_integers
    >>> from_integers(np.array([2**63 + 5], np.uint64)).tolist()
    [[5, 0, 0, 0, 0, 0, 0, 128]]
    >>> from_integers([5, 7], n_bits=3).tolist()
    [[5], [7]]
    """
    if n_bits is not None:
        n_bits = as_count(n_bits, "n_bits", 1)
    if isinstance(integers, list | tuple):
        n_bits = 64 if n_bits is None else n_bits
        codes = _bytes_of_numbers(integers, -(-n_bits // 8))
    else:
        codes = _bytes_of_words(as_numpy(integers, "integers"))
        if n_bits is None:
            return codes
        if n_bits > 8 * codes.shape[1]:
            raise ValueError(f"integers of {8 * codes.shape[1]} bits cannot make n_bits={n_bits}")
    beyond = np.unpackbits(codes, axis=1, bitorder="little")[:, n_bits:].any(axis=1)
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        raise ValueError(f"integers must have at most n_bits={n_bits} bits, row {row} has more")
    return np.ascontiguousarray(codes[:, : -(-n_bits // 8)])


def _bytes_of_words(array: npt.NDArray[Any]) -> Codes:
    """View integers [n] or [n, n_words] as bytes [n, n_bytes], lowest first."""
    if array.dtype.kind not in "iu":
        raise TypeError(f"integers must be whole numbers, got dtype {array.dtype}")
    if array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise ValueError(f"integers must have shape [n] or [n, n_words], got {array.shape}")
    words = array[:, None] if array.ndim == 1 else array
    return words.astype(words.dtype.newbyteorder("<"), order="C").view(np.uint8)


def _bytes_of_numbers(integers: Sequence[Any], n_bytes: int) -> Codes:
    """Write Python integers as bytes [n, at least n_bytes], lowest first."""
    numbers = [as_count(one, f"integers[{row}]", 0) for row, one in enumerate(integers)]
    n_bytes = max([n_bytes, *(-(-number.bit_length() // 8) for number in numbers)])
    packed = b"".join(number.to_bytes(n_bytes, "little") for number in numbers)
    codes: Codes = np.frombuffer(packed, np.uint8).reshape(len(numbers), n_bytes).copy()
    return codes


def to_integers(codes: Any) -> npt.NDArray[np.uint64]:
    """Write codes as whole numbers: the inverse of `from_integers`.

    Parameters
    ----------
    codes : uint8 [n, n_bytes]
        Packed codes.

    Returns
    -------
    uint64 [n] or [n, n_words]
        One number for a code of at most 64 bits; for longer codes words of 64 bits, lowest
        first.

    Raises
    ------
    TypeError, ValueError
        If `codes` are no packed codes.

    Examples
    --------
    >>> import numpy as np
    >>> from ssbhash.codes import to_integers
    >>> to_integers(np.array([[5, 1]], np.uint8)).tolist()
    [261]
    """
    packed = as_codes(codes, "codes")
    whole = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    words = np.ascontiguousarray(whole).view("<u8").astype(np.uint64)
    return words[:, 0] if words.shape[1] == 1 else words
