"""Golden twin of the quantization buffer controller: what its lines hold after each access, one after the other."""

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .tag import Tag

__all__ = ["Qbc", "Refusal", "greater_tag", "requantize"]


class Refusal(StrEnum):
    """Why an element write was dropped."""

    OUT_OF_RANGE = "out_of_range"
    PARTLY_OVERWRITTEN = "partly_overwritten"
    NO_ROOM = "no_room"


def greater_tag(vector: Tag, value: Tag) -> Tag:
    """The paper's Max Tag: the larger exponent, of equal ones that with more bits."""
    return max(vector, value)


def requantize(values: ArrayLike, tag: Tag, target: Tag) -> NDArray[np.int64]:
    """Integers of format `tag` as integers of format `target`, whose exponent is not less."""
    # −2^15 is in no format.
    found = np.maximum(np.asarray(values, np.int64), 1 - 2**15)
    divisor = 1 << min(target.exponent - tag.exponent, 32)
    magnitude = (2 * np.abs(found) + divisor) // (2 * divisor)
    return np.sign(found) * np.minimum(magnitude, 2 ** (target.bits - 1) - 1)


class Qbc:
    """Lines of `cols` nibbles, each with a tag, or None where it is not valid.

    Parameters
    ----------
    lines, cols : int
    """

    def __init__(self, lines: int, cols: int) -> None:
        self.nibbles = np.zeros((lines, cols), np.uint8)
        self.tags: list[Tag | None] = [None] * lines

    def clear(self) -> None:
        self.tags = [None] * len(self.tags)

    def write(self, line: int, nibbles: ArrayLike, tag: Tag) -> None:
        self.nibbles[line], self.tags[line] = nibbles, tag

    def read(self, line: int) -> tuple[list[int], Tag] | None:
        """Nibbles and tag of a line, None if it is not valid."""
        tag = self.tags[line]
        return None if tag is None else (self.nibbles[line].tolist(), tag)

    def vector(self, line: int, tag: Tag) -> NDArray[np.int64]:
        """The integers that begin at a line, of as many lines as `tag` says."""
        places = tag.bits // 4
        unsigned = sum(self.nibbles[line + place].astype(np.int64) << 4 * place for place in range(places))
        return np.where(unsigned >> (tag.bits - 1) & 1, unsigned - (1 << tag.bits), unsigned)

    def write_element(self, line: int, slot: int, index: int, tag: Tag, value: int) -> Refusal | None:
        """Write one value to a vector that may grow to `slot` lines; says why it was dropped if it was."""
        if line + slot > len(self.tags):
            return Refusal.OUT_OF_RANGE
        old = self.tags[line]
        target = tag if old is None else greater_tag(old, tag)
        used = 0 if old is None else old.bits // 4
        if used > slot:
            return Refusal.NO_ROOM
        if any(self.tags[line + place] != old for place in range(used)):
            return Refusal.PARTLY_OVERWRITTEN
        if target.bits // 4 > slot:
            return Refusal.NO_ROOM
        values = np.zeros(self.nibbles.shape[1], np.int64) if old is None else self.vector(line, old)
        if old is not None and target != old:
            values = requantize(values, old, target)
        values[index] = requantize(value, tag, target)
        needed = target.bits // 4
        for place in range(max(used, needed)):
            self.nibbles[line + place] = values >> 4 * place & 15
            self.tags[line + place] = target if place < needed else None
        return None
