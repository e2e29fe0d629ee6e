import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import Timer
from nibblecore.sim.golden.arith.nibble_mac import lanes_of, nibble_mac

SIGNS = [(a, w) for a in (0, 1) for w in (0, 1)]


async def check(dut, a_lanes, w_lanes, *, eight_bit, a_signed, w_signed):
    expected = nibble_mac(a_lanes, w_lanes, eight_bit=eight_bit, a_signed=a_signed, w_signed=w_signed).tolist()
    weights = 16 ** np.arange(4)
    dut.eight_bit.value, dut.a_signed.value, dut.w_signed.value = int(eight_bit), a_signed, w_signed
    for a, w, product in zip((a_lanes @ weights).tolist(), (w_lanes @ weights).tolist(), expected, strict=True):
        dut.a.value, dut.w.value = a, w
        await Timer(1, "ns")
        assert dut.product.value.to_signed() == product, f"a {a:#06x} w {w:#06x}"


@cocotb.test()
async def bench_every_eight_bit_pair(dut):
    pairs = np.arange(1 << 16)
    for a_signed, w_signed in SIGNS:
        await check(dut, *lanes_of(pairs & 255, pairs >> 8), eight_bit=True, a_signed=a_signed, w_signed=w_signed)


@cocotb.test()
async def bench_every_nibble_pair_in_each_lane(dut):
    pairs = np.arange(256)
    for lane in range(4):
        a, w = np.zeros((256, 4), int), np.zeros((256, 4), int)
        a[:, lane], w[:, lane] = pairs & 15, pairs >> 4
        for a_signed, w_signed in SIGNS:
            await check(dut, a, w, eight_bit=False, a_signed=a_signed, w_signed=w_signed)


@cocotb.test()
async def bench_random_words(dut):
    rng = np.random.default_rng(random.getrandbits(32))
    for eight_bit in (False, True):
        for a_signed, w_signed in SIGNS:
            corners = rng.choice([0, 7, 8, 15], (2, 500, 4))
            words = np.concatenate([corners, rng.integers(0, 16, (2, 1500, 4))], axis=1)
            await check(dut, *words, eight_bit=eight_bit, a_signed=a_signed, w_signed=w_signed)


def test_nibble_mac():
    from nibblecore.hdl.arith.nibble_mac import NibbleMac

    bench.run(NibbleMac(), __file__, "nibble_mac")


@pytest.mark.parametrize("a_signed, w_signed", SIGNS)
def test_golden_is_plain_multiplication(a_signed, w_signed):
    values = np.arange(256)
    a, w = (v.ravel() for v in np.meshgrid(values, values))
    integers = [v.astype(np.int8).astype(int) if is_signed else v for v, is_signed in ((a, a_signed), (w, w_signed))]
    product = nibble_mac(*lanes_of(a, w), eight_bit=True, a_signed=a_signed, w_signed=w_signed)
    assert (product == integers[0] * integers[1]).all()


def test_golden_sums_four_lanes():
    rng = np.random.default_rng(1)
    a, w = rng.integers(-8, 8, (2, 100, 4))
    product = nibble_mac(a & 15, w & 15, eight_bit=False, a_signed=True, w_signed=True)
    assert (product == [sum(int(x) * int(y) for x, y in zip(*row, strict=True)) for row in zip(a, w, strict=True)]).all()
