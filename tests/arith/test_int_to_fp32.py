from fractions import Fraction

import bench
import cocotb
import lanes
import numpy as np
import pytest
from nibblecore.sim.golden.arith.int_to_fp32 import int_to_fp32
from numpy.typing import NDArray

COUNT = 100_000


def integers(rng, width, count):
    """Every length; many with few significant bits, whose roundings tie; the ends of the range."""
    length = rng.integers(0, width, count)
    magnitude = rng.integers(0, 2 ** (width - 1), count) >> (width - 1 - length)
    drop = rng.integers(0, width - 1, count)
    style = rng.integers(0, 4, count)
    short = (magnitude >> drop) << drop
    half = short | (np.int64(1) << np.maximum(drop - 1, 0))
    magnitude = np.select([style == 0, style == 1, style == 2], [short, half, half - 1], magnitude)
    values = np.where(rng.integers(0, 2, count) == 1, -magnitude, magnitude)
    values[:6] = [0, 1, -1, -(2 ** (width - 1)), 2 ** (width - 1) - 1, 1 - 2 ** (width - 1)]
    return values


def exponents(rng, values, count):
    """A third anywhere, a third where the results become subnormal and vanish, a third where they overflow."""
    length = np.ceil(np.log2(np.abs(values) + 1.0)).astype(int)
    places = [rng.integers(-512, 512, count), rng.integers(-152, -122, count) - length, rng.integers(126, 131, count) - length]
    near = np.choose(np.arange(count) % 3, places)
    return np.clip(near, -512, 511)


def vectors(seed: int, width: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    values = integers(rng, width, count)
    return values, exponents(rng, values, count)


async def check(driver, width, values, exponent, pattern):
    got = await driver.run(pattern, i=values, exponent=exponent)
    lanes.compare(got["o"], int_to_fp32(values, exponent), i=values, exponent=exponent)


@cocotb.test()
async def bench_weighted_vectors(dut):
    p = bench.parameters()
    await check(await lanes.start(dut), p["width"], *vectors(p["seed"], p["width"], COUNT), bench.always())


@cocotb.test()
async def bench_every_exponent_at_the_ends(dut):
    p = bench.parameters()
    top = 2 ** (p["width"] - 1)
    values, exponent = np.meshgrid([1, -1, 3, top - 1, -top, 1 - top, 2**24 + 1, 2**25 - 1, 0], np.arange(-512, 512))
    await check(await lanes.start(dut), p["width"], values.ravel(), exponent.ravel(), bench.always())


@cocotb.test()
async def bench_idle_patterns_and_reset(dut):
    p = bench.parameters()
    driver = await lanes.start(dut)
    for seed, pattern in enumerate(bench.PATTERNS.values()):
        await check(driver, p["width"], *vectors(seed, p["width"], 800), pattern(seed))
        await driver.check_reset()


@pytest.mark.parametrize("width", [38, 48])
def test_int_to_fp32(width):
    from nibblecore.hdl.arith.int_to_fp32 import IntToFp32

    block = lanes.Lanes(lambda: IntToFp32(width))
    bench.run(block, __file__, f"int{width}_to_fp32_lanes", parameters={**block.parameters, "width": width, "seed": 1})


def nearest(value):
    """The pattern of the float32 nearest to a non-negative fraction, by search among all patterns, which are in the order of their values."""
    low, high = 0, 0x7F800000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exact(middle) <= value else (low, middle)
    below, above = value - exact(low), exact(high) - value
    return high if above < below or (above == below and high % 2 == 0) else low


def exact(pattern):
    """Infinity counts as the number after the largest."""
    fraction, exponent = pattern % 2**23, pattern >> 23
    return Fraction(fraction + (2**23 if exponent else 0)) * Fraction(2) ** (max(exponent, 1) - 150)


@pytest.mark.parametrize("width", [38, 48])
def test_golden_is_the_nearest(width):
    """Against exact fractions."""
    values, exponent = vectors(width, width, 3000)
    for value, power, got in zip(values.tolist(), exponent.tolist(), int_to_fp32(values, exponent).tolist(), strict=True):
        magnitude = min(abs(value) * Fraction(2) ** power, exact(0x7F800000))
        assert got == nearest(magnitude) | (0x80000000 if value < 0 else 0), f"{value} · 2^{power}"


def test_golden_refuses_what_it_would_round_twice():
    with pytest.raises(ValueError, match="53 bits"):
        int_to_fp32(2**53 + 1, 0)


@pytest.mark.parametrize("arguments", [(25,), (65,), (48, 1), (48, 11)])
def test_refuses_illegal_widths(arguments):
    from nibblecore.hdl.arith.int_to_fp32 import IntToFp32

    with pytest.raises(ValueError, match="must be"):
        IntToFp32(*arguments)
