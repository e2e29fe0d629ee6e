"""Twin of hdl.cambriconq.matrix.pe_array: stored weights and the sums of products that lines of inputs make with them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .pe import nibble_value

__all__ = ["PLANES", "PeArray", "lines"]

PLANES = 4


def lines(values: ArrayLike, bits: int) -> NDArray[np.int64]:
    """The nibbles 0..15 of two's complement integers of `bits` bits, lowest first along a new first axis."""
    integers = np.asarray(values, np.int64)
    if integers.min(initial=0) < -(2 ** (bits - 1)) or integers.max(initial=0) >= 2 ** (bits - 1):
        raise ValueError(f"a value does not fit {bits} bits")
    return np.stack([np.floor_divide(integers, 16**place) % 16 for place in range(bits // 4)])


class PeArray:
    """The array's state and what each cycle does with it, latency left out.

    Parameters
    ----------
    rows, cols : int
    """

    def __init__(self, rows: int, cols: int) -> None:
        self.rows, self.cols = rows, cols
        self.shadow = np.zeros((rows, PLANES, cols), np.int64)
        self.active = np.zeros((rows, PLANES, cols), np.int64)

    def input(self, line: ArrayLike, plane: int, *, a_signed: bool, w_signed: bool, swap: bool = False) -> NDArray[np.int64]:
        """Sums of all rows for a line of inputs; with `swap` the shadow set becomes active before.

        What is loaded in the same cycle comes after.
        """
        if swap:
            self.active = self.shadow.copy()
        return nibble_value(self.active[:, plane], w_signed) @ nibble_value(line, a_signed)

    def load(self, row: int, plane: int, line: ArrayLike) -> None:
        """Write a line of weights into the shadow set; of a row that does not exist nothing happens."""
        if row < self.rows:
            self.shadow[row, plane] = line
