"""Bit patterns of binary32 numbers, for the twins of the floating-point blocks."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["QUIET_NAN", "from_bits", "to_bits"]

QUIET_NAN = np.uint32(0x7FC00000)
"""The only NaN that any block gives."""


def from_bits(bits: ArrayLike) -> NDArray[np.float32]:
    """The numbers that bit patterns stand for."""
    return np.ascontiguousarray(bits, np.uint32).view(np.float32)


def to_bits(values: ArrayLike) -> NDArray[np.uint32]:
    """Bit patterns of float32 numbers, with every NaN made the quiet one."""
    values = np.ascontiguousarray(values, np.float32)
    return np.where(np.isnan(values), QUIET_NAN, values.view(np.uint32))
