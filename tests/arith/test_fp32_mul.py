import bench
import cocotb
import fp32_vectors
import lanes
import numpy as np
from nibblecore.sim.golden.arith.fp32_mul import fp32_mul

COUNT = 120_000


@cocotb.test()
async def bench_weighted_vectors(dut):
    vectors = await lanes.start(dut)
    a, b = fp32_vectors.factors(np.random.default_rng(bench.parameters()["seed"]), COUNT)
    got = await vectors.run(bench.always(), a=a, b=b)
    lanes.compare(got["o"], fp32_mul(a, b), a=a, b=b)


@cocotb.test()
async def bench_every_special_pair(dut):
    vectors = await lanes.start(dut)
    a, b = fp32_vectors.every_special_pair()
    got = await vectors.run(bench.always(), a=a, b=b)
    lanes.compare(got["o"], fp32_mul(a, b), a=a, b=b)


@cocotb.test()
async def bench_idle_patterns_and_reset(dut):
    vectors = await lanes.start(dut)
    rng = np.random.default_rng(bench.parameters()["seed"] + 1)
    for seed, pattern in enumerate(bench.PATTERNS.values()):
        a, b = fp32_vectors.factors(rng, 800)
        got = await vectors.run(pattern(seed), a=a, b=b)
        lanes.compare(got["o"], fp32_mul(a, b), a=a, b=b)
        await vectors.check_reset()


def test_fp32_mul():
    from nibblecore.hdl.arith.fp32_mul import Fp32Mul

    block = lanes.Lanes(Fp32Mul)
    bench.run(block, __file__, "fp32_mul_lanes", parameters={**block.parameters, "seed": 1})


def test_golden_is_the_rounded_exact_product():
    """Against float64, which holds every product of two 24-bit significands exactly, and rounds it once."""
    rng = np.random.default_rng(1)
    for _ in range(10):
        a, b = fp32_vectors.factors(rng, 1_000_000)
        with np.errstate(all="ignore"):
            wide = (a.view(np.float32).astype(np.float64) * b.view(np.float32).astype(np.float64)).astype(np.float32)
        expected = np.where(np.isnan(wide), np.uint32(0x7FC00000), wide.view(np.uint32))
        lanes.compare(fp32_mul(a, b), expected, a=a, b=b)


def test_vectors_are_weighted():
    """Each of the hard cases makes up a share of what the other tests see."""
    a, b = fp32_vectors.factors(np.random.default_rng(2), 100_000)
    product = fp32_mul(a, b)
    exponent = (product >> 23) & 255
    with np.errstate(invalid="ignore"):
        wide = a.view(np.float32).astype(np.float64) * b.view(np.float32).astype(np.float64)
    subnormal = (exponent == 0) & (product << 1 != 0)
    operands = np.minimum((a >> 23) & 255, (b >> 23) & 255), np.maximum((a >> 23) & 255, (b >> 23) & 255)
    shares = {
        "ties": ((wide.view(np.uint64) & np.uint64(2**29 - 1)) == 2**28)[(exponent > 0) & (exponent < 255)].mean(),
        "subnormal ties": (np.abs(wide[subnormal] * 2.0**149 % 1) == 0.5).mean(),
        "subnormal": subnormal.mean(),
        "underflow": ((product << 1 == 0) & (wide != 0)).mean(),
        "overflow": ((exponent == 255) & (operands[1] < 255)).mean(),
        "subnormal factor": ((operands[0] == 0) & (exponent > 0) & (exponent < 255)).mean(),
    }
    assert all(share > 0.005 for share in shares.values()), shares
