"""The accumulator alone, for any sums; whole products are in test_pe_array."""

import random
from itertools import pairwise

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.cambriconq.matrix.accumulator import accumulate, schedule

SUM_BITS = 15
WIDTHS = [(a, w) for a in range(1, 5) for w in range(1, 5)]


class Driver:
    """Follows the passes and checks the result and its validity in every cycle."""

    def __init__(self, dut):
        self.dut, self.now, self.sums, self.steps = dut, 0, [], []
        self.latency = bench.parameters()["latency"]
        self.due, self.shown = {}, None

    async def cycle(self, value, step, *, valid=True):
        dut = self.dut
        dut.i_valid.value, dut.i_sum.value, dut.i_step.value = int(valid), value, bench.pack(map(int, step), 1)
        await ReadOnly()
        due = self.due.pop(self.now, None)
        assert int(dut.o_valid.value) == (due is not None)
        self.shown = self.shown if due is None else due
        if self.shown is not None:
            assert int(dut.o.value.to_signed()) == self.shown
        if valid:
            if step[0]:
                self.sums, self.steps = [], []
            self.sums.append(value)
            self.steps.append(step)
            if step[2]:
                self.due[self.now + self.latency] = accumulate(self.sums, [*((*s[:2], False) for s in self.steps[:-1]), step])[0]
        await RisingEdge(dut.clk)
        self.now += 1


def steps_of(p_a, p_w, g):
    return [(pair.first, pair.shift, pair.last) for pair in schedule(p_a, p_w, g)]


async def begin(dut):
    dut.i_valid.value = dut.i_sum.value = dut.i_step.value = 0
    await bench.start(dut)
    return Driver(dut), random.Random(random.getrandbits(32))


def any_sum(rng):
    ends = [-(2 ** (SUM_BITS - 1)), 2 ** (SUM_BITS - 1) - 1, -1, 0, 1]
    return rng.choice(ends) if rng.random() < 0.3 else rng.randrange(ends[0], ends[1] + 1)


@cocotb.test()
@cocotb.parametrize(pattern=list(bench.PATTERNS))
async def bench_passes(dut, pattern):
    """Passes of every shape, end to end, with idle cycles that say anything."""
    accumulator, rng = await begin(dut)
    busy = bench.PATTERNS[pattern](rng.getrandbits(16))
    for _ in range(250):
        p_a, p_w = rng.choice(WIDTHS)
        for step in steps_of(p_a, p_w, rng.randint(1, 4 // p_w)):
            while not next(busy):
                await accumulator.cycle(any_sum(rng), [rng.getrandbits(1) for _ in range(3)], valid=False)
            await accumulator.cycle(any_sum(rng), step)
    for _ in range(accumulator.latency + 1):
        await accumulator.cycle(0, (0, 0, 0), valid=False)


@cocotb.test()
async def bench_any_steps(dut):
    """No schedule: totals wrap to 38 bits; several results of one pass."""
    accumulator, rng = await begin(dut)
    await accumulator.cycle(0, (1, 0, 0))
    for _ in range(5000):
        await accumulator.cycle(
            any_sum(rng), (rng.random() < 0.05, rng.getrandbits(1), rng.random() < 0.3), valid=rng.random() < 0.8
        )


@cocotb.test()
async def bench_reset_mid_flow(dut):
    """What is under way does not come out; the next pass begins anew."""
    accumulator, rng = await begin(dut)
    for number in range(100):
        program = steps_of(4, 2, 2) * 2
        for step in program[: number % len(program) + 1]:
            await accumulator.cycle(any_sum(rng), step)
        dut.rst.value, dut.i_valid.value, dut.i_step.value = 1, number % 2, 4
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        accumulator.due, accumulator.shown, accumulator.now = {}, None, accumulator.now + 1
        for _ in range(number % 4):
            await accumulator.cycle(any_sum(rng), (0, 0, 0), valid=False)
        p_a, p_w = rng.choice(WIDTHS)
        for step in steps_of(p_a, p_w, 1):
            await accumulator.cycle(any_sum(rng), step)


def test_accumulator():
    from nibblecore.hdl.cambriconq.matrix.accumulator import Accumulator

    bench.run(Accumulator(SUM_BITS), __file__, "accumulator_bench", parameters={"latency": Accumulator.LATENCY})


@pytest.mark.parametrize("p_a, p_w", WIDTHS)
def test_schedule_makes_products(p_a, p_w):
    """Every pair once, planes within the four, one shift for every step down in weight; the sums give Σ a·w, with headroom in 38 bits."""
    rng = np.random.default_rng(p_a * 4 + p_w)
    for g in range(1, 4 // p_w + 1):
        pairs = schedule(p_a, p_w, g)
        assert len(pairs) == g * p_a * p_w == len({(pair.vector, pair.i, pair.j) for pair in pairs})
        assert {pair.plane for pair in pairs} == set(range(g * p_w))
        weights = [pair.i + pair.j for pair in pairs]
        assert weights == sorted(weights, reverse=True) and weights[-1] == 0
        assert [pair.shift for pair in pairs] == [False, *(low < high for high, low in pairwise(weights))]
        assert [pair.first for pair in pairs] == [True] + [False] * (len(pairs) - 1)
        assert [pair.last for pair in pairs] == [False] * (len(pairs) - 1) + [True]
        for _ in range(20):
            # Digits base 16 with the top one signed, straight from the definition.
            a, w = (
                {(v, i): int(rng.integers(-8, 8) if i == p - 1 else rng.integers(16)) for v in range(g) for i in range(p)}
                for p in (p_a, p_w)
            )
            sums = [a[pair.vector, pair.i] * w[pair.vector, pair.j] * 64 for pair in pairs]
            whole = [sum(digits[v, i] * 16**i for i in range(p)) for v in range(g) for digits, p in ((a, p_a), (w, p_w))]
            expected = 64 * sum(whole[2 * v] * whole[2 * v + 1] for v in range(g))
            assert accumulate(sums, [(pair.first, pair.shift, pair.last) for pair in pairs]) == [expected]
            assert abs(expected) <= 2**36


def test_schedule_refuses_what_planes_do_not_hold():
    for shape in ((5, 1, 1), (1, 3, 2), (1, 1, 5), (0, 1, 1), (2, 2, 0)):
        with pytest.raises(ValueError, match="no pass"):
            schedule(*shape)


def test_accumulator_refuses_wide_sums():
    from nibblecore.hdl.cambriconq.matrix.accumulator import Accumulator

    with pytest.raises(ValueError, match="sum_bits"):
        Accumulator(21)
