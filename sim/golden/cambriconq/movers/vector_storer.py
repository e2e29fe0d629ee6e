"""Twin of hdl.cambriconq.movers.vector_storer: memory after tagged vectors were written."""

import numpy as np
from numpy.typing import NDArray

from .vector_loader import Line

__all__ = ["vector_storer"]


def vector_storer(memory: NDArray[np.uint8], lines: list[Line], at: int, tags: int, line_bytes: int) -> NDArray[np.uint8]:
    """A copy of `memory`, bytes from address 0 on, with the lines, and each vector's tag written after its last line."""
    after = memory.copy()

    def put(address: int, value: int, size: int) -> None:
        after[address : address + size] = np.frombuffer(value.to_bytes(size, "little"), np.uint8)

    for number, line in enumerate(lines):
        put(at + number * line_bytes, line.line, line_bytes)
        if line.last_of_vector:
            put(tags, line.tag, 2)
            tags += 2
    return after
