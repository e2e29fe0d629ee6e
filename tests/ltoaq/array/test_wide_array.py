"""The wide array against its twin: passes of random length, the tightest spacing, idle gaps, both modes, reset mid-flow."""

import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.ltoaq.array.wide_array import pack_words, wide_product

# rows, columns, drain_group, lanes, paired
CONFIGS = [(4, 4, 8, 4, False), (8, 8, 4, 4, False), (4, 4, 8, 8, False), (4, 4, 8, 4, True)]


class Pass:
    """One tile pass: operands, and the words it takes, a zero word for every idle cycle inside."""

    def __init__(self, p, a, w, *, eight_bit, idle=None):
        self.a, self.w, self.mode = a, w, {"eight_bit": eight_bit, "lanes": p["lanes"]}
        a_words, w_words = pack_words(a, "a", **self.mode), pack_words(w, "w", **self.mode)
        places, at = [], 0
        for _ in range(a_words.shape[1]):
            while idle is not None and at and not next(idle):
                at += 1
            places.append(at)
            at += 1
        self.length = at
        self.words = [np.zeros((len(words), at, p["lanes"]), np.int64) for words in (a_words, w_words)]
        for target, words in zip(self.words, (a_words, w_words), strict=True):
            target[:, places] = words

    def results(self):
        return wide_product(self.a, self.w, **self.mode)


def random_pass(rng, p, *, eight_bit, k, idle=None, corners=False):
    limit = 1024 if eight_bit else 32
    least = 1 - limit if p["paired"] and not eight_bit else -limit
    if corners:
        # Largest magnitudes, and the halves' own corners.
        choice = [least, limit - 1, -1, 0, 1, 31, 15, -8] + ([-992, 32, -32, 992] if eight_bit else [])
        a, w = rng.choice(choice, (p["rows"], k)), rng.choice(choice, (p["cols"], k))
    else:
        a, w = rng.integers(least, limit, (p["rows"], k)), rng.integers(least, limit, (p["cols"], k))
    return Pass(p, a, w, eight_bit=eight_bit, idle=idle)


def schedule(p, passes, spacing):
    """Unskewed words and boundaries, cycle by cycle: (cycle of each boundary, a, w). A last boundary pushes the last pass."""
    starts, at = [], 0
    for item in passes:
        starts.append(at)
        at += max(item.length, spacing(), p["drain_cycles"])
    starts.append(at)
    a, w = (np.zeros((p[edge], at + 1, p["lanes"]), np.int64) for edge in ("rows", "cols"))
    for start, item in zip(starts, passes, strict=False):
        a[:, start : start + item.length], w[:, start : start + item.length] = item.words
    return starts, a, w


def idle_inputs(dut):
    dut.a.value = dut.w.value = dut.boundary.value = 0


async def feed(dut, p, starts, a, w, cycles):
    """Drives skewed words for `cycles` cycles; returns what the outputs showed in each: (valid, results, overflows)."""
    a_packed = [[bench.pack(word, 6) for word in row] for row in a.tolist()]
    w_packed = [[bench.pack(word, 6) for word in row] for row in w.tolist()]
    boundaries, seen = set(starts), []
    for cycle in range(cycles):
        at = [cycle - edge for edge in range(max(p["rows"], p["cols"]))]
        inside = [0 <= n < a.shape[1] for n in at]
        dut.a.value = bench.pack((a_packed[i][at[i]] if inside[i] else 0 for i in range(p["rows"])), 6 * p["lanes"])
        dut.w.value = bench.pack((w_packed[j][at[j]] if inside[j] else 0 for j in range(p["cols"])), 6 * p["lanes"])
        dut.boundary.value = bench.pack((int(at[i] in boundaries) for i in range(p["rows"])), 1)
        await ReadOnly()
        seen.append((int(dut.result_valid.value), int(dut.result.value), int(dut.overflow.value)))
        await RisingEdge(dut.clk)
    idle_inputs(dut)
    return seen


