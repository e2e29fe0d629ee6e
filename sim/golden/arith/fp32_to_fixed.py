"""Twin of hdl.arith.fp32_to_fixed."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .fp32 import from_bits

__all__ = ["fp32_to_fixed"]


def fp32_to_fixed(bits: ArrayLike, exponent: ArrayLike, width: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Integers of `width` bits (4, 8, 12 or 16) for the numbers of bit patterns, and which were NaN or infinite.

    A float64 holds |x| · 2^−exponent and twice as much exactly; ⌊2y⌋ and half of it rounded up is y rounded half up.
    """
    with np.errstate(invalid="ignore"):
        values = from_bits(bits).astype(np.float64)
    limit = 2.0 ** (np.asarray(width) - 1) - 1
    doubled = np.floor(np.ldexp(np.abs(np.nan_to_num(values, nan=0.0)), 1 - np.asarray(exponent, np.int32)))
    magnitude = np.minimum(np.floor((doubled + 1) / 2), limit).astype(np.int64)
    return np.where(values < 0, -magnitude, magnitude), ~np.isfinite(values)
