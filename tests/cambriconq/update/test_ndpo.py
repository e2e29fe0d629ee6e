"""The optimizer against equation (1): bit for bit on any numbers, and against double precision over a thousand steps."""

import bench
import cocotb
import fp32_vectors
import lanes
import numpy as np
import pytest
from nibblecore.sim.golden.arith.fp32_rsqrt import fp32_rsqrt
from nibblecore.sim.golden.cambriconq.update.ndpo import Optimizer

CONSTANTS = ["c1", "c2", "c3", "c4", "c5", "epsilon", "use_m", "use_rsqrt"]
STATE = ["i_w", "i_m", "i_v", "i_g"]
# Name, ε.
OPTIMIZERS = [(name, epsilon) for name in ("sgd", "adagrad", "rmsprop", "adam") for epsilon in (0.0, 1e-8)]
STEPS = 1000
TOLERANCE = 1e-5


def table_iv(name, epsilon, step):
    """Constants c1..c5 and ε in double precision, and whether t1 is m and t2 the reciprocal root (paper, Table IV)."""
    beta1, beta2 = 0.9, 0.999
    if name == "sgd":
        return (0.0, 0.0, 0.0, 0.0, 0.01, epsilon), False, False
    if name == "adagrad":
        return (0.0, 0.0, 1.0, 1.0, 0.01, epsilon), False, True
    if name == "rmsprop":
        return (0.0, 0.0, 0.99, 1 - 0.99, 0.001, epsilon), False, True
    rate = 0.001 * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    return (beta1, 1 - beta1, beta2, 1 - beta2, rate, epsilon), True, True


def twin(name, epsilon, step):
    constants, use_m, use_rsqrt = table_iv(name, epsilon, step)
    return Optimizer(np.array(constants, np.float32), use_m, use_rsqrt)


class Double:
    """Table IV in double precision, with constants that were never rounded, beside a machine; keeps each weight's scale."""

    def __init__(self, w):
        self.w, self.m, self.v = (w.astype(np.float64) * factor for factor in (1, 0, 0))
        self.scale = np.abs(self.w)

    def step(self, name, epsilon, number, g):
        g = g.astype(np.float64)
        (c1, c2, c3, c4, c5, _), use_m, use_rsqrt = table_iv(name, epsilon, number)
        self.m, self.v = c1 * self.m + c2 * g, c3 * self.v + c4 * g**2
        root = np.sqrt(self.v + epsilon)
        # Of 0 the machine's reciprocal root is 0: the weight stays.
        t2 = np.divide(1, root, out=np.zeros_like(root), where=root > 0) if use_rsqrt else 1.0
        self.w = self.w - c5 * (self.m if use_m else g) * t2
        self.scale = np.maximum(self.scale, np.abs(self.w))

    def error(self, w):
        """The largest distance of a weight from its double, relative to the largest magnitude the double has had."""
        return (np.abs(w - self.w) / self.scale).max()


def random_gradients(rng, shape):
    """Each weight's gradients have a size of their own, 1e-6 to 1e2, a mean, and sometimes are 0; those of the first are always."""
    size, mean = 10 ** rng.uniform(-6, 2, shape[1]), rng.normal(0, 0.3, shape[1])
    g = (size * (mean + rng.normal(size=shape)) * (rng.random(shape) < 0.8)).astype(np.float32)
    g[:, 0] = 0
    return g


