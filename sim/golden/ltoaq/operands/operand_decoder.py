"""Golden twin of the operand decoder: the values of codes, and how the wide array's lanes hold them."""

import numpy as np
from nibblecore.sim.formats.codes import decode_operand
from numpy.typing import ArrayLike, NDArray

__all__ = ["decode_operand", "operand_lanes"]


def operand_lanes(values: ArrayLike, bits: int, role: str) -> NDArray[np.int64]:
    """The wide array's four lanes: words of four 4-bit values as they are, each 8-bit value as its halves (value = high·32 + low).

    Shapes: (words, 4) to (words, 4) for 4 bits, (words,) to (words, 4) for 8.
    """
    integers: NDArray[np.int64] = np.asarray(values, np.int64)
    if bits == 4:
        return integers
    low, high = integers % 32, integers // 32
    return np.stack({"a": (low, high, low, high), "w": (low, low, high, high)}[role], axis=-1)
