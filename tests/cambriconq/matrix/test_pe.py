import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.cambriconq.matrix.pe import PRODUCT_OFFSET, nibble_value, offset_product

SIGNS = [(False, False), (True, False), (False, True), (True, True)]


class Driver:
    """Follows both sets and checks the product in every cycle after the first."""

    def __init__(self, dut):
        self.dut = dut
        self.shadow, self.active, self.due = [None] * 4, [None] * 4, None

    async def cycle(self, *, line=0, load=0, swap=0, select=0, a=0, signs=(False, False)):
        dut = self.dut
        dut.line.value, dut.load.value, dut.swap.value = line, load, int(swap)
        dut.select.value, dut.a.value = select, a
        dut.a_signed.value, dut.w_signed.value = map(int, signs)
        await ReadOnly()
        if self.due is not None:
            assert int(dut.product.value) == self.due
        w = self.active[select.bit_length() - 1] if select else 0
        self.due = None if w is None else int(offset_product(a, w, *signs))
        if swap:
            self.active = list(self.shadow)
        self.shadow = [line if load >> plane & 1 else held for plane, held in enumerate(self.shadow)]
        await RisingEdge(dut.clk)


async def begin(dut):
    for port in ("line", "load", "swap", "select", "a", "a_signed", "w_signed"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return Driver(dut), random.Random(random.getrandbits(32))


@cocotb.test()
async def bench_every_product(dut):
    """All pairs of nibbles, signs and planes."""
    pe, _ = await begin(dut)
    for w in range(16):
        for plane in range(4):
            await pe.cycle(line=(w + 5 * plane) % 16, load=1 << plane)
        await pe.cycle(swap=1)
        for plane in range(4):
            for signs in SIGNS:
                for a in range(16):
                    await pe.cycle(select=1 << plane, a=a, signs=signs)
    await pe.cycle()


@cocotb.test()
async def bench_random_cycles(dut):
    """Loads, swaps and products at once, in any mixture; several planes loaded with one line; no plane selected; reset."""
    pe, rng = await begin(dut)
    for _ in range(6000):
        pattern = rng.choice([0, rng.getrandbits(4)])
        dut.rst.value = int(rng.random() < 0.02)
        await pe.cycle(
            line=rng.getrandbits(4),
            load=pattern,
            swap=rng.random() < 0.2,
            select=rng.choice([0, 1, 2, 4, 8]),
            a=rng.getrandbits(4),
            signs=rng.choice(SIGNS),
        )


def test_pe():
    from nibblecore.hdl.cambriconq.matrix.pe import Pe

    bench.run(Pe(), __file__, "cambriconq_pe_bench")


def test_offsets():
    """Hardware and twin agree on them, and no output leaves 0..225."""
    from nibblecore.hdl.cambriconq.matrix.pe import product_offset

    nibbles = np.arange(16)
    for signs in SIGNS:
        assert product_offset(*signs) == PRODUCT_OFFSET[signs]
        products = offset_product(nibbles[:, None], nibbles, *signs)
        assert products.min() >= 0 and products.max() <= 225


def test_golden_nibbles():
    assert nibble_value(range(16), False).tolist() == list(range(16))
    assert nibble_value(range(16), True).tolist() == [*range(8), *range(-8, 0)]
    with pytest.raises(ValueError, match="outside"):
        nibble_value(16, True)
