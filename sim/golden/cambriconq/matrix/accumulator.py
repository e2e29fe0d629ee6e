"""Twin of hdl.cambriconq.matrix.accumulator, and the order of nibble pairs that it relies on."""

from collections.abc import Iterable
from typing import NamedTuple

from .pe_array import PLANES

__all__ = ["Pair", "accumulate", "schedule"]


class Pair(NamedTuple):
    """One cycle of a pass: line `i` of input vector `vector` meets plane `plane`, line `j` of the weight vector.

    `shift`, `first` and `last` are the accumulator's.
    """

    vector: int
    i: int
    j: int
    plane: int
    a_signed: bool
    w_signed: bool
    shift: bool
    first: bool
    last: bool


def schedule(p_a: int, p_w: int, g: int) -> list[Pair]:
    """The pass of `g` vectors of `p_a` lines with weights of `p_w` lines: its g · p_a · p_w cycles in order.

    Weights i + j in descending order; within a weight vector after vector, within a vector the higher line of the inputs first.
    """
    if not (1 <= p_a <= 4 and 1 <= p_w <= 4 and g >= 1 and g * p_w <= PLANES):
        raise ValueError(f"no pass of {g} vectors of {p_a} lines with weights of {p_w} lines")
    pairs: list[Pair] = []
    for weight in range(p_a + p_w - 2, -1, -1):
        level = [(vector, i, weight - i) for vector in range(g) for i in range(p_a - 1, -1, -1) if 0 <= weight - i < p_w]
        for number, (vector, i, j) in enumerate(level):
            pairs.append(
                Pair(
                    vector=vector,
                    i=i,
                    j=j,
                    plane=vector * p_w + j,
                    a_signed=i == p_a - 1,
                    w_signed=j == p_w - 1,
                    shift=number == 0 and bool(pairs),
                    first=not pairs,
                    last=len(pairs) == g * p_a * p_w - 1,
                )
            )
    return pairs


def accumulate(sums: Iterable[int], steps: Iterable[tuple[bool, bool, bool]]) -> list[int]:
    """Results of a sequence of sums and their steps (first, shift, last), wrapped to 38 bits signed."""
    total, results = 0, []
    for value, (first, shift, last) in zip(sums, steps, strict=True):
        total = value + (0 if first else total * 16 if shift else total)
        if last:
            results.append((total + 2**37) % 2**38 - 2**37)
    return results