def check(p, passes, starts, seen):
    """Every result in its cycle, validity in every cycle; the first boundary's results mean nothing."""
    delays = [2 + row + row // p["drain_group"] for row in range(p["rows"])]
    due = {start + delay for start in starts for delay in delays}
    valid_cycles = {cycle for cycle, (valid, _, _) in enumerate(seen) if valid}
    assert valid_cycles == due, f"valid in {sorted(valid_cycles ^ due)} differs"
    for start, item in zip(starts[1:], passes, strict=True):
        expected, overflow = item.results()
        for i, delay in enumerate(delays):
            for j in range(p["cols"]):
                _, results, flags = seen[start + delay + j]
                place = f"row {i}, column {j} of the pass before cycle {start}"
                assert bench.unpack(results, 32, p["cols"], signed=True)[j] == expected[i, j], place
                assert flags >> j & 1 == overflow[i, j], f"overflow flag of {place}"


async def run_passes(dut, p, passes, spacing=lambda: 0):
    """All passes must be of one mode."""
    dut.eight_bit.value = int(passes[0].mode["eight_bit"])
    starts, a, w = schedule(p, passes, spacing)
    seen = await feed(dut, p, starts, a, w, starts[-1] + p["drain_cycles"] + p["cols"] + 4)
    check(p, passes, starts, seen)


async def begin(dut):
    idle_inputs(dut)
    dut.eight_bit.value = 0
    await bench.start(dut)
    return bench.parameters(), np.random.default_rng(random.getrandbits(32))


@cocotb.test()
async def bench_back_to_back(dut):
    """Minimum spacing: short passes wait for the bus, long ones follow without a gap; modes alternate between runs."""
    p, rng = await begin(dut)
    for turn in range(6):
        passes = [random_pass(rng, p, eight_bit=bool(turn % 2), k=int(k)) for k in rng.integers(1, 60, 12)]
        await run_passes(dut, p, passes)


@cocotb.test()
async def bench_corners(dut):
    p, rng = await begin(dut)
    for eight_bit in (False, True):
        await run_passes(dut, p, [random_pass(rng, p, eight_bit=eight_bit, k=24, corners=True) for _ in range(12)])


@cocotb.test()
@cocotb.parametrize(pattern=list(bench.PATTERNS))
async def bench_idle(dut, pattern):
    """Idle words inside passes, and idle cycles between them."""
    p, rng = await begin(dut)
    for eight_bit in (False, True):
        passes = [
            random_pass(rng, p, eight_bit=eight_bit, k=int(k), idle=bench.PATTERNS[pattern](int(k))) for k in rng.integers(1, 40, 6)
        ]
        await run_passes(dut, p, passes, spacing=lambda: int(rng.integers(0, 90)))


@cocotb.test()
async def bench_overflow(dut):
    """2^31 is one step too far; 2^31 − 1, and −2^31, are not; the flag stays for its pass and no longer."""
    p, rng = await begin(dut)
    values = p["lanes"] // 4  # a word

    def constant(value_a, value_w, k, *then):
        """k equal pairs, and then others, each of which ends its word, in every row and column."""
        pairs = [(value_a, value_w)] * k
        for pair in then:
            pairs += [pair, *[(0, 0)] * (-(len(pairs) + 1) % values)]
        a, w = np.array(pairs).T
        return Pass(p, np.tile(a, (p["rows"], 1)), np.tile(w, (p["cols"], 1)), eight_bit=True)

    passes = [
        constant(-1024, -1024, 2048),  # 2^31
        random_pass(rng, p, eight_bit=True, k=9),
        constant(-1024, -1024, 2048, (-1, 1)),  # back in range, too late
        constant(-1024, -1024, 2047, (1023, 1023), (1023, 2)),  # 2^31 - 1
        constant(-1024, 1023, 2050, (-1024, 2)),  # -2^31
        constant(-1024, 1023, 2050, (683, -3)),  # -2^31 - 1
        random_pass(rng, p, eight_bit=True, k=9),
    ]
    flags = [bool(item.results()[1].any()) for item in passes]
    assert flags == [True, False, True, False, False, True, False]
    assert {int(passes[n].results()[0][0, 0]) for n in (3, 4)} == {2**31 - 1, -(2**31)}
    await run_passes(dut, p, passes)


@cocotb.test()
async def bench_overflow_boundaries_differ_by_element(dut):
    """One row and one column overflow, their neighbours do not."""
    p, _ = await begin(dut)
    a, w = np.zeros((p["rows"], 2100), int), np.zeros((p["cols"], 2100), int)
    a[1], w[2], w[3] = -1024, -1024, -900
    item = Pass(p, a, w, eight_bit=True)
    assert item.results()[1].sum() == 1
    await run_passes(dut, p, [item])


@cocotb.test()
async def bench_reset_mid_flow(dut):
    """A reset at any moment: no result of before appears after, and the next passes are right."""
    p, rng = await begin(dut)
    for _ in range(25):
        eight_bit = bool(rng.integers(2))
        dut.eight_bit.value = int(eight_bit)
        passes = [random_pass(rng, p, eight_bit=eight_bit, k=20) for _ in range(4)]
        starts, a, w = schedule(p, passes, lambda: 0)
        await feed(dut, p, starts, a, w, int(rng.integers(1, starts[-1] + 10)))
        dut.rst.value = 1
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        # The mode may change only when no word of before is left.
        for _ in range(int(rng.integers(0, 3))):
            await RisingEdge(dut.clk)
        await run_passes(dut, p, [random_pass(rng, p, eight_bit=eight_bit, k=int(k)) for k in rng.integers(1, 30, 3)])


@cocotb.test()
async def bench_boundary_alone(dut):
    """A zero word with a boundary, pass after pass of nothing: zeros come out, with no flag."""
    p, _ = await begin(dut)
    empty = [Pass(p, np.zeros((p["rows"], 1), int), np.zeros((p["cols"], 1), int), eight_bit=False) for _ in range(5)]
    await run_passes(dut, p, empty)


@pytest.mark.parametrize("rows, cols, drain_group, lanes, paired", CONFIGS)
def test_array(rows, cols, drain_group, lanes, paired):
    from nibblecore.hdl.ltoaq.array.wide_array import WideArray

    array = WideArray(rows, cols, drain_group, lanes, paired)
    assert [array.result_delay(row) for row in range(rows)] == [2 + row + row // drain_group for row in range(rows)]
    p = {"rows": rows, "cols": cols, "drain_group": drain_group, "lanes": lanes, "paired": paired}
    p["drain_cycles"] = array.drain_cycles
    bench.run(array, __file__, f"wide_array_{rows}x{cols}_{lanes}{'_paired' * paired}", parameters=p)


def test_drain_cycles_are_the_least():
    """At `drain_cycles` and above no two results meet on a column's bus; one less, and two do."""
    from nibblecore.hdl.ltoaq.array.wide_array import WideArray

    for rows, group in [(1, 8), (4, 8), (8, 8), (8, 4), (32, 8), (32, 5)]:
        array = WideArray(rows, 2, group)
        array._MustUse__silence = True
        delays = {array.result_delay(row) for row in range(rows)}
        assert len(delays) == rows

        def meet(distance, delays=delays):
            return bool(delays & {delay + distance for delay in delays})

        assert not any(meet(distance) for distance in range(array.drain_cycles, 3 * array.drain_cycles))
        assert rows == 1 or meet(array.drain_cycles - 1)


def test_paper_array_is_three_small_modules():
    from nibblecore.hdl.emit.emit import emit_verilog
    from nibblecore.hdl.ltoaq.array.wide_array import WideArray

    verilog = emit_verilog(WideArray(32, 32), "wide_array")
    assert verilog.count("\nmodule ") == 3
    assert len(verilog) < 100_000


@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize("eight_bit", [False, True])
def test_golden_is_a_matrix_product(eight_bit, lanes):
    rng = np.random.default_rng(2)
    limit = 1024 if eight_bit else 32
    a, w = rng.integers(-limit, limit, (5, 37)), rng.integers(-limit, limit, (7, 37))
    result, overflow = wide_product(a, w, eight_bit=eight_bit, lanes=lanes)
    assert (result == a @ w.T).all()
    assert not overflow.any()


def test_golden_wraps_and_flags():
    def product(*pairs):
        a, w = np.array(pairs).T
        (result,), (flag,) = (x[0] for x in wide_product([a], [w], eight_bit=True))
        return int(result), bool(flag)

    top = [(-1024, -1024)] * 2047
    assert product(*top, (1023, 1023)) == (2047 * 2**20 + 1023**2, False)
    assert product(*top, (-1024, -1024)) == (-(2**31), True)
    assert product(*top, (-1024, -1024), (-1, 1)) == (2**31 - 1, True)


def test_golden_refuses_what_no_lane_holds():
    with pytest.raises(ValueError, match="outside"):
        wide_product([[32]], [[1]], eight_bit=False)
    with pytest.raises(ValueError, match="outside"):
        wide_product([[-1025]], [[1]], eight_bit=True)
