"""Packed codes: bit j of a code is bit j % 8 of byte j // 8, as in faiss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, as_codes, as_count, as_numpy


def pack(bits: Any) -> Codes:
    """Pack bits [n, n_bits] (bool, or the numbers 0 and 1) into uint8 [n, n_bytes].

    Examples
    --------
    >>> import ssbhash
    >>> ssbhash.pack([[1, 0, 0, 0, 0, 0, 0, 0, 1]]).tolist()
    [[1, 1]]
    """
    array = as_numpy(bits, "bits")
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"bits must have shape [n, n_bits], n_bits >= 1, got {array.shape}")
    if array.dtype != bool and not np.all((array == 0) | (array == 1)):
        raise ValueError("bits must hold only 0 and 1; use binarize for real values")
    return np.packbits(array.astype(bool), axis=1, bitorder="little")


def unpack(codes: Any, n_bits: int) -> npt.NDArray[np.bool_]:
    """Unpack codes uint8 [n, n_bytes] into bool [n, n_bits].

    Examples
    --------
    >>> import ssbhash
    >>> ssbhash.unpack(ssbhash.pack([[1, 0, 1]]), 3).astype(int).tolist()
    [[1, 0, 1]]
    """
    n_bits = as_count(n_bits, "n_bits", 1)
    checked = as_codes(codes, "codes", n_bits)
    return np.unpackbits(checked, axis=1, count=n_bits, bitorder="little").astype(bool)
