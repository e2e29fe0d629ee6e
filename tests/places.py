"""Shapes and places for the benches of the units that move words, and how they reach a unit's ports."""

import random
from collections.abc import Iterator
from typing import Any

from cocotb.triggers import RisingEdge
from cocotb.utils import get_sim_time
from nibblecore.hdl.cambriconq.job import Place, Shape
from nibblecore.sim.golden.cambriconq.walk import Pattern
from structs import join

SMALL = [(1, 1), (1, 7), (7, 1), (2, 2), (5, 3), (3, 17)]


def patterns(rng: random.Random, span: int, unit: int, *, contiguous: bool = False) -> Iterator[Pattern]:
    """Corners, then random ones; all elements in 0..span − 1, all addresses and distances multiples of `unit`."""
    units = span // unit
    yield Pattern(1, 1, span - unit, 0xFFFF_FFFC, unit)  # the last element; distances that are not used
    if not contiguous:
        yield Pattern(1, 1, 0, 0xFFFF_FFFC, 0xFFFF_FFFC)
    yield Pattern(6, 5, 4 * unit, 0, unit)
    yield Pattern(4, 6, 3 * unit, 2 * unit, unit)  # rows overlap
    if not contiguous:
        yield Pattern(3, 4, unit, 0, 0)
        yield Pattern(5, 4, 2 * unit, unit, 5 * unit)  # transposed
        yield Pattern(9, 2, 0, 3 * unit, 0)
    for number in range(14):
        rows, cols = rng.choice([*SMALL, (rng.randint(1, 9), rng.randint(1, 40))])
        near = contiguous or number % 2
        col = 1 if near else rng.choice([0, 1, 2, rng.randint(0, (units - 1) // (2 * cols))])
        row = rng.choice([cols * max(col, 1), rng.randint(0, (units - 1) // 2 // rows)]) if rows > 1 else rng.randrange(1 << 20)
        reach = (row * (rows - 1) if rows > 1 else 0) + col * (cols - 1)
        if reach < units:
            yield Pattern(rows, cols, rng.randrange(units - reach) * unit, row * unit, col * unit)


EMPTY = [Pattern(0, 3, 0, 4, 4), Pattern(3, 0, 0, 4, 4), Pattern(0, 0, 0, 4, 4), Pattern(0, 3, 0, 8, 8), Pattern(3, 0, 0, 8, 8)]


def now() -> int:
    """Cycles since the start of the simulation, the same for every coroutine."""
    return round(get_sim_time("ns") / 10)


def put(dut: Any, pattern: Pattern) -> None:
    dut.shape.value = join(Shape, {"rows": pattern.rows, "cols": pattern.cols})
    dut.place.value = join(Place, {"at": pattern.at, "row": pattern.row, "col": pattern.col})


async def begin(dut: Any, pattern: Pattern) -> None:
    """Start; returns in the first cycle after it."""
    put(dut, pattern)
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0
