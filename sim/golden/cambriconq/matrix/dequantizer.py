"""Twin of hdl.cambriconq.matrix.dequantizer: integers with exponents to binary32."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["dequantize"]


def dequantize(q: ArrayLike, e_a: ArrayLike, e_w: ArrayLike) -> NDArray[np.uint32]:
    """Bit patterns of q · 2^(e_a + e_w), rounded once to nearest even, for 38-bit `q` and exponents −128..127.

    A double holds every such number exactly, so one conversion rounds it.
    """
    integers = np.asarray(q, np.int64)
    exponents = np.asarray(e_a, np.int64) + np.asarray(e_w, np.int64)
    if integers.min(initial=0) < -(2**37) or integers.max(initial=0) >= 2**37:
        raise ValueError("an integer does not fit 38 bits")
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(integers.astype(np.float64), exponents).astype(np.float32).view(np.uint32)
