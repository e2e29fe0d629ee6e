from fractions import Fraction
from math import floor

import bench
import cocotb
import fp32_vectors
import lanes
import numpy as np
from nibblecore.sim.golden.arith.fp32_to_fixed import fp32_to_fixed
from numpy.typing import NDArray

COUNT = 120_000


def vectors(rng: np.random.Generator, count: int) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """Half of them with results within the clip or little beyond, among these ties; some subnormal; the rest anything."""
    part = count // 4
    nibbles = rng.integers(0, 4, count)
    exponent = rng.integers(-128, 128, count)
    # n + 1/2, and its neighbours, times 2^exponent.
    bits = 4 * nibbles[:part] + 4
    n = rng.integers(0, 2**bits)
    tie = np.ldexp((n + 0.5).astype(np.float32), np.clip(exponent[:part], -120, 108)).astype(np.float32).view(np.uint32)
    exponent[:part] = np.clip(exponent[:part], -120, 108)
    ties = (tie + rng.integers(-1, 2, part).astype(np.uint32)) ^ (fp32_vectors.signs(rng, part) << 31)
    near = fp32_vectors.join(
        fp32_vectors.signs(rng, part),
        exponent[part : 2 * part] + 127 + rng.integers(-3, 18, part),
        fp32_vectors.fractions(rng, part),
    )
    small = fp32_vectors.numbers(rng, part, 0, 3)
    exponent[2 * part : 3 * part] = rng.integers(-128, -110, part)
    i = np.concatenate([ties, near, small, fp32_vectors.patterns(rng, count - 3 * part)])
    order = rng.permutation(count)
    return i[order], exponent[order], nibbles[order]


async def check(driver, i, exponent, nibbles, pattern):
    got = await driver.run(pattern, i=i, exponent=exponent, nibbles=nibbles)
    expected, special = fp32_to_fixed(i, exponent, 4 * nibbles + 4)
    lanes.compare(got["o"], expected & 0xFFFF, i=i, exponent=exponent, nibbles=nibbles)
    lanes.compare(got["special"], special, i=i, exponent=exponent, nibbles=nibbles)


@cocotb.test()
async def bench_weighted_vectors(dut):
    await check(await lanes.start(dut), *vectors(np.random.default_rng(bench.parameters()["seed"]), COUNT), bench.always())


@cocotb.test()
async def bench_every_special_number(dut):
    both = np.concatenate([fp32_vectors.SPECIAL, fp32_vectors.SPECIAL | np.uint32(1 << 31)])
    i, exponent, nibbles = (axis.ravel() for axis in np.meshgrid(both, np.arange(-128, 128), np.arange(4)))
    await check(await lanes.start(dut), i, exponent, nibbles, bench.always())


@cocotb.test()
async def bench_idle_patterns_and_reset(dut):
    driver = await lanes.start(dut)
    for seed, pattern in enumerate(bench.PATTERNS.values()):
        await check(driver, *vectors(np.random.default_rng(seed), 800), pattern(seed))
        await driver.check_reset()


def test_fp32_to_fixed():
    from nibblecore.hdl.arith.fp32_to_fixed import Fp32ToFixed

    block = lanes.Lanes(Fp32ToFixed)
    bench.run(block, __file__, "fp32_to_fixed_lanes", parameters={**block.parameters, "seed": 1})


def test_golden_rounds_half_away_from_zero():
    """Against exact fractions."""
    i, exponent, nibbles = vectors(np.random.default_rng(1), 20_000)
    values, special = fp32_to_fixed(i, exponent, 4 * nibbles + 4)
    for x, e, n, got, flag in zip(
        i.view(np.float32).tolist(), exponent.tolist(), nibbles.tolist(), values.tolist(), special.tolist(), strict=True
    ):
        limit = 2 ** (4 * n + 3) - 1
        if not np.isfinite(x):
            assert flag and got == (0 if np.isnan(x) else limit if x > 0 else -limit)
            continue
        magnitude = min(floor(Fraction(abs(x)) / Fraction(2) ** e + Fraction(1, 2)), limit)
        assert not flag and got == (magnitude if x >= 0 else -magnitude), f"{x} · 2^−{e}, {4 * n + 4} bits"


def test_vectors_are_weighted():
    i, exponent, nibbles = vectors(np.random.default_rng(2), 100_000)
    values, special = fp32_to_fixed(i, exponent, 4 * nibbles + 4)
    with np.errstate(invalid="ignore"):
        exact = np.nan_to_num(np.ldexp(i.view(np.float32).astype(np.float64), -exponent))
    limit = 2 ** (4 * nibbles + 3) - 1
    inside = (np.abs(exact) < limit + 0.5) & (values != 0)
    assert inside.mean() > 0.3 and (inside & (np.abs(exact) % 1 == 0.5)).mean() > 0.03
    assert (~special & (np.abs(exact) > limit + 0.5)).mean() > 0.1 and special.mean() > 0.001
