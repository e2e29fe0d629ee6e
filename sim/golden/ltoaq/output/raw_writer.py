"""Golden twin of the 32-bit writer: the bursts that put a tile's lines into memory."""

from collections.abc import Iterator

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from numpy.typing import NDArray

__all__ = ["Line", "lines"]

Line = tuple[int, list[tuple[int, int]]]
"""Address of the first beat; data and byte strobes of each beat, strobed-off bytes 0."""


def lines(
    tile: NDArray[np.integer], row: int, col: int, m: int, n: int, address: int, pitch: int, config: LtoaqConfig
) -> Iterator[Line]:
    """One burst for each line of tile (row, col) that lies in an m × n matrix, up to the matrix's last column."""
    s, bus = config.tile, config.bus_bytes
    height, width = min(s, m - row * s), min(s, n - col * s)
    for line in range(height):
        content = tile[line, :width].astype("<i4").tobytes()
        beats = []
        for at in range(0, len(content), bus):
            piece = content[at : at + bus]
            beats.append((int.from_bytes(piece, "little"), (1 << len(piece)) - 1))
        yield address + (row * s + line) * pitch + 4 * s * col, beats
