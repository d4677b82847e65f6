"""The codes to be searched, as the engines take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes


@dataclass(frozen=True, eq=False)
class PreparedCodes:
    """Codes with what speeds up searching them, made by `ssbhash.prepare`; stands for them in a search.

    Attributes
    ----------
    codes : uint8 [n, n_bytes]
        The packed codes themselves, which must not change any more.
    n_bits : int or None
        Bits in a code, where it was given.
    planes
        What the native engine keeps; None for the others.
    """

    codes: Codes
    n_bits: int | None
    planes: Any

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def nbytes(self) -> int:
        """Memory in bytes beside the codes, which are not copied: at most 1.9 times theirs."""
        return 0 if self.planes is None else int(self.planes.nbytes)

    def __repr__(self) -> str:
        n, n_bytes = self.codes.shape
        return f"PreparedCodes(n={n}, n_bytes={n_bytes}, nbytes={self.nbytes})"


@dataclass(frozen=True, eq=False)
class Database:
    """Checked codes, all rows or those of `ids` (ascending), with planes or without."""

    codes: Codes
    ids: npt.NDArray[np.int64] | None = None
    planes: Any = None

    def __len__(self) -> int:
        return len(self.codes) if self.ids is None else len(self.ids)

    def rows(self) -> Codes:
        """Return the codes to be searched."""
        return self.codes if self.ids is None else self.codes[self.ids]

    def to_ids(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Turn positions in `rows()` into ids."""
        return positions if self.ids is None else self.ids[positions]
