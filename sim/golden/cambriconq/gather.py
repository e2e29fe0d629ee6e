"""Twin of hdl.cambriconq.gather: the words of a shape in NBout."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .walk import Pattern, addresses, ends

__all__ = ["Element", "elements", "gather"]


class Element(NamedTuple):
    word: int
    last_of_row: int
    last: int


def elements(words: NDArray[np.integer], pattern: Pattern) -> list[Element]:
    """A shape's words, rows × cols, with their marks, in the order in which they are moved."""
    return [Element(word, *end) for word, end in zip(words.ravel().tolist(), ends(pattern), strict=True)]


def gather(nbout: NDArray[np.uint32], pattern: Pattern) -> list[Element]:
    return elements(nbout[addresses(pattern)], pattern)
