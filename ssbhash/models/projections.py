"""Projections whose signs are bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from ssbhash.arrays import Float64Array

# Iterations of the rotation of class probabilities and embedding.
CLASS_AND_ITEM_ITERATIONS = 50
# Widths in which the class has less than its full scale. Eight bits tell classes at best.
SHORT_BITS = range(9, 32)


def orthogonal_hyperplanes(n_columns: int, n_bits: int, seed: int) -> Float64Array:
    """Draw random hyperplanes [n_columns, n_bits], in orthogonal blocks of `n_columns`."""
    rng = np.random.default_rng(seed)
    n_blocks = -(-n_bits // n_columns)
    blocks = [np.linalg.qr(rng.standard_normal((n_columns,) * 2))[0] for _ in range(n_blocks)]
    return np.concatenate([np.empty((n_columns, 0)), *blocks], axis=1)[:, :n_bits]


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


def class_and_item_bits(
    both: npt.NDArray[Any], n_classes: int, n_bits: int, class_scale: float, seed: int
) -> tuple[Float64Array, Float64Array]:
    """Find the bits of class probabilities beside an embedding.

    Parameters
    ----------
    both
        Items [n, n_columns]: first the probabilities of `n_classes` classes, then an embedding.
    n_classes, n_bits
        Number of classes and of bits.
    class_scale
        Scale of the probabilities; less for 9 to 31 bits.
    seed
        Of the random axes and of the rotation before its first iteration.

    Returns
    -------
    mean, projection
        [n_columns] and [n_columns, n_bits]: bit j of an item is [(both - mean) projection]_j > 0.
    """
    mean = both.mean(0)
    class_scale *= _part_of_scale(both[:, n_classes:] - mean[n_classes:], n_bits)
    classes = np.eye(n_classes)
    if n_classes > n_bits:
        # Each has little of the variance, and would not be a principal axis.
        classes = _random_axes(n_classes, max(n_bits // 2, 1), seed)
    n_embedding = both.shape[1] - n_classes
    weights = scipy.linalg.block_diag(class_scale * classes, np.eye(n_embedding))
    weighted = (both - mean) @ weights
    axes = _principal_axes(weighted, n_bits)
    rotation = rotation_to_signs(weighted @ axes, n_bits, CLASS_AND_ITEM_ITERATIONS, seed)
    return mean, weights @ axes @ rotation


def _part_of_scale(embedding: npt.NDArray[Any], n_bits: int) -> float:
    """Compute the part of its scale that the class has.

    The principal axes of a short code keep less of the embedding [n, width], which is centred.
    At full scale the class would fill them, and most items of a class would share one code.
    """
    if n_bits not in SHORT_BITS:
        return 1.0
    variances = np.linalg.eigvalsh((embedding.T @ embedding).astype(np.float64))[::-1]
    largest = np.maximum(variances[: SHORT_BITS.stop], 0)
    total = float(largest.sum())
    # An embedding that is the same for all items leaves the code to the class.
    return math.sqrt(float(largest[:n_bits].sum()) / total) if total else 1.0


def _random_axes(n_columns: int, n_axes: int, seed: int) -> Float64Array:
    """Draw random axes [n_columns, n_axes] that keep squared distances on average."""
    drawn = np.random.default_rng(seed).standard_normal((n_columns, n_axes))
    return np.asarray(np.linalg.qr(drawn)[0] * np.sqrt(n_columns / n_axes))


def _principal_axes(centred: npt.NDArray[Any], n_axes: int) -> Float64Array:
    """Find the directions [n_columns, n_axes] of the largest variance of centred items."""
    vectors: Float64Array = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1]
    return vectors[:, ::-1][:, :n_axes]
