import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, RisingEdge
from nibblecore.hdl.cambriconq.movers.walk import Walk, step_layout
from nibblecore.sim.golden.cambriconq.machine import Machine
from nibblecore.sim.golden.cambriconq.movers.walk import Pattern, addresses, groups, steps
from places import EMPTY, begin, check_quiet, patterns, wide_patterns
from structs import split


async def start(dut):
    p = bench.parameters()
    dut.start.value, dut.shape.value, dut.place.value, dut.o__ready.value = 0, 0, 0, 0
    await bench.start(dut)
    return p["bits"], p["words"], p["unit"], random.Random(random.getrandbits(32))


def random_patterns(rng, bits):
    yield from patterns(rng, 1 << bits, 1)
    # Any distance, so that addresses wrap.
    for _ in range(6):
        yield Pattern(rng.randint(1, 6), rng.randint(1, 6), *(rng.getrandbits(32) for _ in range(3)))


def random_wide_patterns(rng, bits, words, unit):
    """Only a row's elements must be neighbours for a walk; where the row begins is free."""
    yield from wide_patterns(rng, max(1 << bits, 16 * words * unit), unit, words)
    for _ in range(6):
        yield Pattern(rng.randint(1, 6), rng.randint(1, 5 * words), rng.getrandbits(32), rng.getrandbits(32), unit)


async def run(dut, pattern, wide, rng, name):
    bits, words, unit = (bench.parameters()[key] for key in ("bits", "words", "unit"))
    layout, together = step_layout(bits, words), words if wide else 1
    expected = steps(pattern._replace(col=unit) if wide else pattern, bits, together)
    await begin(dut, pattern, wide)
    taken = await bench.receive(dut, "o", len(expected), bench.PATTERNS[name](rng.getrandbits(32)))
    assert [split(layout, word) for word in taken] == [step._asdict() for step in expected], (pattern, wide)
    await check_quiet(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_steps(dut):
    """Narrow and wide walks one after the other; of a wide one the distance between columns does not count."""
    bits, words, unit, rng = await start(dut)
    narrow = [(pattern, False) for pattern in random_patterns(rng, bits)]
    walks = [(pattern._replace(col=rng.getrandbits(32)), True) for pattern in random_wide_patterns(rng, bits, words, unit)]
    jobs = narrow + (walks if words > 1 else [])
    rng.shuffle(jobs)
    for turn, (pattern, wide) in enumerate(jobs):
        await run(dut, pattern, wide, rng, list(bench.PATTERNS)[turn % len(bench.PATTERNS)])


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_longest_shapes(dut):
    """65535 rows and 65535 columns; a step every cycle, the first the cycle after start."""
    bits, words, unit, _ = await start(dut)
    valid, payload, falling = dut.o__valid, dut.o__payload, FallingEdge(dut.clk)
    shapes = [
        (Pattern(1, 65535, 5, 3, 7), False),
        (Pattern(65535, 1, 5, 3, 7), False),
        (Pattern(255, 257, 1, 600, 2), False),
        (Pattern(1, 65535, 5, 3, unit), True),
        (Pattern(65535, words - 1, 5, 3, unit), True),
        (Pattern(255, 257, 1, 600, unit), True),
    ]
    for pattern, wide in shapes if words > 1 else shapes[:3]:
        together = groups(pattern, words if wide else 1)
        dut.o__ready.value = 1
        await begin(dut, pattern, wide)
        taken = []
        for _ in together:
            # Nothing changes within these cycles, so one look in their middle will do.
            await falling
            assert valid.value
            taken.append(int(payload.value))
        await RisingEdge(dut.clk)
        ours = np.array(taken)
        assert np.array_equal(ours & (1 << bits) - 1, addresses(pattern, bits).ravel()[[group.first for group in together]])
        ends = [(1 << group.size) - 1 | (group.last_of_row | group.last << 1) << words for group in together]
        assert (ours >> bits).tolist() == ends
        await check_quiet(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_empty_and_reset(dut):
    _, words, _, rng = await start(dut)
    modes = [False, True] if words > 1 else [False]
    for wide in modes:
        for pattern in EMPTY:
            await begin(dut, pattern, wide)
            await check_quiet(dut)
        for cycles in range(1, 14):
            await begin(dut, Pattern(4, 4 * (words if wide else 1), 0, 64, 1), wide)
            dut.o__ready.value = rng.randrange(2)
            for _ in range(cycles):
                await RisingEdge(dut.clk)
            await bench.reset(dut)
            await check_quiet(dut)
        for after in modes:
            await run(dut, Pattern(3, 2, 1, 4, 1), after, rng, "always")


@pytest.mark.parametrize("bits, words, unit", [(8, 4, 4), (5, 8, 4), (32, 2, 1), (8, 1, 1), (32, 1, 1)])
def test_walk(bits, words, unit):
    parameters = {"bits": bits, "words": words, "unit": unit}
    bench.run(Walk(bits, words, unit), __file__, f"walk_{bits}_{words}", parameters=parameters)


@pytest.mark.parametrize("bits, words", [(0, 1), (33, 1), (8, 0), (8, 6)])
def test_illegal_parameters(bits, words):
    with pytest.raises(ValueError):
        Walk(bits, words)


def test_golden_is_two_loops():
    """And where the machine's model looks for its elements."""
    for pattern in [*random_patterns(random.Random(1), 12), *EMPTY]:
        expected = [
            (
                (pattern.at + i * pattern.row + j * pattern.col) % 2**32,
                1,
                int(j + 1 == pattern.cols),
                int((i + 1, j + 1) == (pattern.rows, pattern.cols)),
            )
            for i in range(pattern.rows)
            for j in range(pattern.cols)
        ]
        assert [tuple(step) for step in steps(pattern)] == expected
        if expected:
            whole = Machine._grid(pattern.at, pattern.row, pattern.col, pattern.rows, pattern.cols)
            assert np.array_equal(whole % 2**32, addresses(pattern))


def test_golden_of_groups():
    """The elements of wide steps, one by one, are those of narrow ones, and a step that is not full ends its row."""
    assert steps(Pattern(2, 5, 3, 100, 4), words=4) == [(3, 15, 0, 0), (19, 1, 1, 0), (103, 15, 0, 0), (119, 1, 1, 1)]
    for words in (1, 2, 8):
        for pattern in [*random_wide_patterns(random.Random(words), 12, words, 4), *EMPTY]:
            wide = steps(pattern, words=words)
            one_by_one = [
                (step.address + 4 * number) % 2**32 for step in wide for number in range(words) if step.mask >> number & 1
            ]
            assert one_by_one == [step.address for step in steps(pattern)]
            assert all(step.mask == (1 << words) - 1 or step.last_of_row for step in wide)
            assert [step.last_of_row for step in wide].count(1) == pattern.rows * (pattern.cols > 0)
            assert [step.last for step in wide] == [0] * (len(wide) - 1) + [1] * (len(wide) > 0)
