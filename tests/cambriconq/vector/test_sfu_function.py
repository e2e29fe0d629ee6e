from collections.abc import Callable

import bench
import cocotb
import fp32_vectors
import lanes
import numpy as np
import pytest
from nibblecore.sim.golden.cambriconq.vector import sfu_function as golden

COPY, RELU, EXP, LOG, RECIPROCAL, RSQRT, SIGMOID, TANH = range(8)
QUIET_NAN = 0x7FC00000


def operands(rng, count):
    """Numbers in which every range reduction has something to do, and some without."""
    part = count // 6
    scale = 2.0 ** rng.uniform(-30, 7.5, part)
    # Around 1, around multiples of ln 2 and half of it, around the ends of segments.
    parts = [
        fp32_vectors.patterns(rng, part),
        fp32_vectors.numbers(rng, part),
        fp32_vectors.numbers(rng, part, 0, 1),
        _bits(rng.normal(size=part) * scale),
        _bits(1 + rng.normal(size=part) * 2.0 ** rng.uniform(-24, 0, part)),
    ]
    rest = count - 5 * part
    ends = np.where(rng.integers(0, 2, rest), rng.integers(-210, 210, rest) * np.log(2) / 2, rng.integers(-320, 320, rest) / 32)
    parts.append(_bits(ends) + rng.integers(-3, 4, rest).astype(np.uint32))
    return rng.permutation(np.concatenate(parts))


def _bits(values):
    return values.astype(np.float32).view(np.uint32)


def special():
    both = np.concatenate([fp32_vectors.SPECIAL, fp32_vectors.SPECIAL | np.uint32(1 << 31)])
    thresholds = [
        104.0,
        88.7228394,
        128.0,
        64.0,
        16.0,
        18.5,
        9.25,
        9.0,
        8.0,
        4.0,
        2.0,
        1.5,
        0.75,
        1.0,
        0.5,
        2.0**-12,
        2.0**-13,
        1.25,
    ]
    around = _bits(np.array(thresholds)) + np.arange(-2, 3, dtype=np.int64)[:, None]
    around = around.astype(np.uint32).ravel()
    return np.concatenate([both, around, around | np.uint32(1 << 31)])


def expected(functions, bits):
    result = np.empty(len(bits), np.uint32)
    for number in range(8):
        chosen = functions == number
        result[chosen] = golden.function(number, bits[chosen].view(np.float32)).view(np.uint32)
    return result


async def compare(vectors, functions, bits, pattern=None):
    got = await vectors.run(pattern or bench.always(), unary=functions, i=bits)
    lanes.compare(got["o"], expected(functions, bits), unary=functions, i=bits)


@cocotb.test()
async def bench_all_functions_mixed(dut):
    """A different function in every cycle and lane."""
    vectors = await lanes.start(dut)
    rng = np.random.default_rng(bench.parameters()["seed"])
    bits = operands(rng, 100_000)
    await compare(vectors, rng.integers(0, 8, len(bits)), bits)


@cocotb.test()
async def bench_special_values(dut):
    vectors = await lanes.start(dut)
    bits = special()
    await compare(vectors, np.repeat(np.arange(8), len(bits)), np.tile(bits, 8))


@cocotb.test()
async def bench_every_segment(dut):
    """Both ends and the middle of every segment of every table."""
    vectors = await lanes.start(dut)
    ends = np.concatenate(
        [np.arange(-416, 417) / 32.0, 2.0 ** np.arange(4)[:, None].repeat(33, 1).ravel() * np.tile(1 + np.arange(33) / 32, 4)]
    )
    bits = (_bits(np.concatenate([ends, ends + 1 / 64, 1 + ends / 16]))[:, None] + np.arange(-1, 2)).astype(np.uint32).ravel()
    for number in (EXP, LOG, RECIPROCAL, SIGMOID, TANH):
        await compare(vectors, np.full(len(bits), number), bits)


