"""Twin of hdl.cambriconq.movers.gather: the words of a shape in NBout."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .walk import Pattern, addresses, groups

__all__ = ["Element", "elements", "gather"]


class Element(NamedTuple):
    """Words of a row that move together, those that are there."""

    words: tuple[int, ...]
    last_of_row: int
    last: int


def elements(values: NDArray[np.integer], pattern: Pattern, words: int = 1) -> list[Element]:
    """A shape's values, rows × cols, up to `words` of a row at a time, with their marks, in the order in which they are moved."""
    flat = values.ravel().tolist()
    return [Element(tuple(flat[g.first : g.first + g.size]), g.last_of_row, g.last) for g in groups(pattern, words)]


def gather(nbout: NDArray[np.uint32], pattern: Pattern, words: int = 1) -> list[Element]:
    return elements(nbout[addresses(pattern)], pattern, words)
