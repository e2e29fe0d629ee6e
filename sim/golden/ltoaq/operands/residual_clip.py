"""Golden twin of the clip in front of the operand buffers (docs/formats.md)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["clip_residuals"]


def clip_residuals(
    codes: ArrayLike, flags: ArrayLike, bits: int, signed: bool, threshold: int, k: int, value_max: int
) -> NDArray[np.int64]:
    """`codes` with every outlier's residual at most ``(value_max − threshold) >> k``; `flags` marks the outliers. Any shape."""
    patterns: NDArray[np.int64] = np.asarray(codes, np.int64)
    sign = patterns & (1 << (bits - 1) if signed else 0)
    clipped = sign + np.minimum(patterns - sign, (value_max - threshold) >> k)
    return np.where(np.asarray(flags, bool), clipped, patterns)
