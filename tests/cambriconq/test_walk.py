import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.walk import Walk, step_layout
from nibblecore.sim.golden.cambriconq.machine import Machine
from nibblecore.sim.golden.cambriconq.walk import Pattern, addresses, ends, steps
from places import EMPTY, begin, patterns
from structs import split


async def start(dut):
    dut.start.value, dut.shape.value, dut.place.value, dut.o__ready.value = 0, 0, 0, 0
    await bench.start(dut)
    return bench.parameters()["bits"], random.Random(random.getrandbits(32))


async def check_quiet(dut):
    for _ in range(3):
        dut.o__ready.value = 1
        await ReadOnly()
        assert not dut.o__valid.value, "a step too many"
        await RisingEdge(dut.clk)


def random_patterns(rng, bits):
    yield from patterns(rng, 1 << bits, 1)
    # Any distance, so that addresses wrap.
    for _ in range(6):
        yield Pattern(rng.randint(1, 6), rng.randint(1, 6), *(rng.getrandbits(32) for _ in range(3)))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_steps(dut):
    bits, rng = await start(dut)
    for turn, pattern in enumerate(random_patterns(rng, bits)):
        await begin(dut, pattern)
        expected = steps(pattern, bits)
        name = list(bench.PATTERNS)[turn % len(bench.PATTERNS)]
        taken = await bench.receive(dut, "o", len(expected), bench.PATTERNS[name](rng.getrandbits(32)))
        assert [split(step_layout(bits), word) for word in taken] == [step._asdict() for step in expected], pattern
        await check_quiet(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_longest_shapes(dut):
    """65535 rows and 65535 columns; a step every cycle, the first the cycle after start."""
    bits, _ = await start(dut)
    for pattern in (Pattern(1, 65535, 5, 3, 7), Pattern(65535, 1, 5, 3, 7), Pattern(255, 257, 1, 600, 2)):
        dut.o__ready.value = 1
        await begin(dut, pattern)
        taken = []
        for _ in range(pattern.rows * pattern.cols):
            await ReadOnly()
            assert dut.o__valid.value
            taken.append(int(dut.o__payload.value))
            await RisingEdge(dut.clk)
        ours = np.array(taken)
        assert np.array_equal(ours & (1 << bits) - 1, addresses(pattern, bits).ravel())
        assert (ours >> bits).tolist() == [last_of_row | last << 1 for last_of_row, last in ends(pattern)]
        await check_quiet(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_empty_and_reset(dut):
    bits, rng = await start(dut)
    for pattern in EMPTY:
        await begin(dut, pattern)
        await check_quiet(dut)
    for cycles in range(1, 14):
        await begin(dut, Pattern(4, 4, 0, 4, 1))
        dut.o__ready.value = rng.randrange(2)
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        await bench.reset(dut)
        await check_quiet(dut)
    await begin(dut, Pattern(3, 2, 1, 4, 1))
    taken = await bench.receive(dut, "o", 6)
    assert [split(step_layout(bits), word)["address"] for word in taken] == [1, 2, 5, 6, 9, 10]


@pytest.mark.parametrize("bits", [8, 32])
def test_walk(bits):
    bench.run(Walk(bits), __file__, f"walk_{bits}", parameters={"bits": bits})


@pytest.mark.parametrize("bits", [0, 33])
def test_illegal_parameters(bits):
    with pytest.raises(ValueError):
        Walk(bits)


def test_golden_is_two_loops():
    """And where the machine's model looks for its elements."""
    for pattern in [*random_patterns(random.Random(1), 12), *EMPTY]:
        expected = [
            ((pattern.at + i * pattern.row + j * pattern.col) % 2**32, int(j + 1 == pattern.cols),
             int((i + 1, j + 1) == (pattern.rows, pattern.cols)))
            for i in range(pattern.rows) for j in range(pattern.cols)
        ]  # fmt: skip
        assert [tuple(step) for step in steps(pattern)] == expected
        if expected:
            whole = Machine._grid(pattern.at, pattern.row, pattern.col, pattern.rows, pattern.cols)
            assert np.array_equal(whole % 2**32, addresses(pattern))
