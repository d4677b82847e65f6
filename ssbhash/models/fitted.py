"""A trained network, with the classes and statistics that encoding needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssbhash.arrays import Float32Array, Ids
from ssbhash.inputs import (
    Batch,
    ClassLabels,
    DenseRows,
    LsaRows,
    RowSource,
    StandardisedRows,
    padded,
    row_source,
)
from ssbhash.models import storage
from ssbhash.nn import TILE, Autoencoder, Shape
from ssbhash.training import own_torch_state

# Rows encoded at once: enough for the matrix product to fill the cores, few enough
# that the hidden layers (2 x 500 floats a row) stay within the cache.
ENCODE_ROWS = 2048


@dataclass
class Model:
    """A network with what it needs to read items.

    Attributes
    ----------
    network
        Trained, or to be trained.
    labels
        The classes it knows, None for a method without labels.
    statistics
        Scale or projection of the features, as measured on the training items.
    sparse
        Whether the training items were sparse data. Other items are read the same way.
    """

    network: Autoencoder
    labels: ClassLabels | None = None
    statistics: dict[str, Tensor] = field(default_factory=dict)
    sparse: bool = False

    def rows(self, matrix: Any) -> RowSource:
        """Scale or project the rows of a feature matrix, as the network wants them."""
        rows = row_source(matrix, self.sparse)
        if not self.statistics:
            return rows
        if "components" in self.statistics:
            assert not isinstance(rows, DenseRows)
            return LsaRows(rows, self.statistics["components"])
        return StandardisedRows(rows, self.statistics["shift"], self.statistics["scale"])

    @property
    def n_features(self) -> int:
        """Number of features of an item, before any projection."""
        components = self.statistics.get("components")
        return self.network.shape.n_features if components is None else components.shape[0]

    @own_torch_state()
    def encode(
        self,
        function: Callable[[Batch], Tensor],
        rows: RowSource,
        width: int,
        ids: Ids | None = None,
    ) -> Float32Array:
        """Apply a function of the network to all rows, or to `ids`: float32 [n, width]."""
        device = next(self.network.parameters()).device
        n = len(rows) if ids is None else len(ids)
        out = np.empty((n, width), np.float32)
        with torch.inference_mode():
            for start in range(0, n, ENCODE_ROWS):
                stop = min(start + ENCODE_ROWS, n)
                part = np.arange(start, stop) if ids is None else ids[start:stop]
                # Whole tiles: an item's code does not depend on those encoded with it.
                batch = padded(rows.take(part), TILE).to(device)
                out[start:stop] = function(batch)[: stop - start].float().cpu().numpy()
                is_finite = np.isfinite(out[start:stop]).all(axis=1)
                if not is_finite.all():
                    row = int(part[~is_finite][0])
                    raise ValueError(
                        f"X row {row} has values too large for the model: its logits are not "
                        "finite. Scale the features, and drop columns that are no measurement"
                    )
        return out

    @own_torch_state()
    def save(
        self,
        folder: Path,
        config: dict[str, Any],
        beside: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Write the model into a folder, with its estimator's `config` and files beside it."""
        about = {
            "shape": asdict(self.network.shape),
            "labels": None if self.labels is None else self.labels.to_json(),
            "sparse": self.sparse,
        }
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"statistics.{name}": value for name, value in self.statistics.items()}
        storage.save(folder, config | about, tensors, beside)

    @classmethod
    def restore(
        cls,
        config: dict[str, Any],
        tensors: dict[str, Tensor],
        build: Callable[[Shape], Autoencoder],
    ) -> Model:
        """Build a model from what `storage.load` returned."""
        network = build(Shape(**config["shape"]))
        network.load_state_dict(_under("network.", tensors))
        network.eval()
        saved = config["labels"]
        labels = None if saved is None else ClassLabels.from_json(saved)
        return cls(network, labels, _under("statistics.", tensors), bool(config["sparse"]))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
