import random
from fractions import Fraction

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.cambriconq.matrix.dequantizer import dequantize

ROWS = 4


class Driver:
    """Drives rounds and checks every output in every cycle."""

    def __init__(self, dut, rng):
        self.dut, self.rng, self.latency = dut, rng, bench.parameters()["latency"]
        self.forget()

    def forget(self):
        self.due: list[tuple[int, str] | None] = [None] * self.latency

    async def cycle(self, *, i_valid, values, row=None):
        """One cycle; the block reads `row` in it, none if it is None."""
        dut = self.dut
        q, e_a, e_w = values
        dut.i_valid.value = int(i_valid)
        dut.i.value, dut.e_a.value, dut.e_w.value = bench.pack(q, 38), int(e_a), bench.pack(e_w, 8)
        await ReadOnly()
        due = self.due.pop(0)
        assert int(dut.o_valid.value) == (due is not None)
        if due is not None:
            assert (int(dut.o_row.value), hex(int(dut.o.value))) == due
        self.due.append(None if row is None else (row, hex(int(dequantize(q[row], e_a, e_w[row])))))
        await RisingEdge(dut.clk)

    async def round(self, values, *, malformed=False):
        """A round; what is read already, or not yet valid, may be anything. With `malformed`, more ``i_valid`` than there should be."""
        for row in range(ROWS):
            await self.cycle(i_valid=row == 0 or malformed, values=values, row=row)
            q, e_a, e_w = values
            values = [*random_values(self.rng)[0][: row + 1], *q[row + 1 :]], e_a, e_w

    async def idle(self, count):
        for _ in range(count):
            await self.cycle(i_valid=False, values=random_values(self.rng))


def random_values(rng):
    """Integers of all lengths, ties among them; exponents that reach every part of the format's range."""
    length = rng.integers(1, 38, ROWS)
    q = rng.integers(-(2**37), 2**37, ROWS) >> (37 - length)
    kind = rng.integers(4, size=ROWS)
    # Ties of the rounding, at and around the half, and the corners.
    step = 2 ** np.maximum(length - 24, 1)
    q = np.where(kind == 1, (q // step) * step + step // 2 + rng.integers(-1, 2, ROWS), q)
    q = np.where(kind == 2, rng.choice([0, 1, -1, 2**37 - 1, -(2**37), 1 - 2**37, 2**36, -(2**36)], ROWS), q)
    q = np.clip(q, -(2**37), 2**37 - 1)
    e_a = int(rng.choice([rng.integers(-128, 128), -128, 127, -75, 50]))
    e_w = np.clip(
        rng.choice([rng.integers(-128, 128), -e_a, -149 - 20 - e_a, 127 - 30 - e_a]) + rng.integers(-9, 10, ROWS), -128, 127
    )
    return q.tolist(), e_a, e_w.tolist()


async def begin(dut):
    dut.i_valid.value = dut.i.value = dut.e_a.value = dut.e_w.value = 0
    await bench.start(dut)
    rng = np.random.default_rng(random.getrandbits(32))
    return Driver(dut, rng), rng


@cocotb.test()
async def bench_back_to_back(dut):
    """A number every cycle."""
    driver, rng = await begin(dut)
    for _ in range(6000):
        await driver.round(random_values(rng))
    await driver.idle(driver.latency + 2)


@cocotb.test()
async def bench_every_exponent(dut):
    """All sums of exponents with the corners of the integer."""
    driver, _ = await begin(dut)
    corners = [1, -1, 2**37 - 1, -(2**37)], [2**24 + 1, 2**24 + 3, -(2**25) - 2, 0x1FFFFFF]
    for total in range(-256, 255):
        for q in corners:
            e_a = max(-128, total - 127)
            await driver.round((q, e_a, [total - e_a] * ROWS))
    await driver.idle(driver.latency + 2)


@cocotb.test()
@cocotb.parametrize(pattern=list(bench.PATTERNS))
async def bench_idle(dut, pattern):
    driver, rng = await begin(dut)
    busy = bench.PATTERNS[pattern](int(rng.integers(99)))
    for _ in range(300):
        while not next(busy):
            await driver.idle(1)
        await driver.round(random_values(rng))
    await driver.idle(driver.latency + 2)


@cocotb.test()
async def bench_early_results_are_ignored(dut):
    driver, rng = await begin(dut)
    for number in range(200):
        await driver.round(random_values(rng), malformed=bool(number % 3))
        await driver.idle(int(rng.integers(0, 3)))


@cocotb.test()
async def bench_reset_mid_flow(dut):
    """A reset at any point of a round: nothing of before comes out, and the next round begins with row 0."""
    driver, rng = await begin(dut)
    for number in range(60):
        values = random_values(rng)
        for row in range(number % 9):
            await driver.cycle(i_valid=row in (0, 4), values=values, row=row % ROWS)
        dut.rst.value, dut.i_valid.value = 1, number % 2
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        driver.forget()
        await driver.idle(number % 4)
        await driver.round(random_values(rng))
        await driver.idle(driver.latency + 1)


def test_dequantizer():
    from nibblecore.hdl.cambriconq.matrix.dequantizer import ROWS as rows
    from nibblecore.hdl.cambriconq.matrix.dequantizer import Dequantizer

    assert rows == ROWS
    bench.run(Dequantizer(), __file__, "dequantizer_bench", parameters={"latency": Dequantizer.LATENCY})


def nearest(exact: Fraction) -> float:
    """binary32 nearest to a rational, by exact arithmetic."""
    if abs(exact) >= Fraction(2) ** 128 - Fraction(2) ** 103:
        return float("inf") if exact > 0 else -float("inf")
    exponent = -149
    while abs(exact) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    return float(round(exact / Fraction(2) ** exponent) * Fraction(2) ** exponent)


def test_golden_is_the_nearest_number():
    rng = np.random.default_rng(4)
    for _ in range(1500):
        q, e_a, e_w = random_values(rng)
        for value, e in zip(q, e_w, strict=True):
            got = dequantize(value, e_a, e).view(np.float32)
            assert float(got) == nearest(value * Fraction(2) ** (e_a + e)), (value, e_a, e)


def test_golden_refuses_more_than_38_bits():
    with pytest.raises(ValueError, match="38"):
        dequantize(2**37, 0, 0)
