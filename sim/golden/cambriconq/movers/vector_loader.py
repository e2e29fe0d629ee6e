"""Twin of hdl.cambriconq.movers.vector_loader: tagged vectors in memory as lines."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Line", "beats_of", "marked", "vector_loader"]

Beats = list[tuple[int, int]]
"""Of each command the address of its first beat, and its beats."""


class Line(NamedTuple):
    """M nibbles, value 0 least significant; the tag's 10 bits; two marks."""

    line: int
    tag: int
    last_of_vector: int
    last: int


def marked(lines: list[int], tags: list[int], slot: int) -> list[Line]:
    """Lines, and a tag for every `slot` of them."""
    return [
        Line(line, tags[number // slot], int(number % slot == slot - 1), int(number == len(lines) - 1))
        for number, line in enumerate(lines)
    ]


def beats_of(vectors: int, slot: int, at: int, tags: int, line_bytes: int) -> Beats:
    """The beats of each vector, tag before lines."""
    pairs = [
        [((tags + 2 * number) // line_bytes * line_bytes, 1), (at + number * slot * line_bytes, slot)] for number in range(vectors)
    ]
    return [command for pair in pairs for command in pair]


def vector_loader(
    memory: NDArray[np.uint8], vectors: int, slot: int, at: int, tags: int, line_bytes: int
) -> tuple[list[Line] | None, Beats]:
    """The lines, or None if a tag does not fit the slot, and what is read; `memory` holds bytes from address 0 on."""
    first, last = tags // line_bytes, (tags + 2 * vectors - 1) // line_bytes
    all_tags = [(first * line_bytes, last - first + 1)]
    words = [int.from_bytes(memory[tags + 2 * number :][:2].tobytes(), "little") for number in range(vectors)]
    if any(word // 256 >= slot for word in words):
        return None, all_tags
    lines = [
        int.from_bytes(memory[at + number * line_bytes :][:line_bytes].tobytes(), "little") for number in range(vectors * slot)
    ]
    return marked(lines, words, slot), all_tags + beats_of(vectors, slot, at, tags, line_bytes)
