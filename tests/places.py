"""Shapes and places for the benches of the units that move words, and how they reach a unit's ports."""

import random
from collections.abc import Iterator
from typing import Any

from cocotb.triggers import ReadOnly, RisingEdge
from cocotb.utils import get_sim_time
from nibblecore.hdl.cambriconq.program.job import Place, Shape, elements_layout
from nibblecore.sim.golden.cambriconq.movers.gather import Element
from nibblecore.sim.golden.cambriconq.movers.walk import Pattern
from structs import join, split

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


def wide_patterns(rng: random.Random, span: int, unit: int, words: int) -> Iterator[Pattern]:
    """Rows of neighbours, `words` of which make a group, each from the beginning of one; all in 0..span − 1."""
    group, groups = words * unit, span // unit // words
    yield Pattern(1, words, span - group, 0xFFFF_FFFC, unit)  # the last group; a distance that is not used
    yield Pattern(5, 2 * words - 1, group, 0, unit)
    yield Pattern(4, 3 * words, 0, group, unit)  # rows overlap
    for cols in range(1, 3 * words + 1):
        rows = rng.choice([1, 2, 3, 9])
        row = rng.randint(0, (groups - 3) // rows) * group if rows > 1 else rng.randrange(1 << 20)
        reach = (row * (rows - 1) if rows > 1 else 0) // group + -(-cols // words)
        yield Pattern(rows, cols, rng.randint(0, groups - reach) * group, row, unit)


EMPTY = [Pattern(rows, cols, 0, step, step) for step in (4, 8) for rows, cols in ((0, 3), (3, 0), (0, 0), (0, 65535), (65535, 0))]


def now() -> int:
    """Cycles since the start of the simulation, the same for every coroutine."""
    return round(get_sim_time("ns") / 10)


def put(dut: Any, pattern: Pattern, wide: bool = False) -> None:
    """A unit that moves one word at a time has no `wide`."""
    assert not wide or hasattr(dut, "wide")
    if hasattr(dut, "wide"):
        dut.wide.value = int(wide)
    dut.shape.value = join(Shape, {"rows": pattern.rows, "cols": pattern.cols})
    dut.place.value = join(Place, {"at": pattern.at, "row": pattern.row, "col": pattern.col})


async def begin(dut: Any, pattern: Pattern, wide: bool = False) -> None:
    """Start; returns in the first cycle after it."""
    put(dut, pattern, wide)
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


async def check_quiet(dut: Any) -> None:
    """Nothing more is on offer at `o`."""
    for _ in range(3):
        dut.o__ready.value = 1
        await ReadOnly()
        assert not dut.o__valid.value, "one too many"
        await RisingEdge(dut.clk)


def offered(element: Element, words: int, rng: random.Random) -> int:
    """The payload of a stream of `elements_layout` that carries `element`; in the words that are not there is noise."""
    noise = rng.getrandbits(32 * words) >> 32 * len(element.words) << 32 * len(element.words)
    return join(
        elements_layout(words),
        {
            "words": noise | sum(word << 32 * number for number, word in enumerate(element.words)),
            "mask": (1 << len(element.words)) - 1,
            "last_of_row": element.last_of_row,
            "last": element.last,
        },
    )


def element(payload: int, words: int) -> Element:
    """The words that a payload of `elements_layout` carries, the low ones."""
    members = split(elements_layout(words), payload)
    count = members["mask"].bit_count()
    assert members["mask"] == (1 << count) - 1, f"mask {members['mask']:#b}"
    there = tuple(members["words"] >> 32 * number & 0xFFFF_FFFF for number in range(count))
    return Element(there, members["last_of_row"], members["last"])
