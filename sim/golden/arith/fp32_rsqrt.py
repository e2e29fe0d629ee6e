"""Twin of hdl.arith.fp32_rsqrt."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .fp32 import QUIET_NAN

__all__ = ["fp32_rsqrt", "significand_rsqrt"]


def _table(parity: int) -> tuple[NDArray[np.float64], ...]:
    """For each segment: the m it ends before, its middle, and the integer coefficients in units of 2^−27, 2^−19 and 2^−12."""
    start = np.concatenate([np.arange(1, 1.25, 2.0**-7), np.arange(1.25, 2, 2.0**-6)])
    end = np.append(start[1:], 2.0)
    middle = (start + end) / 2 - 2.0**-24
    node = np.round(np.sqrt(3) / 4 * (end - start) * 2**24) / 2**24
    below, at, above = (1 / np.sqrt((middle + t) * 2**parity) for t in (-node, 0 * node, node))
    slope, curvature = (below - above) / (2 * node), (below + above - 2 * at) / (2 * node**2)
    return end, middle, np.round(at * 2**27), np.round(slope * 2**19), np.round(curvature * 2**12)


_TABLES = [_table(0), _table(1)]


def significand_rsqrt(significand: ArrayLike, parity: int) -> NDArray[np.int64]:
    """1 / √(m·2^parity) in units of 2^−24, for significands m·2^23 of 2^23..2^24 − 1: 2^23..2^24."""
    m = np.asarray(significand, np.int64) / 2**23
    end, middle, c0, c1, c2 = _TABLES[parity]
    segment = np.searchsorted(end, m, side="right")
    t = m - middle[segment]
    # The square is of |t| cut to 2^−20 and half a unit more; both products are cut, then the first takes its sign by complement.
    cut = np.floor(np.abs(t) * 2**19) / 2**19 + 2.0**-20
    linear = np.floor(c1[segment] * np.abs(t) * 2**8).astype(np.int64)
    quadratic = np.floor(c2[segment] * np.floor(cut**2 * 2**26) / 2**11).astype(np.int64)
    total = c0[segment].astype(np.int64) + quadratic + np.where(t > 0, -linear - 1, linear)
    return (total + 4) // 8


def fp32_rsqrt(bits: ArrayLike) -> NDArray[np.uint32]:
    """Bit patterns of 1 / √x, from bit patterns."""
    bits = np.ascontiguousarray(bits, np.uint32)
    positive = np.where((bits > 0) & (bits < 0x7F800000), bits, np.uint32(0x3F800000))
    m, exponent = np.frexp(positive.view(np.float32).astype(np.float64))
    # Of x = m·2^(2·half + parity), m in [1, 2).
    half, parity = np.divmod(exponent - 1, 2)
    significand = (m * 2**24).astype(np.int64)
    result = np.where(parity == 1, significand_rsqrt(significand, 1), significand_rsqrt(significand, 0))
    values = np.ldexp(result.astype(np.float64), -24 - half).astype(np.float32).view(np.uint32)
    zero, negative = (bits << 1 == 0) | (bits == 0x7F800000), bits > 0x7F800000
    return np.select([zero, negative], [np.uint32(0), QUIET_NAN], values)
