"""Golden twin of the tile buffer: what each element of a tile is after the array's passes, or the loader's rows."""

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from numpy.typing import NDArray

__all__ = ["TileQueue", "tile_of_passes"]


def tile_of_passes(results: NDArray[np.integer], config: LtoaqConfig) -> NDArray[np.integer]:
    """S × S from passes × R × C: passes go through the tile's parts row-major."""
    s, r, c = config.tile, config.rows, config.output_cols
    tile = np.zeros((s, s), results.dtype)
    passes = iter(results)
    for row in range(0, s, r):
        for col in range(0, s, c):
            tile[row : row + r, col : col + c] = next(passes)
    return tile


class TileQueue:
    """Two tiles at most, begun or complete; credits are passes that may still be begun."""

    def __init__(self, config: LtoaqConfig) -> None:
        self.passes = (config.tile // config.rows) * (config.tile // config.output_cols)
        self.credits = 2 * self.passes
        self.complete: list[NDArray[np.integer]] = []

    def take(self) -> None:
        self.credits -= 1

    def put(self, tile: NDArray[np.integer], *, raw: bool) -> None:
        """A tile is complete; a raw one takes its credits now."""
        self.complete.append(tile)
        if raw:
            self.credits -= self.passes

    def release(self) -> None:
        self.complete.pop(0)
        self.credits += self.passes
