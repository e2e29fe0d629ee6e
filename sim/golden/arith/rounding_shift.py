"""Twin of hdl.arith.rounding_shift."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["rounding_shift"]


def rounding_shift(magnitude: ArrayLike, shift: ArrayLike) -> NDArray[np.int64]:
    """magnitude / 2^shift, a half rounded up; magnitudes of 0..2^62, shifts of 0..62."""
    divisor = np.int64(1) << np.asarray(shift, np.int64)
    quotient, remainder = np.divmod(np.asarray(magnitude, np.int64), divisor)
    return quotient + (remainder >= divisor - remainder)
