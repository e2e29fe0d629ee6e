"""Twin of hdl.cambriconq.buffers.tag: the format of a vector, and its 10 bits."""

from typing import NamedTuple

__all__ = ["Tag"]


class Tag(NamedTuple):
    """Format of a vector."""

    exponent: int
    bits: int

    def pack(self) -> int:
        return self.exponent & 255 | (self.bits // 4 - 1) << 8

    @classmethod
    def unpack(cls, word: int) -> "Tag":
        return cls((word & 255) - 2 * (word & 128), 4 * (word >> 8 & 3) + 4)
