"""Twin of hdl.arith.fp32_mul: numpy's float32 multiplication."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .fp32 import from_bits, to_bits

__all__ = ["fp32_mul"]


def fp32_mul(a: ArrayLike, b: ArrayLike) -> NDArray[np.uint32]:
    """Bit patterns of a · b, from bit patterns."""
    with np.errstate(all="ignore"):
        return to_bits(from_bits(a) * from_bits(b))
