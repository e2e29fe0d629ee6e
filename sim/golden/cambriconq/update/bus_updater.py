"""Twin of hdl.cambriconq.update.bus_updater: WGSTORE without an engine beside the memory."""

import numpy as np
from nibblecore.sim.golden.cambriconq.movers.walk import Pattern, addresses
from numpy.typing import NDArray

from .ndpo import Optimizer

__all__ = ["bus_updater"]


def bus_updater(
    floats: NDArray[np.float32], optimizer: Optimizer, places: tuple[int, int, int], mem_row: int, gradients: NDArray[np.float32]
) -> None:
    """Updates rows of weights and moments from byte addresses `places` on, `mem_row` bytes apart; no two may overlap.

    `floats` is memory from address 0 on, `gradients` rows × cols.
    """
    rows, cols = gradients.shape
    words = [addresses(Pattern(rows, cols, at, mem_row, 4)) // 4 for at in places]
    w, m, v = (floats[place] for place in words)
    for place, values in zip(words, optimizer.update(w, m, v, gradients), strict=True):
        floats[place] = values
