"""Twin of hdl.cambriconq.movers.rows_walk: where the elements of a shape lie, rows side by side."""

from typing import NamedTuple

from .walk import Pattern, addresses

__all__ = ["RowStep", "row_steps"]


class RowStep(NamedTuple):
    address: int
    row: int
    first_of_row: int
    last_of_row: int
    last: int


def row_steps(pattern: Pattern, together: int, bits: int = 32) -> list[RowStep]:
    """`together` rows at a time, column by column; 1: row by row."""
    where = addresses(pattern, bits)
    found = []
    for top in range(0, pattern.rows, together):
        rows = where[top : top + together]
        for col, column in enumerate(rows.T.tolist()):
            begins, ends = int(col == 0), int(col == pattern.cols - 1)
            for row, address in enumerate(column):
                last = ends and top + row == pattern.rows - 1
                found.append(RowStep(address, row, begins, ends, int(last)))
    return found