def operands(rng, count):
    """Numbers that cancel and round in every operation, subnormal and special ones, and any pattern; with constants of every kind."""
    part = count // 2
    vectors = {}
    for name in (*STATE, *CONSTANTS[:6]):
        middle = 118 if name == "i_g" else 123
        vectors[name] = np.concatenate(
            [
                fp32_vectors.numbers(rng, part, middle - 12, middle + 12),
                fp32_vectors.patterns(rng, part // 2),
                fp32_vectors.numbers(rng, count - part - part // 2, 60, 200),
            ]
        )
        special = rng.random(count) < 0.03
        vectors[name][special] = rng.choice(fp32_vectors.SPECIAL, special.sum()) | fp32_vectors.signs(rng, special.sum()) << 31
    # Most second moments and their constants are positive in practice.
    for name in ("i_v", "c3", "c4", "epsilon"):
        vectors[name] &= np.where(rng.random(count) < 0.9, 0x7FFFFFFF, 0xFFFFFFFF).astype(np.uint32)
    for name in ("use_m", "use_rsqrt"):
        vectors[name] = rng.integers(0, 2, count)
    return vectors


def expected_of(vectors):
    """The twin's results, one call for each set of constants that follow one another."""
    rows = np.stack([vectors[name] for name in CONSTANTS])
    starts = np.flatnonzero(np.append(True, (rows[:, 1:] != rows[:, :-1]).any(axis=0)))
    results: dict[str, list[np.ndarray]] = {"o_w": [], "o_m": [], "o_v": []}
    for start, end in zip(starts, [*starts[1:], rows.shape[1]], strict=True):
        optimizer = Optimizer()
        for register in range(6):
            optimizer.set(register, int(rows[register, start]))
        optimizer.set(6, int(rows[6, start] | rows[7, start] << 1))
        state = [np.asarray(vectors[name][start:end], np.uint32).view(np.float32) for name in STATE]
        for taken, values in zip(results.values(), optimizer.update(*state), strict=True):
            taken.append(values.view(np.uint32))
    return {name: np.concatenate(taken) for name, taken in results.items()}


async def check(vectors, pattern, given):
    got = await vectors.run(pattern, **given)
    expected = expected_of(given)
    for name in ("o_m", "o_v", "o_w"):
        lanes.compare(got[name], expected[name], **given)


def with_constants_of(given, rows):
    """Every lane keeps the constants that its first vector has, as the contract asks, over `rows` vectors each."""
    return given | {name: np.tile(given[name][: lanes.LANES], rows) for name in CONSTANTS}


@cocotb.test()
async def bench_any_numbers(dut):
    """20,000 vectors; a run of 20 a lane for each choice of constants."""
    vectors = await lanes.start(dut)
    rng = np.random.default_rng(bench.parameters()["seed"])
    rows = 20
    whole = operands(rng, 125 * rows * lanes.LANES)
    for first in range(0, len(whole["i_w"]), rows * lanes.LANES):
        part = {name: values[first : first + rows * lanes.LANES] for name, values in whole.items()}
        await check(vectors, bench.always(), with_constants_of(part, rows))


@cocotb.test()
async def bench_idle_patterns_and_reset(dut):
    vectors = await lanes.start(dut)
    rng = np.random.default_rng(bench.parameters()["seed"] + 1)
    for seed, pattern in enumerate(bench.PATTERNS.values()):
        rows = 60
        await check(vectors, pattern(seed), with_constants_of(operands(rng, rows * lanes.LANES), rows))
        await vectors.check_reset()


@cocotb.test()
async def bench_a_thousand_steps(dut):
    """Sixteen weights with each optimizer, ε zero and not: a lane each, whose results go back in."""
    vectors = await lanes.start(dut)
    rng = np.random.default_rng(bench.parameters()["seed"] + 2)
    count = 16
    w = rng.normal(0, 0.1, (count, lanes.LANES)).astype(np.float32)
    m, v = np.zeros_like(w), np.zeros_like(w)
    gradients = random_gradients(rng, (STEPS, count))
    doubles = [Double(w[:, lane]) for lane in range(lanes.LANES)]
    shape = w.shape
    for step in range(1, STEPS + 1):
        g = np.repeat(gradients[step - 1][:, None], lanes.LANES, axis=1)
        constants = [table_iv(name, epsilon, step) for name, epsilon in OPTIMIZERS]
        numbers = np.array([c for c, _, _ in constants], np.float32).view(np.uint32)
        columns = [*numbers.T, *(np.array([c[k] for c in constants]) for k in (1, 2))]
        given = {name: np.tile(column, count) for name, column in zip(CONSTANTS, columns, strict=True)}
        given |= {name: values.ravel().view(np.uint32) for name, values in zip(STATE, (w, m, v, g), strict=True)}
        got = await vectors.run(bench.always(), **given)
        for lane, (name, epsilon) in enumerate(OPTIMIZERS):
            expected = twin(name, epsilon, step).update(w[:, lane], m[:, lane], v[:, lane], g[:, lane])
            for port, values in zip(("o_w", "o_m", "o_v"), expected, strict=True):
                lanes.compare(got[port].reshape(shape)[:, lane], values.view(np.uint32))
        w, m, v = (got[port].astype(np.uint32).view(np.float32).reshape(shape) for port in ("o_w", "o_m", "o_v"))
        for lane, (name, epsilon) in enumerate(OPTIMIZERS):
            doubles[lane].step(name, epsilon, step, g[:, lane])
            assert doubles[lane].error(w[:, lane]) < TOLERANCE, (name, epsilon, step)


def test_ndpo():
    from nibblecore.hdl.cambriconq.update.ndpo import Ndpo

    block = lanes.Lanes(Ndpo)
    bench.run(block, __file__, "ndpo_lanes", parameters={**block.parameters, "seed": 1})


@pytest.mark.parametrize("name, epsilon", OPTIMIZERS)
def test_golden_follows_double_precision(name, epsilon):
    """4,000 weights over 1,000 steps of random gradients; in every step every weight is within 1e-5 of its double."""
    rng = np.random.default_rng(7)
    count = 4_000
    w = rng.normal(0, 0.1, count).astype(np.float32)
    m, v, double, worst = np.zeros_like(w), np.zeros_like(w), Double(w), 0.0
    size, mean = 10 ** rng.uniform(-6, 2, count), rng.normal(0, 0.3, count)
    for step in range(1, STEPS + 1):
        g = (size * (mean + rng.normal(size=count)) * (rng.random(count) < 0.8)).astype(np.float32)
        w, m, v = twin(name, epsilon, step).update(w, m, v, g)
        double.step(name, epsilon, step, g)
        worst = max(worst, double.error(w))
    print(f"{name}, epsilon {epsilon}: {worst:.1e}")
    assert 0 < worst < TOLERANCE


def test_golden_is_the_equation_one_operation_at_a_time():
    """Each operation in double precision and rounded, which for sums and products is what a single rounding gives."""
    rng = np.random.default_rng(3)
    given = operands(rng, 4000)
    expected = expected_of(given)

    def rounded(exact):
        with np.errstate(all="ignore"):
            return exact.astype(np.float32).astype(np.float64)

    with np.errstate(all="ignore"):
        c1, c2, c3, c4, c5, epsilon, w, m, v, g = (
            given[name].view(np.float32).astype(np.float64) for name in (*CONSTANTS[:6], *STATE)
        )
        m = rounded(rounded(c1 * m) + rounded(c2 * g))
        v = rounded(rounded(c3 * v) + rounded(c4 * rounded(g * g)))
        t1 = np.where(given["use_m"], m, g)
        root = fp32_rsqrt(rounded(v + epsilon).astype(np.float32).view(np.uint32)).view(np.float32).astype(np.float64)
        t2 = np.where(given["use_rsqrt"], root, 1.0)
        w = rounded(w - rounded(rounded(c5 * t1) * t2))
    for name, values in (("o_w", w), ("o_m", m), ("o_v", v)):
        bits = values.astype(np.float32).view(np.uint32)
        lanes.compare(expected[name], np.where(np.isnan(values), np.uint32(0x7FC00000), bits))


def test_vectors_are_weighted():
    """Of the results a good part are ordinary numbers, and each kind of special one occurs."""
    results = expected_of(operands(np.random.default_rng(4), 4000))
    for name, values in results.items():
        exponent = (values >> 23) & 255
        nan, infinity = values == 0x7FC00000, values << np.uint32(1) == 0xFF000000
        subnormal = (exponent == 0) & (values << np.uint32(1) != 0)
        assert ((exponent > 0) & (exponent < 255)).mean() > 0.4, name
        assert nan.sum() > 10 and infinity.sum() > 10 and subnormal.sum() > 3, name


def test_golden_leaves_a_weight_that_never_saw_a_gradient():
    zero, w = np.zeros(3, np.float32), np.array([1.5, -0.25, 0], np.float32)
    for name in ("adagrad", "rmsprop", "adam"):
        assert (twin(name, 0.0, 1).update(w, zero, zero, zero)[0] == w).all()


def test_golden_gives_one_nan():
    """Whatever NaN goes in, as the hardware."""
    odd = np.array([0x7F800001, 0xFFC12345, 0x7FFFFFFF], np.uint32).view(np.float32)
    ones = np.ones(3, np.float32)
    for state in np.eye(4, dtype=bool):
        results = twin("adam", 0.0, 1).update(*(odd if here else ones for here in state))
        for values in results:
            assert (values.view(np.uint32)[np.isnan(values)] == 0x7FC00000).all()
        assert np.isnan(results[0]).all() == bool(state.any())
