"""Golden twin of the block store: rows of quantized values to the beats of their blocks."""

import numpy as np
from nibblecore.sim.golden.ltoaq.operands.transposer import Beat, beats_of
from numpy.typing import NDArray

__all__ = ["block_beats"]


def block_beats(codes: NDArray[np.integer], flags: NDArray[np.bool_], block: int, bits: int) -> list[Beat]:
    """Beats of rows × lanes values, rows and lanes multiples of B: B rows at a time, their blocks from left to right."""
    rows, lanes = codes.shape
    grid = rows // block, block, lanes // block, block
    return beats_of(codes.reshape(grid), flags.reshape(grid), bits)
