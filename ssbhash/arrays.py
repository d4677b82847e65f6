"""Arrays in, arrays out: one place that reads what a user hands in.

numpy, torch and DLPack arrays go in, read-only and strided ones too. torch is
never imported here: a torch tensor can only exist if the user imported torch,
so `sys.modules` is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

# What a user may hand in: an overload for tensors comes first, this one after it.
ArrayIn: TypeAlias = "npt.NDArray[Any] | Sequence[Any]"
AnyArray: TypeAlias = "Tensor | npt.NDArray[Any] | Sequence[Any]"

Codes = npt.NDArray[np.uint8]
Logits = npt.NDArray[Any]  # float16, float32, float64, or uint16 standing for bfloat16

MAX_BITS = 1 << 30  # the counter of the random numbers holds 30 bits for the bit's place


def is_torch(array: Any) -> bool:
    """Whether `array` is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def as_numpy(array: Any, name: str) -> npt.NDArray[Any]:
    """View `array` as numpy, without a copy where its memory allows it.

    Raises
    ------
    TypeError
        If `array` is no numeric array: a ragged list, strings, objects, a sparse
        matrix, a type that numpy does not have.
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
        raise TypeError(f"{name} must be a numeric array, got {got}")
    if not result.dtype.isnative:
        result = result.astype(result.dtype.newbyteorder("="))
    return result


def _view(array: Any) -> npt.NDArray[Any]:
    if is_torch(array):
        array = array.detach() if array.requires_grad else array
        try:
            view: npt.NDArray[Any] = array.numpy()  # the quick way, for most
        except (RuntimeError, TypeError):  # negated in name only; on another device
            view = array.cpu().resolve_conj().resolve_neg().numpy()
        return view
    if not hasattr(array, "__array__") and hasattr(array, "__dlpack__"):
        return np.from_dlpack(array)
    return np.asarray(array)


def as_codes(array: Any, name: str, n_bits: int | None = None) -> Codes:
    """Check packed codes: uint8 [n, n_bytes], C-contiguous, padding bits zero.

    Raises
    ------
    TypeError
        If the dtype is not uint8.
    ValueError
        If the shape is not [n, n_bytes] with n_bytes >= 1, if `n_bits` does
        not fit n_bytes, or if a padding bit is set.
    """
    codes = as_numpy(array, name)
    if codes.dtype != np.uint8:
        raise TypeError(f"{name} must be packed codes of dtype uint8, got {codes.dtype}")
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise ValueError(f"{name} must have shape [n, n_bytes], n_bytes >= 1, got {codes.shape}")
    codes = np.ascontiguousarray(codes)
    if n_bits is not None:
        _check_padding(codes, name, n_bits)
    return codes


def _check_padding(codes: Codes, name: str, n_bits: int) -> None:
    n_bytes = codes.shape[1]
    if not 8 * (n_bytes - 1) < n_bits <= 8 * n_bytes:
        raise ValueError(f"{name} has {n_bytes} bytes a code, which does not fit n_bits={n_bits}")
    if n_bits % 8 and np.any(codes[:, -1] >> (n_bits % 8)):
        row = int(np.flatnonzero(codes[:, -1] >> (n_bits % 8))[0])
        raise ValueError(f"{name} has padding bits set beyond n_bits={n_bits}, first in row {row}")


_POPCOUNT = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def count_bits(packed: npt.NDArray[np.uint8]) -> int:
    """Count the bits that are set."""
    counts = np.bitwise_count(packed) if hasattr(np, "bitwise_count") else _POPCOUNT[packed]
    return int(counts.sum(dtype=np.int64))


def like(result: npt.NDArray[Any], query: Any) -> Any:
    """Give `result` back as the kind of array that `query` is, on its device."""
    if is_torch(query):
        tensor = sys.modules["torch"].from_numpy(result)
        return tensor if query.is_cpu else tensor.to(query.device)
    return result


def as_count(value: Any, name: str, minimum: int) -> int:
    """Check an integer argument that must be at least `minimum`."""
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    number = int(value.__index__())
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    return number


def as_logits(array: Any, name: str = "logits") -> Logits:
    """Check logits: a view [n, n_bits] of float16, float32, float64, or bfloat16 as uint16.

    One row [n_bits] becomes [1, n_bits]; integers become float64. numpy has no
    bfloat16, so a torch tensor of it passes as the bit patterns.

    Raises
    ------
    TypeError
        If the dtype is none of these.
    ValueError
        If the shape does not fit.
    """
    is_bfloat16 = is_torch(array) and array.dtype == sys.modules["torch"].bfloat16
    logits = as_numpy(array.view(sys.modules["torch"].int16) if is_bfloat16 else array, name)
    if is_bfloat16:
        logits = logits.view(np.uint16)
    elif logits.dtype.kind in "biu":
        logits = logits.astype(np.float64)
    elif logits.dtype.itemsize > 8:
        raise TypeError(f"{name} must be float16, float32, float64 or bfloat16, got {logits.dtype}")
    if logits.ndim == 1:
        logits = logits[None]
    if logits.ndim != 2 or not 0 < logits.shape[1] < MAX_BITS:
        raise ValueError(
            f"{name} must have shape [n, n_bits] or [n_bits], 1 <= n_bits < 2**30, "
            f"got {logits.shape}"
        )
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
