"""Twin of hdl.arith.int_to_fp32."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .fp32 import to_bits

__all__ = ["int_to_fp32"]


def int_to_fp32(integer: ArrayLike, exponent: ArrayLike) -> NDArray[np.uint32]:
    """Bit patterns of integer · 2^exponent, for integers of 54 bits (−2^53..2^53) and exponents of −900..900.

    A float64 holds such a product exactly, so that its conversion rounds once.
    """
    values = np.asarray(integer, np.int64)
    if np.any(np.abs(values) > 2**53):
        raise ValueError("integers of more than 53 bits would be rounded twice")
    with np.errstate(over="ignore", under="ignore"):
        return to_bits(np.ldexp(values.astype(np.float64), np.asarray(exponent, np.int32)).astype(np.float32))
