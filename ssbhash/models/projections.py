"""Projections whose signs are bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Float64Array


def orthogonal_hyperplanes(n_columns: int, n_bits: int, seed: int) -> Float64Array:
    """Draw random hyperplanes [n_columns, n_bits], in orthogonal blocks of `n_columns`."""
    rng = np.random.default_rng(seed)
    n_blocks = -(-n_bits // n_columns)
    blocks = [np.linalg.qr(rng.standard_normal((n_columns,) * 2))[0] for _ in range(n_blocks)]
    return np.concatenate([np.empty((n_columns, 0)), *blocks], axis=1)[:, :n_bits]


def random_axes(n_columns: int, n_axes: int, seed: int) -> Float64Array:
    """Draw random axes [n_columns, n_axes] that keep squared distances on average."""
    drawn = np.random.default_rng(seed).standard_normal((n_columns, n_axes))
    return np.asarray(np.linalg.qr(drawn)[0] * np.sqrt(n_columns / n_axes))


def rotation_to_signs(
    projected: npt.NDArray[Any], n_bits: int, n_iterations: int, seed: int
) -> Float64Array:
    """Find the rotation [n_axes, n_bits] of items [n, n_axes] close to their signs (ITQ).

    Gong and Lazebnik, "Iterative quantization: a Procrustean approach to learning binary
    codes", CVPR 2011. With fewer axes than bits, items have 0 on the missing ones.
    """
    n_axes = projected.shape[1]
    padded = np.pad(projected, ((0, 0), (0, n_bits - n_axes)))
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((n_bits, n_bits)))[0]
    for _ in range(n_iterations):
        signs = np.where(padded @ rotation > 0, 1.0, -1.0)
        u, _, vt = np.linalg.svd(signs.T @ padded)
        rotation = (u @ vt).T
    return np.asarray(rotation[:n_axes])


def principal_axes(centred: npt.NDArray[Any], n_axes: int) -> Float64Array:
    """Find the directions [n_columns, n_axes] of the largest variance of centred items."""
    vectors: Float64Array = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1]
    return vectors[:, ::-1][:, :n_axes]
