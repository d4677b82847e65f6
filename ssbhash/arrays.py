"""Reads the arrays that a user hands in, and returns results of the same kind.

numpy, torch and DLPack arrays are read, also read-only and strided ones. This module never
imports torch. A torch tensor exists only if the user has imported torch, so it looks in
`sys.modules`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


class DLPack(Protocol):
    """An array of another library, as cupy and jax have them."""

    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, int]: ...


# What a user may hand in. In overloads Tensor comes first, then ArrayIn.
ArrayIn: TypeAlias = "npt.NDArray[Any] | Sequence[Any] | DLPack"
AnyArray: TypeAlias = "Tensor | npt.NDArray[Any] | Sequence[Any] | DLPack"

BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.uint8]
Distances = npt.NDArray[np.int32]
Ids = Int64Array
Logits = npt.NDArray[Any]  # float16, float32, float64, or uint16 standing for bfloat16

MAX_BITS = 1 << 30  # the random numbers' counter has 30 bits for a bit's place


def is_torch(array: Any) -> bool:
    """Whether `array` is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def as_numpy(array: Any, name: str) -> npt.NDArray[Any]:
    """View `array` as numpy, without a copy where its memory allows it.

    Raises
    ------
    TypeError
        If `array` is not numeric: a ragged list, strings, objects, a sparse matrix, or a
        type that numpy does not have.
    ValueError
        If entries of a masked array are masked.
    """
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ValueError(f"{name} has masked entries; fill or drop them first")
    try:
        result = _view(array)
    except ValueError as error:
        raise TypeError(f"{name} must be an array, got a ragged sequence") from error
    except (TypeError, RuntimeError, BufferError) as error:
        raise TypeError(f"{name} cannot be read as a numpy array: {error}") from error
    if result.dtype.kind not in "biuf":
        got = f"dtype {result.dtype}" if result.ndim else type(array).__name__
        hint = "; ssbhash.codes.from_hex and from_strings read text"
        raise TypeError(
            f"{name} must be a numeric array, got {got}{hint if _is_text(result) else ''}"
        )
    if not result.dtype.isnative:
        result = result.astype(result.dtype.newbyteorder("="))
    return result


def _is_text(array: npt.NDArray[Any]) -> bool:
    is_object = array.dtype == object and array.size > 0
    return array.dtype.kind in "SUT" or (is_object and isinstance(array.flat[0], str))


def as_array(array: Any, name: str, tensors: bool) -> Any:
    """View `array` as numpy; or, with `tensors`, leave a torch tensor on its device."""
    if not (tensors and is_torch(array)):
        return as_numpy(array, name)
    return array.detach().resolve_conj().resolve_neg()


def n_axes(array: Any) -> int:
    """Count the axes of what a user handed in; 0 for a number."""
    return int(array.ndim if hasattr(array, "ndim") else _view(array).ndim)


def on_accelerator(*arrays: Any) -> bool:
    """Whether one of the arrays is a torch tensor on a CUDA device."""
    if "torch" not in sys.modules:
        return False
    return any(is_torch(array) and array.is_cuda for array in arrays)


def _view(array: Any) -> npt.NDArray[Any]:
    if is_torch(array):
        array = array.detach() if array.requires_grad else array
        try:
            view: npt.NDArray[Any] = array.numpy()  # works for most, and is fast
        except (RuntimeError, TypeError):  # lazily negated, or on another device
            view = array.cpu().resolve_conj().resolve_neg().numpy()
        return view
    if not hasattr(array, "__array__") and hasattr(array, "__dlpack__"):
        return np.from_dlpack(array)
    view = np.asarray(array)
    return _of_nullable(array) if view.dtype == object and hasattr(array, "to_numpy") else view


def _of_nullable(table: Any) -> npt.NDArray[Any]:
    """Convert a data frame or column of nullable numbers, of pandas or pyarrow types."""
    columns = list(table.dtypes) if hasattr(table, "columns") else [table.dtype]
    types = [getattr(one, "numpy_dtype", one) for one in columns]
    if not all(isinstance(one, np.dtype) and one.kind in "biuf" for one in types):
        return np.asarray(table)
    try:
        return np.asarray(table.to_numpy(dtype=np.result_type(*types)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"it has missing values: {error}") from error


def as_codes(array: Any, name: str, n_bits: int | None = None, *, tensors: bool = False) -> Codes:
    """Check packed codes: uint8 [n, n_bytes], C-contiguous, padding bits zero.

    With `tensors` a torch tensor stays one, on its device.

    Raises
    ------
    TypeError
        If the dtype is not uint8.
    ValueError
        If the shape is not [n, n_bytes] with n_bytes >= 1, if `n_bits` does
        not fit n_bytes, or if a padding bit is set.
    """
    codes = as_array(array, name, tensors)
    if codes.dtype != np.uint8 and dtype_name(codes) != "uint8":  # numpy's, or torch's
        hint = ""
        if dtype_name(codes).startswith(("int", "uint")):
            hint = (
                "; ssbhash.codes.from_integers reads a whole number a code, .view(numpy.uint8) "
                "reads rows of words"
            )
        raise TypeError(
            f"{name} must be packed codes of dtype uint8, got {dtype_name(codes)}{hint}"
        )
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise ValueError(
            f"{name} must have shape [n, n_bytes], n_bytes >= 1, got {tuple(codes.shape)}"
        )
    codes = codes.contiguous() if is_torch(codes) else np.ascontiguousarray(codes)
    if n_bits is not None:
        _check_padding(codes, name, n_bits)
    checked: Codes = codes
    return checked


def unpacked_tensor(packed: Any, n_bits: int) -> Any:
    """Unpack the last axis of a uint8 tensor into bool [..., n_bits], on its device."""
    torch = sys.modules["torch"]
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> places) & 1).bool().flatten(-2)[..., :n_bits]


