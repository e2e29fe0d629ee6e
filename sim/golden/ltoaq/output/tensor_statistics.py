"""Golden twin of the statistics over a tensor (docs/formats.md, header words 1 to 3)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["TensorCounts", "tensor_statistics"]


class TensorCounts(NamedTuple):
    x_max: int
    outliers: int
    saturations: int


def tensor_statistics(magnitude: ArrayLike, outlier: ArrayLike, saturated: ArrayLike) -> TensorCounts:
    """Largest magnitude and number of set flags, counts modulo 2^32."""
    return TensorCounts(
        int(np.asarray(magnitude).max(initial=0)), int(np.count_nonzero(outlier)) % 2**32, int(np.count_nonzero(saturated)) % 2**32
    )
