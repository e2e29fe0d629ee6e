"""Twin of hdl.cambriconq.walk: where the elements of a shape lie."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pattern", "Step", "addresses", "ends", "steps"]


class Pattern(NamedTuple):
    """rows × cols elements; element (i, j) at ``at + i·row + j·col``."""

    rows: int
    cols: int
    at: int
    row: int
    col: int


class Step(NamedTuple):
    address: int
    last_of_row: int
    last: int


def addresses(pattern: Pattern, bits: int = 32) -> NDArray[np.int64]:
    """All addresses, modulo 2^bits, rows × cols."""
    i, j = np.indices((pattern.rows, pattern.cols), dtype=np.int64)
    return (pattern.at + i * pattern.row + j * pattern.col) % (1 << bits)


def ends(pattern: Pattern) -> list[tuple[int, int]]:
    """(last of its row, last of all) of every element, row by row."""
    i, j = np.indices((pattern.rows, pattern.cols))
    last_of_row = j == pattern.cols - 1
    last = last_of_row & (i == pattern.rows - 1)
    return list(zip(last_of_row.ravel().astype(int).tolist(), last.ravel().astype(int).tolist(), strict=True))


def steps(pattern: Pattern, bits: int = 32) -> list[Step]:
    return [Step(address, *end) for address, end in zip(addresses(pattern, bits).ravel().tolist(), ends(pattern), strict=True)]
