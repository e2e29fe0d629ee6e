"""Golden twin of the transposer: blocks of a tile as bus beats, and as the buffer's words (docs/formats.md)."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Beat", "beats_of", "pack_lanes", "words_of"]

Beat = tuple[int, int]
"""Codes and flags of one beat, lane 0 least significant."""


def pack_lanes(values: NDArray[np.integer], bits: int) -> int:
    """One integer of all values in C order, the first least significant."""
    return sum(int(value) << bits * lane for lane, value in enumerate(values.ravel()))


def beats_of(codes: NDArray[np.integer], flags: NDArray[np.bool_], bits: int) -> list[Beat]:
    """The beats of matrices whose edges are multiples of B, of a tile or a part of it: block rows from the top, blocks from the left.

    Shape: (block rows, B, block columns, B), so the blocks are told apart; `flags` likewise.
    """
    b = codes.shape[1]
    columns = b * 4 // bits
    return [
        (pack_lanes(codes[row, :, col, h : h + columns], bits), pack_lanes(flags[row, :, col, h : h + columns].astype(np.uint8), 1))
        for row in range(codes.shape[0])
        for col in range(codes.shape[2])
        for h in range(0, b, columns)
    ]


def words_of(codes: NDArray[np.integer], flags: NDArray[np.bool_], bits: int, transposed: bool) -> list[int]:
    """What the transposer makes of one block (B × B): beats of B buffer words, each B·4/bits elements along K of one operand row."""
    if transposed:
        codes, flags = codes.T, flags.T
    b = codes.shape[0]
    elements = b * 4 // bits
    beats = []
    for h in range(0, b, elements):
        words = [
            pack_lanes(codes[row, h : h + elements], bits) | pack_lanes(flags[row, h : h + elements].astype(np.uint8), 1) << 4 * b
            for row in range(b)
        ]
        beats.append(sum(word << 5 * b * row for row, word in enumerate(words)))
    return beats
