"""Twin of hdl.cambriconq.movers.scatter: NBout after the words of a shape were written."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .walk import Pattern, addresses

__all__ = ["scatter"]


def scatter(nbout: NDArray[np.uint32], pattern: Pattern, words: Sequence[int]) -> NDArray[np.uint32]:
    """A copy of `nbout` with rows·cols words in their places; of words with one place the last stays."""
    after = nbout.copy()
    for address, word in zip(addresses(pattern).ravel().tolist(), words, strict=True):
        after[address] = word
    return after
