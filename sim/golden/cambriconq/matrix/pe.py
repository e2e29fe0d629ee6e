"""Twin of hdl.cambriconq.matrix.pe: products of nibbles."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["PRODUCT_OFFSET", "nibble_value", "offset_product"]

PRODUCT_OFFSET = {(False, False): 0, (True, False): 120, (False, True): 120, (True, True): 112}
"""What a PE's output is above the product, by the signs of input and weight."""


def nibble_value(nibble: ArrayLike, is_signed: bool) -> NDArray[np.int64]:
    """The numbers that nibbles 0..15 stand for."""
    nibbles = np.asarray(nibble, np.int64)
    if nibbles.min(initial=0) < 0 or nibbles.max(initial=0) > 15:
        raise ValueError("a nibble is outside 0..15")
    return np.where(is_signed & (nibbles > 7), nibbles - 16, nibbles)


def offset_product(a: ArrayLike, w: ArrayLike, a_signed: bool, w_signed: bool) -> NDArray[np.int64]:
    """What a PE puts out for nibbles `a` and `w`: 0..225."""
    return nibble_value(a, a_signed) * nibble_value(w, w_signed) + PRODUCT_OFFSET[a_signed, w_signed]
