"""Golden twin of the 32-bit loader: the bursts it reads, and the tiles it makes of a matrix."""

from collections.abc import Iterator

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from numpy.typing import NDArray

__all__ = ["Burst", "bursts", "line_beats", "padded_tiles"]

Burst = tuple[int, int]
"""Address of the first beat, beats."""


def padded_tiles(matrix: NDArray[np.integer], edge: int) -> Iterator[tuple[int, int, NDArray[np.integer]]]:
    """(row, column, tile of edge × edge), row-major; zero outside the matrix."""
    m, n = matrix.shape
    padded = np.zeros((-(-m // edge) * edge, -(-n // edge) * edge), matrix.dtype)
    padded[:m, :n] = matrix
    for row in range(padded.shape[0] // edge):
        for col in range(padded.shape[1] // edge):
            yield row, col, padded[row * edge : (row + 1) * edge, col * edge : (col + 1) * edge]


def bursts(m: int, n: int, matrices: list[tuple[int, int]], config: LtoaqConfig) -> Iterator[Burst]:
    """One burst for each line of each tile that lies in the matrix; `matrices` are (address, pitch), tile by tile in turn."""
    s = config.tile
    for row in range(0, m, s):
        for col in range(0, n, s):
            for address, pitch in matrices:
                for line in range(row, min(m, row + s)):
                    yield address + line * pitch + 4 * col, -(-4 * (min(n, col + s) - col) // config.bus_bytes)


def line_beats(memory: NDArray[np.int32], burst: Burst, bus_bytes: int) -> list[int]:
    """The beats of a burst; `memory` holds 32-bit words from address 0."""
    address, beats = burst
    lanes = bus_bytes // 4
    words = memory[address // 4 : address // 4 + beats * lanes].reshape(beats, lanes)
    return [sum((int(word) & 2**32 - 1) << 32 * lane for lane, word in enumerate(beat)) for beat in words]
