"""Twin of hdl.cambriconq.movers.vector_turner: the vectors of a transposed matrix."""

from typing import Protocol

import numpy as np
from nibblecore.sim.golden.cambriconq.buffers.qbc import greater_tag, requantize
from nibblecore.sim.golden.cambriconq.buffers.tag import Tag
from numpy.typing import NDArray

__all__ = ["LEAST_EXPONENT", "turned"]

LEAST_EXPONENT = -128

Vector = tuple[NDArray[np.int64], Tag]


class Source(Protocol):
    """A buffer of tagged vectors."""

    def vector(self, line: int, slot: int) -> Vector: ...


def turned(buffer: Source, rows: int, cols: int, slot: int, src: int, src_row: int, columns: int) -> list[list[Vector]]:
    """The vectors of each of the `cols` new rows, of `columns` values each; all fill their slot.

    Value (i, j) lies in ``buffer.vector(src + i·src_row + j // columns · slot, slot)``, whose errors are passed on. A new vector
    begins as zeros of the least tag and takes its values one by one, as element writes do.
    """
    source = [[buffer.vector(src + i * src_row + v * slot, slot) for v in range(-(-cols // columns))] for i in range(rows)]
    result: list[list[Vector]] = [[] for _ in range(cols)]
    for v, first_col in enumerate(range(0, cols, columns)):
        for first in range(0, rows, columns):
            # Values of one source vector go to different new vectors, but these all see the same tags: a row of `block` for each.
            tag, block = Tag(LEAST_EXPONENT, 4 * slot), np.zeros((columns, columns), np.int64)
            for index, row in enumerate(source[first : first + columns]):
                values, found = row[v]
                old, tag = tag, greater_tag(tag, Tag(found.exponent, 4 * slot))
                if tag != old:
                    block = requantize(block, old, tag)
                block[:, index] = requantize(values, Tag(found.exponent, 4 * slot), tag)
            for new, vector in zip(result[first_col : first_col + columns], block, strict=False):
                new.append((vector, tag))
    return result
