"""Golden twin of the operand decoder (docs/formats.md)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["decode_operand", "operand_lanes"]


def decode_operand(
    codes: ArrayLike, flags: ArrayLike, bits: int, signed: bool, threshold: int, k: int, value_max: int
) -> NDArray[np.int64]:
    """Values in steps of OAQ codes, saturated at ±`value_max`; `flags` marks the outliers. Any shape."""
    patterns: NDArray[np.int64] = np.asarray(codes, np.int64)
    outlier = np.asarray(flags).astype(bool)
    top = 2 ** (bits - 1)
    if signed:
        negative, q = patterns >= top, patterns % top
        normal = np.where(negative, patterns - 2 * top, patterns)
    else:
        negative, q = np.zeros_like(patterns, bool), patterns
        normal = patterns
    magnitude = np.minimum(threshold + q * 2**k, value_max)
    return np.where(outlier, np.where(negative, -magnitude, magnitude), normal)


def operand_lanes(values: ArrayLike, bits: int, role: str) -> NDArray[np.int64]:
    """The wide array's four lanes: words of four 4-bit values as they are, each 8-bit value as its halves (value = high·32 + low).

    Shapes: (words, 4) to (words, 4) for 4 bits, (words,) to (words, 4) for 8.
    """
    integers: NDArray[np.int64] = np.asarray(values, np.int64)
    if bits == 4:
        return integers
    low, high = integers % 32, integers // 32
    return np.stack({"a": (low, high, low, high), "w": (low, low, high, high)}[role], axis=-1)
