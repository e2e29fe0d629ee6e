import random

import bench
import cocotb
import pytest
from cocotb.triggers import RisingEdge
from nibblecore.hdl.cambriconq.movers.rows_walk import RowsWalk, row_step_layout
from nibblecore.sim.golden.cambriconq.movers.rows_walk import row_steps
from nibblecore.sim.golden.cambriconq.movers.walk import Pattern, addresses, steps
from places import EMPTY, begin, check_quiet, now, patterns
from structs import split


async def start(dut):
    p = bench.parameters()
    for port in ("start", "shape", "place", "together", "o__ready"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return p["bits"], p["rows"], random.Random(random.getrandbits(32))


async def run(dut, pattern, together, ready):
    """Every step; returns the cycles they took."""
    p = bench.parameters()
    expected = row_steps(pattern, p["rows"] if together else 1, p["bits"])
    dut.together.value = int(together)
    await begin(dut, pattern)
    first = now()
    taken = await bench.receive(dut, "o", len(expected), ready)
    cycles = now() - first
    layout = row_step_layout(p["bits"], p["rows"])
    assert [split(layout, word) for word in taken] == [step._asdict() for step in expected], (pattern, together)
    await check_quiet(dut)
    return cycles


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_steps(dut):
    bits, rows, rng = await start(dut)
    # Every number of rows up to three times as many as go together, and any distance, so that addresses wrap.
    some = [
        Pattern(height, width, *(rng.getrandbits(32) for _ in range(3))) for height in range(1, 3 * rows + 1) for width in (1, 2, 5)
    ]
    jobs = [(pattern, together) for pattern in (*patterns(rng, 1 << bits, 1), *some) for together in (False, True)]
    rng.shuffle(jobs)
    for turn, (pattern, together) in enumerate(jobs):
        name = list(bench.PATTERNS)[turn % len(bench.PATTERNS)]
        await run(dut, pattern, together, bench.PATTERNS[name](rng.getrandbits(32)))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_longest_shapes(dut):
    """65535 rows and 65535 columns; a step every cycle, the first the cycle after start."""
    await start(dut)
    for pattern in (Pattern(1, 65535, 5, 3, 7), Pattern(65535, 1, 5, 3, 7), Pattern(127, 259, 1, 600, 2)):
        assert await run(dut, pattern, True, bench.always()) == pattern.rows * pattern.cols


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_empty_and_reset(dut):
    _, _, rng = await start(dut)
    for pattern in EMPTY:
        await begin(dut, pattern)
        await check_quiet(dut)
    for cycles in range(1, 24):
        dut.together.value = cycles % 2
        await begin(dut, Pattern(6, 4, 0, 4, 1))
        dut.o__ready.value = rng.randrange(2)
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        await bench.reset(dut)
        await check_quiet(dut)
        await run(dut, Pattern(3, 2, 1, 4, 1), not cycles % 2, bench.always())


@pytest.mark.parametrize("bits, rows", [(8, 2), (14, 4)])
def test_rows_walk(bits, rows):
    bench.run(RowsWalk(bits, rows), __file__, f"rows_walk_{rows}", parameters={"bits": bits, "rows": rows})


@pytest.mark.parametrize("bits, rows", [(0, 4), (33, 4), (8, 1), (8, 3)])
def test_illegal_parameters(bits, rows):
    with pytest.raises(ValueError):
        RowsWalk(bits, rows)


def test_golden_is_a_walk_in_another_order():
    """One row at a time it is `Walk`'s; each row by itself always is, and rows of a group take turns."""
    for pattern in patterns(random.Random(1), 1 << 12, 1):
        plain = row_steps(pattern, 1)
        assert [(s.address, s.last_of_row, s.last) for s in plain] == [(s.address, s.last_of_row, s.last) for s in steps(pattern)]
        found, rows = row_steps(pattern, 4), addresses(pattern)
        for top in range(0, pattern.rows, 4):
            group = found[top * pattern.cols : (top + 4) * pattern.cols]
            size = min(4, pattern.rows - top)
            assert [step.row for step in group] == list(range(size)) * pattern.cols
            for row in range(size):
                assert [step.address for step in group if step.row == row] == rows[top + row].tolist()
                assert [step.first_of_row for step in group if step.row == row] == [1] + [0] * (pattern.cols - 1)
                assert [step.last_of_row for step in group if step.row == row] == [0] * (pattern.cols - 1) + [1]
        assert [step.last for step in found] == [0] * (len(found) - 1) + [1]
