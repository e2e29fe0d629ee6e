"""Twin of hdl.cambriconq.movers.memory_gather: the words of a shape in memory."""

import numpy as np
from numpy.typing import NDArray

from .gather import Element, elements
from .walk import Pattern, addresses

__all__ = ["memory_gather"]


def memory_gather(memory: NDArray[np.uint8], pattern: Pattern, words: int = 1) -> list[Element]:
    """Up to `words` of a row at a time. `memory` holds bytes from address 0 on, a multiple of 4; words are little-endian."""
    return elements(memory.view("<u4")[addresses(pattern) // 4], pattern, words)
