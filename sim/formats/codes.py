"""What a code of an OAQ tensor stands for (docs/formats.md)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["decode_operand"]


def decode_operand(
    codes: ArrayLike, flags: ArrayLike, bits: int, signed: bool, threshold: int, k: int, value_max: int
) -> NDArray[np.int64]:
    """Values in steps of OAQ codes; `flags` marks the outliers, whose residuals are clipped so that none exceeds `value_max`. Any shape."""
    patterns: NDArray[np.int64] = np.asarray(codes, np.int64)
    outlier = np.asarray(flags).astype(bool)
    top = 2 ** (bits - 1)
    if signed:
        negative, q = patterns >= top, patterns % top
        normal = np.where(negative, patterns - 2 * top, patterns)
    else:
        negative, q = np.zeros_like(patterns, bool), patterns
        normal = patterns
    magnitude = threshold + np.minimum(q, (value_max - threshold) >> k) * 2**k
    return np.where(outlier, np.where(negative, -magnitude, magnitude), normal)
