import bench
import cocotb
import fp32_vectors
import lanes
import numpy as np
import pytest
from nibblecore.sim.golden.arith.fp32_rsqrt import fp32_rsqrt, significand_rsqrt

COUNT = 120_000


def operands(rng, count):
    """Positive numbers of every exponent, ends of segments, subnormal numbers, and any pattern."""
    part = count // 4
    edge = (rng.integers(0, 2**7, part) << 16) + rng.integers(-3, 4, part)
    return np.concatenate(
        [
            rng.integers(0, 0x7F800001, part, np.uint32),
            fp32_vectors.join(np.zeros(part, int), rng.integers(1, 255, part), edge & (2**23 - 1)),
            rng.integers(0, 2**23, part, np.uint32) >> rng.integers(0, 23, part, np.uint32),
            fp32_vectors.patterns(rng, count - 3 * part),
        ]
    )


@cocotb.test()
async def bench_weighted_vectors(dut):
    vectors = await lanes.start(dut)
    i = operands(np.random.default_rng(bench.parameters()["seed"]), COUNT)
    got = await vectors.run(bench.always(), i=i)
    lanes.compare(got["o"], fp32_rsqrt(i), i=i)


@cocotb.test()
async def bench_every_special_number(dut):
    vectors = await lanes.start(dut)
    i = np.concatenate([fp32_vectors.SPECIAL, fp32_vectors.SPECIAL | np.uint32(1 << 31), np.arange(256, dtype=np.uint32) << 23])
    got = await vectors.run(bench.always(), i=i)
    lanes.compare(got["o"], fp32_rsqrt(i), i=i)


@cocotb.test()
async def bench_idle_patterns_and_reset(dut):
    vectors = await lanes.start(dut)
    rng = np.random.default_rng(bench.parameters()["seed"] + 1)
    for seed, pattern in enumerate(bench.PATTERNS.values()):
        i = operands(rng, 800)
        got = await vectors.run(pattern(seed), i=i)
        lanes.compare(got["o"], fp32_rsqrt(i), i=i)
        await vectors.check_reset()


def test_fp32_rsqrt():
    from nibblecore.hdl.arith.fp32_rsqrt import Fp32Rsqrt

    block = lanes.Lanes(Fp32Rsqrt)
    bench.run(block, __file__, "fp32_rsqrt_lanes", parameters={**block.parameters, "seed": 1})


@pytest.mark.parametrize("parity", [0, 1])
def test_golden_is_within_one_ulp(parity):
    """Every significand. All results but 1 itself are in [1/2, 1), where a unit in the last place is 2^−24."""
    significand = np.arange(2**23, 2**24)
    got = significand_rsqrt(significand, parity)
    assert got.min() >= 2**23 and got.max() <= 2**24
    # A float64 is 2^28 times as fine as what it is compared with.
    worst = np.abs(got - 2**24 / np.sqrt(significand / 2**23 * 2**parity)).max()
    assert 0.5 < worst < 0.99, f"{worst} ulp"


def test_golden_over_all_exponents():
    rng = np.random.default_rng(1)
    i = operands(rng, 400_000)
    regular = (i > 0) & (i < 0x7F800000)
    got = fp32_rsqrt(i)
    exact = 1 / np.sqrt(i[regular].view(np.float32).astype(np.float64))
    ulp = np.ldexp(1.0, np.frexp(exact)[1] - 24)
    assert (np.abs(got[regular].view(np.float32) - exact) <= ulp).all()
    assert (got[~regular] == np.where((i[~regular] << 1 == 0) | (i[~regular] == 0x7F800000), 0, 0x7FC00000)).all()


def test_golden_special_values():
    assert fp32_rsqrt([0, 0x80000000, 0x7F800000, 0xFF800000, 0x7F800001, 0xBF800000, 0x80000001]).tolist() == [0, 0, 0] + 4 * [
        0x7FC00000
    ]
    powers = np.float32(4.0) ** np.arange(-60, 60, dtype=np.float32)
    assert (fp32_rsqrt(powers.view(np.uint32)).view(np.float32) == 1 / np.sqrt(powers)).all()


def test_tables_of_both_sides_agree():
    """The coefficients come from integers there, from float64 here."""
    from nibblecore.hdl.arith.fp32_rsqrt import _coefficients
    from nibblecore.sim.golden.arith.fp32_rsqrt import _TABLES

    there = np.array(_coefficients()) - [4, 0, 0]
    here = np.concatenate([np.stack(table[2:], axis=1) for table in _TABLES])
    assert (there == here).all()
