"""What the controller hands to the units that move words: how many, and where."""

from amaranth import Value
from amaranth.lib import data

__all__ = ["Element", "Place", "Shape"]


class Shape(data.Struct):
    """rows × cols elements, taken row by row."""

    rows: 16
    cols: 16

    @property
    def empty(self) -> Value:
        return (self.rows == 0) | (self.cols == 0)


class Place(data.Struct):
    """Element (i, j) lies at ``at + i·row + j·col``, modulo 2³²: words in NBout, bytes in memory."""

    at: 32
    row: 32
    col: 32


class Element(data.Struct):
    """An FP32 word on its way, and where it stands in its shape."""

    word: 32
    last_of_row: 1
    last: 1