@cocotb.test()
async def bench_idle_patterns_and_reset(dut):
    vectors = await lanes.start(dut)
    rng = np.random.default_rng(bench.parameters()["seed"] + 1)
    for seed, pattern in enumerate(bench.PATTERNS.values()):
        bits = operands(rng, 600)
        await compare(vectors, rng.integers(0, 8, len(bits)), bits, pattern(seed))
        await vectors.check_reset()


def test_sfu_function():
    from nibblecore.hdl.cambriconq.program.isa import Unary
    from nibblecore.hdl.cambriconq.vector.sfu_function import SfuFunction

    assert [unary.name.lower() for unary in Unary] == list(golden.FUNCTIONS)
    block = lanes.Lanes(SfuFunction, 2)
    bench.run(block, __file__, "sfu_function_lanes", parameters={**block.parameters, "seed": 1})


def test_tables_of_both_sides_are_equal():
    from nibblecore.hdl.cambriconq.vector.sfu_cubic import ONE, coefficients

    table = np.array(coefficients()).reshape(8, 32, 4)
    assert np.array_equal(table.reshape(-1, 4)[ONE], [2**27, 0, 0, 0])
    table.reshape(-1, 4)[ONE] = 0
    for number, group in enumerate(golden.GROUPS):
        assert np.array_equal(table[number], golden.coefficients(group)), group


# The twin against formulas in binary64 ----------------------------------------------------------------------------------

REAL: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    EXP: np.exp,
    LOG: np.log,
    RECIPROCAL: lambda x: 1 / x,
    RSQRT: lambda x: 1 / np.sqrt(x),
    SIGMOID: lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x))),
    TANH: np.tanh,
}


def in_last_places(got, exact):
    """Error in units of the last place that the exact value has in binary32."""
    unit = np.ldexp(1.0, np.maximum(np.frexp(exact)[1], -125) - 24)
    return np.abs(got.astype(np.float64) - exact) / unit


def errors(number, bits):
    """x, the error in last places, and the absolute error, where the result is finite. Overflows and NaN are checked here."""
    x = bits.view(np.float32)
    got = golden.function(number, x)
    with np.errstate(all="ignore"):
        exact = REAL[number](x.astype(np.float64))
    if number == RSQRT:
        exact = np.where(x == 0, 0, exact)
    finite = np.abs(exact) < 2.0**128 - 2.0**103
    assert np.array_equal(np.isnan(got), np.isnan(exact))
    assert np.array_equal(got.view(np.uint32)[np.isnan(got)], np.full(np.isnan(got).sum(), QUIET_NAN, np.uint32))
    infinite = ~finite & ~np.isnan(exact)
    assert np.array_equal(got[infinite].astype(np.float64), np.copysign(np.inf, exact[infinite]))
    # A result that rounds to infinity from just below it, or the reverse, is within a unit too.
    got = np.clip(got, -3.4028235e38, 3.4028235e38)
    return x[finite], in_last_places(got[finite], exact[finite]), np.abs(got[finite] - exact[finite])


@pytest.mark.parametrize("number", [EXP, LOG, RECIPROCAL, RSQRT, TANH])
def test_golden_is_within_a_unit_in_the_last_place(number):
    rng = np.random.default_rng(number)
    x, units, _ = errors(number, np.concatenate([operands(rng, 1_500_000), special()]))
    worst = units.argmax()
    assert units[worst] <= 1, f"{units[worst]} at {x[worst]!r}"


def test_golden_sigmoid_is_as_near_as_its_page_says():
    rng = np.random.default_rng(SIGMOID)
    more = _bits(rng.uniform(-20, 20, 500_000))
    x, units, absolute = errors(SIGMOID, np.concatenate([operands(rng, 1_000_000), more, special()]))
    assert units[x >= 0].max() <= 1
    assert units[x <= -16].max() <= 3
    assert absolute[x < 0].max() <= 2.0**-25


