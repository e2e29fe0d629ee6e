import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.ltoaq.output.tensor_statistics import tensor_statistics


def random_lanes(rng, lanes):
    """Magnitudes whose largest is sometimes in one lane, sometimes in another, sometimes 2^31."""
    bits = rng.randint(0, 31)
    magnitudes = [rng.getrandbits(bits) if bits else 0 for _ in range(lanes)]
    if rng.random() < 0.02:
        magnitudes[rng.randrange(lanes)] = 2**31
    return magnitudes


async def run_tensor(dut, rng, lanes, pattern, words, depth):
    """Feeds a tensor from `clear` on and compares the results once everything has arrived."""
    magnitudes: list[int] = []
    outliers: list[int] = []
    saturations: list[int] = []
    for cycle in range(words):
        dut.clear.value = cycle == 0
        values, outlier, saturated = random_lanes(rng, lanes), rng.getrandbits(lanes), rng.getrandbits(lanes)
        i_valid, o_valid = next(pattern), next(pattern)
        dut.i_valid.value, dut.o_valid.value = i_valid, o_valid
        dut.magnitude.value, dut.outlier.value, dut.saturated.value = bench.pack(values, 32), outlier, saturated
        magnitudes += values if i_valid else []
        outliers += bench.unpack(outlier, 1, lanes) if o_valid else []
        saturations += bench.unpack(saturated, 1, lanes) if o_valid else []
        await RisingEdge(dut.clk)
    dut.clear.value = dut.i_valid.value = dut.o_valid.value = 0
    for _ in range(depth - 1):
        await RisingEdge(dut.clk)
    await ReadOnly()
    got = int(dut.x_max.value), int(dut.outliers.value), int(dut.saturations.value)
    assert got == tuple(tensor_statistics(magnitudes, outliers, saturations))
    await RisingEdge(dut.clk)


def depth():
    return max(bench.parameters()["magnitude_latency"], 2)


def idle(dut):
    for name in ("clear", "i_valid", "o_valid", "magnitude", "outlier", "saturated"):
        getattr(dut, name).value = 0


@cocotb.test()
async def bench_tensors(dut):
    """Short tensors back to back: every clear falls on values of the tensor before that are still inside."""
    p = bench.parameters()
    rng = random.Random(p["seed"])
    idle(dut)
    await bench.start(dut)
    for seed, pattern in enumerate(bench.PATTERNS.values()):
        for words in (1, 2, 3, 50):
            await run_tensor(dut, rng, p["lanes"], pattern(seed), words, depth())
            dut.i_valid.value = dut.o_valid.value = 1
            dut.magnitude.value, dut.outlier.value = (1 << 32 * p["lanes"]) - 1, (1 << p["lanes"]) - 1
            for _ in range(rng.randint(1, 4)):
                await RisingEdge(dut.clk)


@cocotb.test()
async def bench_one_value_takes_the_stated_latency(dut):
    p = bench.parameters()
    idle(dut)
    await bench.start(dut)
    for lane in range(p["lanes"]):
        dut.clear.value = dut.i_valid.value = dut.o_valid.value = 1
        dut.magnitude.value, dut.outlier.value, dut.saturated.value = 5 << 32 * lane, 1 << lane, 0
        for cycle in range(1, depth() + 1):
            await RisingEdge(dut.clk)
            dut.clear.value = dut.i_valid.value = dut.o_valid.value = 0
            await ReadOnly()
            assert int(dut.x_max.value) == (5 if cycle >= p["magnitude_latency"] else 0), f"lane {lane}, cycle {cycle}"
            assert int(dut.outliers.value) == (1 if cycle >= 2 else 0) and not int(dut.saturations.value)
        await RisingEdge(dut.clk)


@cocotb.test()
async def bench_reset_drops_what_is_inside(dut):
    p = bench.parameters()
    rng = random.Random(p["seed"])
    idle(dut)
    await bench.start(dut)
    for inside in range(1, depth() + 2):
        dut.i_valid.value = dut.o_valid.value = 1
        dut.magnitude.value, dut.outlier.value, dut.saturated.value = 1, 1, 1
        for _ in range(inside):
            await RisingEdge(dut.clk)
        idle(dut)
        dut.rst.value = 1
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        for _ in range(depth() + 1):
            await ReadOnly()
            assert (int(dut.x_max.value), int(dut.outliers.value), int(dut.saturations.value)) == (0, 0, 0)
            await RisingEdge(dut.clk)
    await run_tensor(dut, rng, p["lanes"], bench.always(), 5, depth())


@pytest.mark.parametrize("lanes", [1, 8])
def test_statistics(lanes):
    from nibblecore.hdl.ltoaq.output.tensor_statistics import TensorStatistics

    component = TensorStatistics(lanes)
    bench.run(
        component,
        __file__,
        f"statistics_{lanes}",
        parameters={"lanes": lanes, "seed": 1, "magnitude_latency": component.magnitude_latency(lanes)},
    )


def test_golden_counts():
    assert tensor_statistics([3, 2**31, 0], [1, 0, 1], [0, 0, 1]) == (2**31, 2, 1)
    assert tensor_statistics([], [], []) == (0, 0, 0)
