"""Golden twin of the gradient reader: the order in which the elements of x and g meet."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["slices"]


def slices(x: NDArray[np.integer], g: NDArray[np.integer], lanes: int) -> Iterator[tuple[list[int], list[int]]]:
    """The same `lanes` columns of two tiles, row by row, from left to right."""
    for x_row, g_row in zip(x, g, strict=True):
        for first in range(0, len(x_row), lanes):
            yield x_row[first : first + lanes].tolist(), g_row[first : first + lanes].tolist()
