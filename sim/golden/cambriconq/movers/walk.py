"""Twin of hdl.cambriconq.movers.walk: where the elements of a shape lie."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Group", "Pattern", "Step", "addresses", "groups", "steps"]


class Pattern(NamedTuple):
    """rows × cols elements; element (i, j) at ``at + i·row + j·col``."""

    rows: int
    cols: int
    at: int
    row: int
    col: int


class Group(NamedTuple):
    """Elements of one row that move together: the first one's number, row by row, and how many they are."""

    first: int
    size: int
    last_of_row: int
    last: int


class Step(NamedTuple):
    address: int
    mask: int
    last_of_row: int
    last: int


def addresses(pattern: Pattern, bits: int = 32) -> NDArray[np.int64]:
    """All addresses, modulo 2^bits, rows × cols."""
    i, j = np.indices((pattern.rows, pattern.cols), dtype=np.int64)
    return (pattern.at + i * pattern.row + j * pattern.col) % (1 << bits)


def groups(pattern: Pattern, words: int = 1) -> list[Group]:
    """A shape's elements, up to `words` of a row at a time; what is left of a row over is a group of its own."""
    cols = pattern.cols
    return [
        Group(
            row * cols + col, min(words, cols - col), int(col + words >= cols), int(col + words >= cols and row == pattern.rows - 1)
        )
        for row in range(pattern.rows)
        for col in range(0, cols, words)
    ]


def steps(pattern: Pattern, bits: int = 32, words: int = 1) -> list[Step]:
    flat = addresses(pattern, bits).ravel().tolist()
    return [Step(flat[g.first], (1 << g.size) - 1, g.last_of_row, g.last) for g in groups(pattern, words)]
