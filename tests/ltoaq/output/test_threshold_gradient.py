import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.ltoaq.output.threshold_gradient import ThresholdGradient
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.golden.ltoaq.output.quantizer import quantize
from nibblecore.sim.golden.ltoaq.output.threshold_gradient import threshold_delta, threshold_gradient

ERRORS = [-128, -127, -1, 0, 1, 127]
GRADIENTS = [-(2**31), 2**31 - 1, -1, 0, 1]


def wrap(value):
    return (value + 2**63) % 2**64 - 2**63


def idle(dut):
    for name in ("clear", "i_valid", "mask", "error", "subtract", "g"):
        getattr(dut, name).value = 0


def drive(dut, rng, lanes, corners):
    """Random inputs, valid or not; returns what they contribute."""
    mask, subtract = rng.getrandbits(lanes), rng.getrandbits(lanes)
    errors = [rng.choice(ERRORS) if corners else rng.randint(-128, 127) for _ in range(lanes)]
    g = [rng.choice(GRADIENTS) if corners else rng.randint(-(2**31), 2**31 - 1) for _ in range(lanes)]
    dut.mask.value, dut.subtract.value = mask, subtract
    dut.error.value, dut.g.value = bench.pack(errors, 8), bench.pack(g, 32)
    terms = [-e * x if subtract >> i & 1 else e * x for i, (e, x) in enumerate(zip(errors, g, strict=True))]
    return sum(term for i, term in enumerate(terms) if mask >> i & 1)


async def check_sums(dut, rng, pattern, cycles, *, corners, clears):
    """Compares `sum` in every cycle with what entered `LATENCY` cycles before."""
    lanes, latency = bench.parameters()["lanes"], ThresholdGradient.LATENCY
    dut.clear.value = 1
    await RisingEdge(dut.clk)
    total, waiting = 0, [0] * latency
    for cycle in range(cycles + latency):
        contribution = drive(dut, rng, lanes, corners)
        valid = cycle < cycles and next(pattern)
        clear = clears and rng.random() < 0.05
        dut.i_valid.value, dut.clear.value = valid, clear
        await ReadOnly()
        total += waiting.pop(0)
        assert int(dut.sum.value.to_signed()) == wrap(total), f"cycle {cycle}"
        if clear:
            total, waiting = 0, [0] * (latency - 1)
        waiting.append(contribution if valid else 0)
        await RisingEdge(dut.clk)
    idle(dut)


@cocotb.test()
async def bench_sums(dut):
    idle(dut)
    await bench.start(dut)
    for seed, pattern in enumerate(bench.PATTERNS.values()):
        rng = random.Random(bench.parameters()["seed"] + seed)
        for corners in (False, True):
            await check_sums(dut, rng, pattern(seed), 150, corners=corners, clears=False)


@cocotb.test()
async def bench_clear_drops_what_is_inside(dut):
    idle(dut)
    await bench.start(dut)
    rng = random.Random(bench.parameters()["seed"])
    await check_sums(dut, rng, bench.always(), 400, corners=False, clears=True)


@cocotb.test()
async def bench_reset_drops_what_is_inside(dut):
    idle(dut)
    await bench.start(dut)
    rng = random.Random(bench.parameters()["seed"])
    for inside in range(1, ThresholdGradient.LATENCY + 2):
        dut.i_valid.value = 1
        for _ in range(inside):
            drive(dut, rng, bench.parameters()["lanes"], False)
            await RisingEdge(dut.clk)
        dut.i_valid.value, dut.rst.value = 0, 1
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        for _ in range(ThresholdGradient.LATENCY + 1):
            await ReadOnly()
            assert int(dut.sum.value) == 0
            await RisingEdge(dut.clk)
    await check_sums(dut, rng, bench.always(), 20, corners=False, clears=False)


@pytest.mark.parametrize("lanes", [1, 4])
def test_threshold_gradient(lanes):
    bench.run(ThresholdGradient(lanes), __file__, f"threshold_gradient_{lanes}", parameters={"lanes": lanes, "seed": 1})


def float_derivative(x, alpha, x_max, levels):
    """Equation (3), with the exact quotient in place of x/α: u − Π(u) and Π(u) − u on either side of α."""
    magnitude = np.abs(x)
    inside = magnitude < alpha
    u = np.where(inside, magnitude / alpha, (magnitude - alpha) / (x_max - alpha))
    error = np.floor(u * levels + 0.5) / levels - u
    return np.sign(x) * np.where(inside, error, -error)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_golden_approximates_equation_3(k):
    """The sum is the float gradient to the resolution of its 8 fraction bits."""
    rng = np.random.default_rng(k)
    p = QuantizerParameters(bits=8, signed=True, alpha=127 * 1024, multiplier=128, shift=17, k=k, threshold=127)
    # x_max is where the last residual lies: Π(u) = 1 there.
    x_max = p.alpha + p.q_max * 2**k * 1024
    y, g = rng.integers(-x_max, x_max + 1, 2000), rng.integers(-1000, 1000, 2000)
    exact = float_derivative(y.astype(float), float(p.alpha), float(x_max), 127) if p.q_max == 127 else None
    delta = threshold_delta(y, p) / (256 * 127)
    if exact is not None:
        assert np.abs(delta - exact).max() <= 1 / (256 * 127) + 1e-9
        assert abs(threshold_gradient(y, g, p) / (256 * 127) - float((exact * g).sum())) <= np.abs(g).sum() / (256 * 127)
    # Whatever q_max, delta is the quantization error in steps.
    result = quantize(y, p)
    error = result.residual / 1024 / np.where(result.outlier, 2**k, 1) - result.q
    assert np.abs(delta * 127 - result.sign * np.where(result.outlier, error, -error)).max() <= 1 / 256


def test_golden_is_the_derivative_of_the_quantizer():
    """Finite differences of α·Π(x/α) and α + (x_max − α)·Π(u), with Π's derivative taken as 1 (straight through)."""
    rng = np.random.default_rng(5)
    p = QuantizerParameters(bits=4, signed=True, alpha=7 << 16, multiplier=128, shift=23, k=0, threshold=7)
    x_max = 2.0 * p.alpha
    y = rng.integers(-int(x_max), int(x_max), 300)
    x, h = np.abs(y).astype(float), 1.0

    def quantized(alpha, rounding_error):
        """Π(u) = u + rounding error, the error frozen."""
        inside = x < p.alpha
        return np.where(
            inside, alpha * (x / alpha + rounding_error), alpha + (x_max - alpha) * ((x - alpha) / (x_max - alpha) + rounding_error)
        )

    u = np.where(x < p.alpha, x / p.alpha, (x - p.alpha) / (x_max - p.alpha))
    frozen = np.floor(u * 7 + 0.5) / 7 - u
    numerical = np.sign(y) * (quantized(p.alpha + h, frozen) - quantized(p.alpha - h, frozen)) / (2 * h)
    assert np.abs(threshold_delta(y, p) / (256 * 7) - numerical).max() <= 1 / (256 * 7) + 1e-6


def test_golden_wraps_and_ignores_saturated_elements():
    p = QuantizerParameters(bits=4, signed=True, alpha=56, multiplier=1, shift=3, k=0, threshold=7)
    assert threshold_delta([0, 3, -3, 4, 57, -57, 1000], p).tolist() == [0, -96, 96, 128, 32, -32, 0]
    many = np.full(2**21, 4)
    assert threshold_gradient(many, np.full(2**21, -(2**31)), p) == 128 * -(2**52)
    assert threshold_gradient(np.full(2**21, 4), np.full(2**21, 2**42), p) == wrap(128 * 2**63)
