"""Twin of hdl.arith.nibble_mac."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["lanes_of", "nibble_mac"]

_WEIGHT = np.array([1, 16, 16, 256], dtype=np.int64)


def lanes_of(a: ArrayLike, w: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """8-bit operands, as integers or bytes, as lanes of raw nibbles: shape (..., 4) each."""
    a_byte, w_byte = np.asarray(a, dtype=np.int64) & 255, np.asarray(w, dtype=np.int64) & 255
    (a_high, a_low), (w_high, w_low) = divmod(a_byte, 16), divmod(w_byte, 16)
    return np.stack([a_low, a_high, a_low, a_high], axis=-1), np.stack([w_low, w_low, w_high, w_high], axis=-1)


def nibble_mac(a: ArrayLike, w: ArrayLike, *, eight_bit: bool, a_signed: bool, w_signed: bool) -> NDArray[np.int64]:
    """Products of lanes of raw nibbles, 0..15, shape (..., 4), read as the mode says: shape (...)."""
    a_lanes, w_lanes = np.asarray(a, dtype=np.int64), np.asarray(w, dtype=np.int64)
    a_high, w_high = ([0, 1, 0, 1], [0, 0, 1, 1]) if eight_bit else ([1, 1, 1, 1], [1, 1, 1, 1])
    a_values = a_lanes - 16 * ((a_lanes > 7) & np.array(a_high, bool) & a_signed)
    w_values = w_lanes - 16 * ((w_lanes > 7) & np.array(w_high, bool) & w_signed)
    return (a_values * w_values * (_WEIGHT if eight_bit else 1)).sum(axis=-1)
