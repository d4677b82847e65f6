"""What type checkers make of the public functions; mypy reads this, nobody runs it."""

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import assert_type

import ssbhash
from ssbhash.arrays import DLPack
from ssbhash.asymmetric import expected_distances, search_asymmetric
from ssbhash.hamming import (
    NumpyPairs,
    NumpyRange,
    NumpySearch,
    TorchPairs,
    TorchRange,
    TorchSearch,
)
from ssbhash.metrics import precision_at

Uint8 = npt.NDArray[np.uint8]


def of_numpy(codes: Uint8, logits: npt.NDArray[np.float32], other: DLPack) -> None:
    prepared = ssbhash.prepare(codes, n_bits=8)
    assert_type(ssbhash.pack([[1, 0]]), Uint8)
    assert_type(ssbhash.pack(other), Uint8)
    assert_type(ssbhash.search(other, other), NumpySearch)
    assert_type(ssbhash.unpack(codes, 8), npt.NDArray[np.bool_])
    assert_type(ssbhash.search(codes, codes, 3), NumpySearch)
    assert_type(ssbhash.search(prepared, prepared, 3, exclude=range(2)), NumpySearch)
    assert_type(ssbhash.search(codes, codes).ids, npt.NDArray[np.int64])
    assert_type(ssbhash.search(codes, codes).distances, npt.NDArray[np.int32])
    assert_type(ssbhash.within(codes, codes, 3), NumpyRange)
    assert_type(ssbhash.within(codes, codes, [1, 2]).lims, npt.NDArray[np.int64])
    assert_type(ssbhash.count_within(codes, codes, 3), npt.NDArray[np.int64])
    assert_type(ssbhash.distances(prepared, codes), npt.NDArray[np.uint16])
    assert_type(ssbhash.paired_distances(codes, codes), npt.NDArray[np.uint16])
    assert_type(ssbhash.pairs_within(codes, 3), NumpyPairs)
    assert_type(ssbhash.groups_within(codes, 3), npt.NDArray[np.int64])
    ranked = ssbhash.rerank(codes, codes, vectors=logits, query_vectors=logits)
    assert_type(ranked.distances, npt.NDArray[np.float64])
    assert_type(next(ssbhash.within_chunks(codes, codes, 3, backend="numba")), NumpyRange)
    assert_type(next(ssbhash.pairs_within_chunks(codes, 3)), NumpyPairs)
    assert_type(ssbhash.merge([(ssbhash.search(codes, codes), 0)], 3), NumpySearch)
    assert_type(ssbhash.sample(logits, seed=1), Uint8)
    assert_type(ssbhash.binarize(logits, 0.5), Uint8)
    assert_type(ssbhash.sample_relaxed(logits), npt.NDArray[np.float32])
    assert_type(expected_distances(codes, logits), npt.NDArray[np.int32])
    assert_type(search_asymmetric(codes, logits, 3), NumpySearch)
    labels = np.zeros(len(codes), np.int64)
    assert_type(precision_at(codes, labels, codes, labels), float)
    assert_type(precision_at(codes, labels, codes, labels, ties="id", n_bits=8), float)
    assert_type(precision_at(codes, labels, codes, labels, [1, 2]), npt.NDArray[np.float64])
    assert_type(precision_at(codes, labels, codes, labels, per_query=True), npt.NDArray[np.float64])


def of_torch(codes: torch.Tensor, logits: torch.Tensor) -> None:
    assert_type(ssbhash.pack(codes), torch.Tensor)
    assert_type(ssbhash.unpack(codes, 8), torch.Tensor)
    assert_type(ssbhash.search(codes, codes, 3), TorchSearch)
    assert_type(ssbhash.search(codes, codes).ids, torch.Tensor)
    assert_type(ssbhash.within(codes, codes, 3), TorchRange)
    assert_type(ssbhash.count_within(codes, codes, 3), torch.Tensor)
    assert_type(ssbhash.distances(codes, codes), torch.Tensor)
    assert_type(ssbhash.paired_distances(codes, codes), torch.Tensor)
    assert_type(ssbhash.pairs_within(codes, 3), TorchPairs)
    assert_type(ssbhash.groups_within(codes, 3), torch.Tensor)
    assert_type(ssbhash.rerank(codes, codes, vectors=logits, query_vectors=logits), TorchSearch)
    assert_type(next(ssbhash.within_chunks(codes, codes, 3)), TorchRange)
    assert_type(next(ssbhash.pairs_within_chunks(codes, 3)), TorchPairs)
    assert_type(ssbhash.merge([(ssbhash.search(codes, codes), 0)], 3), TorchSearch)
    assert_type(ssbhash.sample(logits), torch.Tensor)
    assert_type(ssbhash.binarize(logits), torch.Tensor)
    assert_type(ssbhash.sample_relaxed(logits), torch.Tensor)
    assert_type(expected_distances(codes, logits), torch.Tensor)
    assert_type(search_asymmetric(codes, logits, 3), TorchSearch)