def packed_tensor(bits: Any) -> Any:
    """Pack a bool tensor [n] into uint8 [ceil(n / 8)], on its device."""
    torch = sys.modules["torch"]
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -len(bits) % 8))
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (padded.view(-1, 8) << places).sum(1, dtype=torch.uint8)


def dtype_name(array: Any) -> str:
    """Name the dtype of an array or a tensor."""
    return str(array.dtype).removeprefix("torch.")


def _check_padding(codes: Any, name: str, n_bits: int) -> None:
    n_bytes = codes.shape[1]
    if not 8 * (n_bytes - 1) < n_bits <= 8 * n_bytes:
        raise ValueError(f"{name} has {n_bytes} bytes a code, which does not fit n_bits={n_bits}")
    if n_bits % 8 and bool((beyond := codes[:, -1] >> (n_bits % 8)).any()):
        row = int(beyond.nonzero()[0][0])
        raise ValueError(f"{name} has padding bits set beyond n_bits={n_bits}, first in row {row}")


_POPCOUNT = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def count_bits(packed: Any) -> int:
    """Count the bits that are set in an array or a tensor of bytes."""
    if is_torch(packed):
        return int(unpacked_tensor(packed, 8 * len(packed)).sum())
    counts = np.bitwise_count(packed) if hasattr(np, "bitwise_count") else _POPCOUNT[packed]
    return int(counts.sum(dtype=np.int64))


def like(result: Any, query: Any) -> Any:
    """Convert `result` to an array or a tensor as `query` is, on the same device."""
    if is_torch(query):
        tensor = result if is_torch(result) else sys.modules["torch"].from_numpy(result)
        return tensor if tensor.device == query.device else tensor.to(query.device)
    return result.cpu().numpy() if is_torch(result) else result


def as_count(value: Any, name: str, minimum: int) -> int:
    """Check an integer argument that must be at least `minimum`."""
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    number = int(value.__index__())
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    return number


def as_logits(array: Any, name: str = "logits", *, tensors: bool = False) -> Logits:
    """Check logits: a view [n, n_bits] of float16, float32, float64, or bfloat16 as uint16.

    One row [n_bits] becomes [1, n_bits]; integers become float64. numpy has no bfloat16,
    so a torch tensor of that type becomes its bit patterns. With `tensors` a torch tensor
    stays one, on its device.

    Raises
    ------
    TypeError
        If the dtype is none of these.
    ValueError
        If the shape is neither.
    """
    logits = _tensor_logits(array, name) if tensors and is_torch(array) else _logits(array, name)
    if logits.ndim == 1:
        logits = logits[None]
    if logits.ndim != 2 or not 0 < logits.shape[1] < MAX_BITS:
        raise ValueError(
            f"{name} must have shape [n, n_bits] or [n_bits], 1 <= n_bits < 2**30, "
            f"got {tuple(logits.shape)}"
        )
    checked: Logits = logits
    return checked


def _logits(array: Any, name: str) -> Any:
    is_bfloat16 = is_torch(array) and array.dtype == sys.modules["torch"].bfloat16
    logits = as_numpy(array.view(sys.modules["torch"].int16) if is_bfloat16 else array, name)
    if is_bfloat16:
        return logits.view(np.uint16)
    if logits.dtype.kind in "biu":
        return logits.astype(np.float64)
    if logits.dtype.itemsize > 8:
        raise TypeError(f"{name} must be float16, float32, float64 or bfloat16, got {logits.dtype}")
    return logits


def _tensor_logits(array: Any, name: str) -> Any:
    logits = as_array(array, name, tensors=True)
    if not logits.is_floating_point():
        if logits.is_complex():
            raise TypeError(f"{name} must be a numeric array, got dtype {logits.dtype}")
        return logits.double()
    if dtype_name(logits) not in ("float16", "bfloat16", "float32", "float64"):
        raise TypeError(f"{name} must be float16, float32, float64 or bfloat16, got {logits.dtype}")
    return logits


def widen(logits: Logits) -> npt.NDArray[np.float64]:
    """Convert logits to float64; uint16 stands for bfloat16."""
    if logits.dtype == np.uint16:
        logits = (logits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return logits.astype(np.float64)


def require_finite(logits: Logits) -> None:
    """Raise the ValueError that names the first row with a NaN or an infinity."""
    is_bfloat16 = logits.dtype == np.uint16
    is_finite = (logits & 0x7F80) != 0x7F80 if is_bfloat16 else np.isfinite(logits)
    if not is_finite.all():
        raise NotFiniteError(int(np.flatnonzero(~is_finite.all(axis=1))[0]))


class TooManyResultsError(ValueError):
    """There are more results than `max_results`; raised before they are allocated.

    Attributes
    ----------
    n_results : int
        How many there are.
    """

    def __init__(self, n_results: int) -> None:
        super().__init__(
            f"there are {n_results} results, more than max_results; raise it, or lower the radius"
        )
        self.n_results = n_results


class NotFiniteError(ValueError):
    """The error that every engine raises for a NaN or an infinity among the logits."""

    def __init__(self, row: int) -> None:
        super().__init__(f"logits must be finite, row {row} holds a NaN or an infinity")
