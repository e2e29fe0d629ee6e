import random
import re
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

import bench
import cocotb
import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.config import PAPER
from nibblecore.hdl.ltoaq.output.quantizer import Quantizer
from nibblecore.hdl.ltoaq.output.quantizer_setup import QuantizerSetup
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.golden.ltoaq.output.quantizer import quantize
from nibblecore.sim.golden.ltoaq.output.threshold_gradient import threshold_delta

LOW, HIGH = -(2**31), 2**31 - 1


PARAMETERS = {"alpha": 31, "multiplier": 8, "shift": 6, "k": 2, "q_max": 8, "eight_bit": 1, "is_signed": 1, "relu": 1}
RESULTS = {"magnitude": 32, "o_valid": 1, "code": 8, "outlier": 1, "saturated": 1}


class QuantizerWithSetup(wiring.Component):
    """A lane as it is used: its settings come from the parameters."""

    def __init__(self, gradient):
        self.gradient = gradient
        self.results = RESULTS | ({"error": 8, "subtract": 1} if gradient else {})
        super().__init__(
            {
                "i_valid": In(1),
                "i": In(32),
                **{name: In(width) for name, width in PARAMETERS.items()},
                **{name: Out(width) for name, width in self.results.items()},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.setup = setup = QuantizerSetup()
        m.submodules.quantizer = quantizer = Quantizer(gradient=self.gradient)
        m.d.comb += [getattr(setup, name).eq(getattr(self, name)) for name in PARAMETERS]
        m.d.comb += [quantizer.settings.eq(setup.settings), quantizer.i_valid.eq(self.i_valid), quantizer.i.eq(self.i)]
        m.d.comb += [getattr(self, name).eq(getattr(quantizer, name)) for name in self.results]
        return m


def set_parameters(dut, p):
    values = {
        "alpha": p.alpha,
        "multiplier": p.multiplier,
        "shift": p.shift,
        "k": p.k,
        "q_max": p.q_max,
        "eight_bit": p.bits == 8,
        "is_signed": p.signed,
        "relu": p.relu,
    }
    for name, value in values.items():
        getattr(dut, name).value = int(value)


def interesting_inputs(p, rng, count):
    """Words at the threshold, at the ends, on and beside rounding ties and clips, and at random over the magnitudes that matter."""
    words = [0, 1, -1, LOW, LOW + 1, HIGH, *(s * (p.alpha + d) for s in (-1, 1) for d in (-1, 0, 1))]
    for outlier, limit in ((False, p.code_max), (True, p.q_max)):
        exponent = p.shift + (p.k if outlier else 0)
        for r in (0, 1, limit - 1, limit, rng.randint(0, limit)):
            tie = (2 * r + 1) * 2**exponent // (2 * p.multiplier) + (p.alpha if outlier else 0)
            words += [s * (tie + d) for s in (-1, 1) for d in (-1, 0, 1)]
    span = min(3 * p.alpha, HIGH)
    words += [rng.randint(-span, span) for _ in range(count)]
    words += [rng.choice((-1, 1)) * rng.getrandbits(rng.randint(1, 31)) for _ in range(count // 2)]
    return [min(max(word, LOW), HIGH) for word in words]


def interesting_parameters(rng):
    """All combinations of the small parameters, with shifts and multipliers from the ends and between."""
    for bits in (4, 8):
        for signed in (False, True):
            for relu in (False, True):
                for k in range(4):
                    yield random_parameters(rng, bits, signed, relu, k)
    for shift in (0, 1, 39):
        for multiplier in (1, 128, 255):
            yield random_parameters(rng, 8, True, False, 3, shift=shift, multiplier=multiplier)
    # Thresholds far above and below what the scale asks for: memory can hold them, and codes saturate in front of the threshold.
    for bits in (4, 8):
        for signed in (False, True):
            for by in (Fraction(1, 3), 3):
                p = random_parameters(rng, bits, signed, False, rng.randrange(4), shift=rng.randint(9, 24))
                yield replace(p, alpha=max(1, int(p.alpha * by)))
    # Powers of two, on which exact ties fall.
    yield random_parameters(rng, 8, True, False, 0, shift=15, multiplier=128, threshold=127, alpha=127 * 256)
    yield random_parameters(rng, 4, True, False, 2, shift=4, multiplier=4, threshold=7, alpha=28)
    yield random_parameters(rng, 8, False, False, 0, shift=39, multiplier=255, alpha=HIGH)
    yield random_parameters(rng, 4, True, False, 0, shift=0, multiplier=1, alpha=1)


def random_parameters(rng, bits, signed, relu, k, **fixed):
    threshold = rng.randint(1, 2 ** (bits - signed) - 1)
    multiplier, shift = rng.randint(128, 255), rng.randint(0, 34 if bits == 4 else 30)
    p = {"multiplier": multiplier, "shift": shift, "threshold": threshold} | fixed
    alpha = min(max(1, round(p["threshold"] * 2 ** p["shift"] / p["multiplier"])), HIGH)
    return QuantizerParameters(bits=bits, signed=signed, relu=relu, k=k, **({"alpha": alpha} | p))


async def quantize_words(dut, words, pattern):
    """Feeds `words` when `pattern` says so and checks the latency; returns (magnitude, then every result) for each."""
    latency, gradient = Quantizer.LATENCY, bench.parameters()["gradient"]
    names = ["code", "outlier", "saturated", *(["error", "subtract"] if gradient else [])]
    magnitudes, results, valids = [], [], [False] * latency
    queue = list(words)
    while queue or any(valids):
        valid = bool(queue) and next(pattern)
        dut.i_valid.value = valid
        # A word that is not valid must leave no trace.
        dut.i.value = (queue.pop(0) if valid else random.getrandbits(32)) & 0xFFFF_FFFF
        await ReadOnly()
        if valid:
            magnitudes.append(int(dut.magnitude.value))
        assert int(dut.o_valid.value) == valids[0], "o_valid does not follow i_valid by the latency"
        if valids[0]:
            results.append([int(getattr(dut, name).value) for name in names])
        valids = [*valids[1:], valid]
        await RisingEdge(dut.clk)
    dut.i_valid.value = 0
    return magnitudes, results


def check(words, p, magnitudes, results):
    golden, delta = quantize(words, p), threshold_delta(words, p)
    for i, (word, magnitude, result) in enumerate(zip(words, magnitudes, results, strict=True)):
        code, outlier, saturated, *error = result
        got = (code % 2**p.bits, outlier, saturated)
        expected = (golden.codes[i], golden.outlier[i], golden.saturated[i])
        assert got == expected, f"{word} under {p}: code, outlier, saturated are {got}, not {expected}"
        if error:
            value = error[0] - 256 * (error[0] >> 7)
            assert (-value if error[1] else value) == delta[i], f"{word} under {p}: error {error}, not {delta[i]}"
        assert magnitude == abs(max(word, 0) if p.relu or not p.signed else word)
    assert max(magnitudes) == golden.x_max
    assert sum(r[1] for r in results) == golden.outliers and sum(r[2] for r in results) == golden.saturations


@cocotb.test()
async def bench_all_parameters(dut):
    rng = random.Random(bench.parameters()["seed"])
    dut.i_valid.value = 0
    await bench.start(dut)
    for p in interesting_parameters(rng):
        set_parameters(dut, p)
        words = interesting_inputs(p, rng, 30)
        check(words, p, *await quantize_words(dut, words, bench.always()))


@cocotb.test()
async def bench_idle_patterns(dut):
    rng = random.Random(bench.parameters()["seed"] + 1)
    dut.i_valid.value = 0
    await bench.start(dut)
    for seed, pattern in enumerate(bench.PATTERNS.values()):
        p = random_parameters(rng, rng.choice((4, 8)), True, False, rng.randrange(4))
        set_parameters(dut, p)
        words = interesting_inputs(p, rng, 10)
        check(words, p, *await quantize_words(dut, words, pattern(seed)))


@cocotb.test()
async def bench_reset_drops_what_is_inside(dut):
    rng = random.Random(bench.parameters()["seed"] + 2)
    p = random_parameters(rng, 8, True, False, 1)
    set_parameters(dut, p)
    await bench.start(dut)
    for inside in range(1, Quantizer.LATENCY + 1):
        dut.i_valid.value, dut.i.value = 1, 0x7FFF_FFFF
        for _ in range(inside):
            await RisingEdge(dut.clk)
        dut.rst.value, dut.i_valid.value = 1, 0
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        for _ in range(Quantizer.LATENCY + 1):
            await ReadOnly()
            assert not int(dut.o_valid.value), "a word survived the reset"
            await RisingEdge(dut.clk)
        words = interesting_inputs(p, rng, 4)
        check(words, p, *await quantize_words(dut, words, bench.always()))


@pytest.mark.parametrize("gradient", [False, True])
def test_quantizer(gradient):
    bench.run(
        QuantizerWithSetup(gradient), __file__, f"quantizer_gradient{gradient:d}", parameters={"gradient": gradient, "seed": 1}
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_golden_rounds_half_away_from_zero(bits, signed):
    """Against exact rational arithmetic, element by element."""
    rng = random.Random(bits + signed)
    for k in range(4):
        p = random_parameters(rng, bits, signed, False, k)
        words = interesting_inputs(p, rng, 100)
        got = quantize(words, p)
        for i, word in enumerate(words):
            y = word if signed else max(word, 0)
            outlier = abs(y) >= p.alpha
            step = Fraction(2**p.shift, p.multiplier) * (2**k if outlier else 1)
            exact = floor((abs(y) - (p.alpha if outlier else 0)) / step + Fraction(1, 2))
            q = min(exact, p.q_max if outlier else p.code_max)
            sign_bit = 2 ** (bits - 1) if y < 0 else 0
            code = q + sign_bit if outlier else (q if y >= 0 else -q) % 2**bits
            assert (got.codes[i], got.outlier[i], got.saturated[i]) == (code, outlier, exact > q), f"{word} under {p}"


def test_golden_statistics():
    p = QuantizerParameters(bits=4, signed=True, alpha=7, multiplier=1, shift=0, k=0, threshold=7)
    got = quantize([0, -6, 7, -14, -15, LOW], p)
    assert (got.x_max, got.outliers, got.saturations) == (2**31, 4, 2)
    assert got.codes.tolist() == [0, 10, 0, 15, 15, 15]
    assert quantize([], p).x_max == 0
    relu = QuantizerParameters(bits=4, signed=True, alpha=7, multiplier=1, shift=0, k=0, threshold=7, relu=True)
    assert quantize([-9, 3], relu).codes.tolist() == [0, 3] and quantize([-9, 3], relu).x_max == 3


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_parameters_for_a_range(bits, signed):
    """The host's choice meets the threshold, and decodes to within half a step of what was quantized."""
    from nibblecore.sim.golden.ltoaq.operands.operand_decoder import decode_operand

    rng = np.random.default_rng(bits + signed)
    value_max = PAPER.value_max(bits)
    for _ in range(100):
        unit, alpha = 2.0 ** rng.integers(-30, 3), 2.0 ** rng.uniform(-3, 3)
        if not 1000 <= alpha / unit <= 2**29:
            continue
        x_max = alpha * rng.uniform(0.5, 9)
        p = QuantizerParameters.for_range(alpha, x_max, unit, bits, signed)
        assert p.multiplier >= 128 and p.threshold == p.code_max
        assert abs(p.scale * p.threshold / alpha - 1) <= 1 / 256
        assert abs(p.alpha * unit / p.scale - p.threshold) <= 0.5 * unit / p.scale
        y = np.clip(np.round(rng.uniform(-x_max if signed else 0, x_max, 500) / unit), LOW, HIGH).astype(np.int64)
        got = quantize(y, p)
        values = decode_operand(got.codes, got.outlier, bits, signed, p.threshold, p.k, value_max) * p.scale
        error = np.abs(values - y * unit) / (p.scale * np.where(got.outlier, 2**p.k, 1))
        # Half a step, and half a unit of the input by which the integer threshold is off.
        assert error[~got.saturated].max() <= 0.5 + 0.5 * unit / p.scale + 1e-6
        # Saturated only if no shift at all reaches that far.
        if got.saturations:
            assert (
                x_max / p.scale
                > max(p.threshold + min(p.code_max, (value_max - p.threshold) >> k) * 2**k for k in range(4)) - 2**p.k
            )


def test_smallest_shift_that_reaches():
    shifts = [QuantizerParameters.for_range(1.0, x_max, 1e-5, 8, True).k for x_max in (0.5, 1.9, 2.9, 4.9, 50)]
    assert shifts == [0, 0, 1, 2, 3]
    # 4-bit lanes end at 31 steps: unsigned codes reach 30 of them unshifted.
    assert QuantizerParameters.for_range(1.0, 50, 1e-5, 4, False).k == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0},
        {"alpha": 2**31},
        {"multiplier": 0},
        {"multiplier": 256},
        {"shift": 40},
        {"k": 4},
        {"threshold": 8},
        {"bits": 5},
    ],
)
def test_illegal_parameters_are_refused(wrong):
    legal = {"bits": 4, "signed": True, "alpha": 7, "multiplier": 1, "shift": 0, "k": 0, "threshold": 7}
    with pytest.raises(ValueError):
        QuantizerParameters(**(legal | wrong))


LEGAL = {"alpha": "1..2147483647", "multiplier": "1..255", "shift": "0..39", "k": "0..3", "threshold": "1..7"}
WRONG = (float("nan"), 2.5, -1, "7")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({name: bad}, f"{name} must be a whole number, {legal}, not {bad!r}") for name, legal in LEGAL.items() for bad in WRONG),
        *(({"unit": bad}, f"unit must be a finite number above 0, not {bad}") for bad in (np.nan, np.inf, 0.0, -1.0)),
        ({"bits": 6}, "bits must be 4 or 8, not 6"),
        ({"threshold": 8}, "threshold must be a whole number, 1..7, not 8"),
    ],
)
def test_parameters_are_refused_by_name(change, message):
    legal: dict[str, Any] = {"bits": 4, "signed": True, "alpha": 500, "multiplier": 200, "shift": 4, "k": 1, "threshold": 7}
    QuantizerParameters(**legal | {name: np.int64(value) for name, value in legal.items() if name != "signed"})
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        QuantizerParameters(**legal | change)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
@pytest.mark.parametrize(("place", "name"), [(0, "alpha"), (1, "x_max"), (2, "unit")])
def test_a_range_is_finite(bad, place, name):
    given: list[Any] = [1.0, 3.0, 1e-3]
    given[place] = bad
    with pytest.raises(ValueError, match=f"^{name} must be a finite number .* 0, not {bad}$"):
        QuantizerParameters.for_range(given[0], given[1], given[2], 4, True)
