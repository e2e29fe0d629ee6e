"""Twin of hdl.cambriconq.movers.memory_scatter: memory after rows of words were written."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .walk import Pattern

__all__ = ["memory_scatter"]


def memory_scatter(memory: NDArray[np.uint8], pattern: Pattern, words: Sequence[int]) -> NDArray[np.uint8]:
    """A copy of `memory`, bytes from address 0 on, with rows·cols words in their places; where rows overlap the later stays."""
    after = memory.copy()
    rows = np.array(words, "<u4").reshape(pattern.rows, pattern.cols)
    for number, row in enumerate(rows):
        first = pattern.at + number * pattern.row
        after[first : first + 4 * pattern.cols] = row.view(np.uint8)
    return after