@pytest.mark.parametrize("number", [EXP, LOG, RECIPROCAL, SIGMOID, TANH])
def test_golden_never_steps_back_by_more_than_a_unit(number):
    """Over neighbouring numbers, 2^17 of them from each of many places, and across every end of a segment."""
    rng = np.random.default_rng(number)
    starts = np.concatenate([operands(rng, 40), _bits(np.array([0.75, 1.0, 1.5, 9.25, 15.999, 88.5, -87.5, -16.001]))])
    starts = np.minimum(starts & 0x7FFFFFFF, 0x7F7E0000) | starts & np.uint32(1 << 31)
    for start in starts[np.argsort(starts)]:
        bits = start + np.arange(2**14, dtype=np.uint32)
        step_back(number, bits)
    for center in np.arange(-300, 300) / 32:
        step_back(
            number, np.sort(_bits(np.array([center]))[0].astype(np.int64) + np.arange(-20, 21)).clip(0, 2**32 - 1).astype(np.uint32)
        )


def step_back(number, bits):
    x = bits.view(np.float32)
    y = golden.function(number, x)
    usable = np.isfinite(x) & np.isfinite(y)
    x, y = x[usable], y[usable].astype(np.float64)
    order = np.argsort(x, kind="stable")
    steps = np.diff(y[order]) * (-1 if number == RECIPROCAL else 1)
    unit = np.spacing(np.abs(y[order][1:]).astype(np.float32)).astype(np.float64)
    across = (x[order][1:] > 0) != (x[order][:-1] > 0)
    back = np.where(across, 0, -steps)
    limit = np.where((number == SIGMOID) & (x[order][1:] < 0), 2.0**-26, unit)
    assert (back <= limit).all(), (number, x[order][1:][back > limit][:3])


def test_golden_special_values_are_exact():
    infinity, nan = np.inf, np.nan
    smallest = 2.0**-149
    cases = {
        COPY: [(0.0, 0.0), (-0.0, -0.0), (infinity, infinity), (-infinity, -infinity), (smallest, smallest), (-3.25, -3.25)],
        RELU: [(0.0, 0.0), (-0.0, 0.0), (infinity, infinity), (-infinity, 0.0), (smallest, smallest), (-smallest, 0.0)],
        EXP: [(0.0, 1.0), (-0.0, 1.0), (infinity, infinity), (-infinity, 0.0), (89.0, infinity), (-104.0, 0.0), (-3e38, 0.0)],
        LOG: [(0.0, -infinity), (-0.0, -infinity), (infinity, infinity), (-infinity, nan), (-smallest, nan), (1.0, 0.0)],
        RECIPROCAL: [
            (0.0, infinity),
            (-0.0, -infinity),
            (infinity, 0.0),
            (-infinity, -0.0),
            (1.0, 1.0),
            (2.0**-129, infinity),
            (2.0**127, 2.0**-127),
            (-4.0, -0.25),
        ],
        RSQRT: [(0.0, 0.0), (-0.0, 0.0), (infinity, 0.0), (-infinity, nan), (-smallest, nan), (4.0, 0.5)],
        SIGMOID: [(0.0, 0.5), (-0.0, 0.5), (infinity, 1.0), (-infinity, 0.0), (smallest, 0.5), (3e38, 1.0), (-3e38, 0.0)],
        TANH: [(0.0, 0.0), (-0.0, -0.0), (infinity, 1.0), (-infinity, -1.0), (smallest, smallest), (-9.5, -1.0)],
    }
    for number, table in cases.items():
        for x, y in [*table, (nan, nan)]:
            got = golden.function(number, np.array([x], np.float32)).view(np.uint32)[0]
            want = QUIET_NAN if np.isnan(y) else _bits(np.array([y]))[0]
            assert got == want, (golden.FUNCTIONS[number], x, hex(got), hex(want))
    every_nan = np.array([0x7F800001, 0xFFFFFFFF, 0xFFC00000, 0x7FBFFFFF], np.uint32).view(np.float32)
    for number in range(8):
        assert (golden.function(number, every_nan).view(np.uint32) == QUIET_NAN).all()


def test_golden_keeps_shapes_and_refuses_other_numbers():
    x = np.zeros((3, 0, 2), np.float32)
    assert golden.function(EXP, x).shape == x.shape and golden.function(EXP, np.array(0, np.float32)).shape == ()
    with pytest.raises(ValueError, match="no function 8"):
        golden.function(8, x)
