import itertools
from typing import Any

import bench
import cocotb
import fp32_vectors
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.cambriconq.vector import sfu as golden
from structs import join

ADD, SUB, MUL, MAX, STEP, FUNCTION = range(6)
ROWS, LOOP, LATENCY, FUNCTION_LATENCY, SWITCH = 4, 4, 6, 15, 9
REDUCTIONS = (ADD, MUL, MAX)


def element(operation, a, b=0, **members):
    from nibblecore.hdl.cambriconq.vector.sfu import Element

    return join(Element, {"operation": operation, "a": int(a), "b": int(b), **members})


def floats(bits):
    return np.asarray(bits, np.uint32).view(np.float32)


def elements_of(rng, operation, a, b):
    """Stream and results of an elementwise operation; of functions one at random for each."""
    junk = {"row": int(rng.integers(ROWS)), "first": int(rng.integers(2)), "last": int(rng.integers(2))}
    if operation == FUNCTION:
        numbers = rng.integers(0, 8, len(a))
        stream = [element(operation, x, y, function=int(n), **junk) for x, y, n in zip(a, b, numbers, strict=True)]
        return stream, [int(golden.function(n, floats([x])).view(np.uint32)[0]) for n, x in zip(numbers, a, strict=True)]
    stream = [element(operation, x, y, **junk) for x, y in zip(a, b, strict=True)]
    return stream, golden.elementwise(golden.OPERATIONS[operation], floats(a), floats(b)).view(np.uint32).tolist()


def rows_of(rng, operation, rows, *, interleave):
    """Stream and results of reductions; with `interleave`, rows under way take turns at random."""
    waiting, stream, results = list(rows), [], []
    active: dict[int, list[Any]] = {}  # by tag: row, and the place reached in it
    while waiting or active:
        while waiting and len(active) < (ROWS if interleave else 1):
            tag = int(rng.choice([tag for tag in range(ROWS) if tag not in active]))
            active[tag] = [waiting.pop(0), 0]
        tag = int(rng.choice(list(active)))
        row, place = active[tag]
        last = place == len(row) - 1
        stream.append(element(operation, row[place], int(rng.integers(2**32)), horizontal=1, row=tag, first=place == 0, last=last))
        active[tag][1] += 1
        if last:
            results.append(int(golden.horizontal(golden.OPERATIONS[operation], floats(row)).view(np.uint32)))
            del active[tag]
    return stream, results


def operands(rng, operation, count):
    if operation == MUL:
        return fp32_vectors.factors(rng, count)
    a, b = fp32_vectors.addends(rng, count)
    if operation in (MAX, STEP):
        return a, np.where(rng.integers(0, 3, count) == 0, a ^ (rng.integers(0, 2, count).astype(np.uint32) << 31), b)
    return a, b


def random_rows(rng, operation, count, longest=12):
    """Most of moderate numbers, so that sums and products stay finite; some of anything."""
    rows = []
    for _ in range(count):
        length = int(rng.integers(1, longest))
        if rng.integers(4):
            rows.append((rng.normal(size=length) * 2.0 ** rng.integers(-3, 3)).astype(np.float32).view(np.uint32))
        else:
            rows.append(fp32_vectors.numbers(rng, length) if rng.integers(2) else rng.choice([0, 1 << 31, 0x7FC00001, 1], length))
    return rows


def program(rng, pieces, *, size=20):
    """Vector instructions of all kinds one after the other."""
    stream, results = [], []
    for _ in range(pieces):
        if rng.integers(2):
            operation = int(rng.integers(6))
            part = elements_of(rng, operation, *operands(rng, operation, int(rng.integers(6, size))))
        else:
            operation = int(rng.choice(REDUCTIONS))
            part = rows_of(rng, operation, random_rows(rng, operation, int(rng.integers(1, 7))), interleave=bool(rng.integers(2)))
        stream += part[0]
        results += part[1]
    return stream, results


async def begin(dut):
    dut.i__valid.value = dut.i__payload.value = dut.o__ready.value = 0
    await bench.start(dut)
    return np.random.default_rng(bench.parameters()["seed"])


async def check(dut, stream, results, i_pattern=None, o_pattern=None):
    sender = cocotb.start_soon(bench.send(dut, "i", stream, i_pattern))
    got = await bench.receive(dut, "o", len(results), o_pattern)
    await sender
    for place, (one, other) in enumerate(zip(got, results, strict=True)):
        assert one == other, f"result {place}: {one:#x}, not {other:#x}"


async def nothing_comes(dut, cycles=FUNCTION_LATENCY + 5):
    for _ in range(cycles):
        await ReadOnly()
        assert not int(dut.o__valid.value)
        await RisingEdge(dut.clk)


@cocotb.test()
async def bench_each_operation(dut):
    rng = await begin(dut)
    for operation in (ADD, SUB, MUL, MAX, STEP, FUNCTION):
        await check(dut, *elements_of(rng, operation, *operands(rng, operation, 1200)))
    await nothing_comes(dut)


@cocotb.test()
async def bench_special_pairs(dut):
    rng = await begin(dut)
    a, b = fp32_vectors.every_special_pair()
    for operation in (ADD, SUB, MUL, MAX, STEP):
        chosen = slice(None) if operation in (MAX, STEP) else slice(operation, None, 11)
        await check(dut, *elements_of(rng, operation, a[chosen], b[chosen]))


@cocotb.test()
async def bench_rows(dut):
    """One row after the other, and interleaved at random."""
    rng = await begin(dut)
    for operation, interleave in itertools.product(REDUCTIONS, (False, True)):
        await check(dut, *rows_of(rng, operation, random_rows(rng, operation, 100), interleave=interleave))
    await nothing_comes(dut)


@cocotb.test()
@cocotb.parametrize(i_pattern=list(bench.PATTERNS), o_pattern=list(bench.PATTERNS))
async def bench_everything(dut, i_pattern, o_pattern):
    """All kinds of instructions in any order: every change of operation, under every idle and back-pressure pattern."""
    rng = await begin(dut)
    patterns = (bench.PATTERNS[name](int(rng.integers(99))) for name in (i_pattern, o_pattern))
    await check(dut, *program(rng, 12 if "rare" in (i_pattern, o_pattern) else 50), *patterns)


async def cycles_for(dut, stream, count):
    """From the cycle that takes the first element to that which gives the last of `count` results."""
    sender, cycle, begun, left = cocotb.start_soon(bench.send(dut, "i", stream)), 0, None, count
    dut.o__ready.value = 1
    while left:
        await ReadOnly()
        if begun is None and int(dut.i__valid.value) and int(dut.i__ready.value):
            begun = cycle
        left -= int(dut.o__valid.value)
        await RisingEdge(dut.clk)
        cycle += 1
    dut.o__ready.value = 0
    await sender
    assert begun is not None
    return cycle - 1 - begun


@cocotb.test()
async def bench_rates(dut):
    """The latencies and throughputs that the block states, to the cycle."""
    rng = await begin(dut)
    count = 64
    one = np.full(count, 0x3F800000, np.uint32)
    for operation in (ADD, MUL, MAX, FUNCTION):
        stream, results = elements_of(rng, operation, one, one)
        latency = FUNCTION_LATENCY if operation == FUNCTION else LATENCY
        assert await cycles_for(dut, stream[:1], 1) == latency
        assert await cycles_for(dut, stream, len(results)) == count - 1 + latency
        await nothing_comes(dut)
    alone = [element(ADD, 0x3F800000, horizontal=1, row=2, first=n == 0, last=n == count - 1) for n in range(count)]
    assert await cycles_for(dut, alone, 1) == LOOP * (count - 1) + LATENCY
    turns = [element(ADD, 0x3F800000, horizontal=1, row=n % ROWS, first=n < ROWS, last=n >= count - ROWS) for n in range(count)]
    assert await cycles_for(dut, turns, ROWS) == count - 1 + LATENCY
    await nothing_comes(dut)
    switch = [element(FUNCTION, 0), element(ADD, 0)]
    assert await cycles_for(dut, switch, 2) == SWITCH + 1 + LATENCY


@cocotb.test()
async def bench_results_wait(dut):
    """With nobody taking results, elements are refused in time and nothing is lost."""
    rng = await begin(dut)
    for operation in (ADD, FUNCTION):
        stream, results = elements_of(rng, operation, *operands(rng, operation, 60))
        sender = cocotb.start_soon(bench.send(dut, "i", stream))
        for _ in range(80):
            await RisingEdge(dut.clk)
        assert not sender.done()
        assert await bench.receive(dut, "o", len(results)) == results
        await sender


@cocotb.test()
async def bench_row_never_begun(dut):
    """Elements that continue no row: a result for every last one, and afterwards all is well."""
    rng = await begin(dut)
    for _ in range(20):
        stream = [
            element(
                int(rng.choice(REDUCTIONS)),
                int(rng.integers(2**32)),
                horizontal=1,
                row=int(rng.integers(ROWS)),
                last=int(rng.integers(2)),
            )
            for _ in range(20)
        ]
        await cocotb.start_soon(bench.send(dut, "i", [*stream, element(ADD, 0, horizontal=1, row=0)]))
        await bench.receive(dut, "o", sum(word >> _last_bit() & 1 for word in stream))
        await check(dut, *program(rng, 3))
    await nothing_comes(dut)


def _last_bit():
    return element(ADD, 0, last=1).bit_length() - 1


@cocotb.test()
async def bench_reset_mid_flow(dut):
    rng = await begin(dut)
    for cycles in range(1, 40):
        stream, _ = program(rng, 4)
        sender = cocotb.start_soon(bench.send(dut, "i", stream))
        dut.o__ready.value = cycles % 2
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        sender.cancel()
        dut.rst.value, dut.i__valid.value = 1, 0
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        await nothing_comes(dut)
        await check(dut, [element(ADD, 0, horizontal=1, row=row, last=1) for row in range(ROWS)], [0] * ROWS)
        await check(dut, *program(rng, 2))


def test_sfu():
    from nibblecore.hdl.cambriconq.vector import sfu
    from nibblecore.hdl.cambriconq.vector.sfu import Operation, Sfu

    assert (sfu.ROWS, Sfu.LOOP, Sfu.LATENCY, Sfu.FUNCTION_LATENCY, Sfu.SWITCH) == (ROWS, LOOP, LATENCY, FUNCTION_LATENCY, SWITCH)
    assert [name.lower() for name in Operation.__members__][:FUNCTION] == list(golden.OPERATIONS)
    bench.run(Sfu(), __file__, "sfu_bench", parameters={"seed": 1})


# The twin against Python's own arithmetic --------------------------------------------------------------------------------


def test_golden_operations():
    rng = np.random.default_rng(3)
    a, b = (floats(bits) for bits in fp32_vectors.every_special_pair())
    more = [floats(bits) for bits in fp32_vectors.addends(rng, 3000)]
    a, b = np.concatenate([a, more[0]]), np.concatenate([b, more[1]])
    for operation in golden.OPERATIONS:
        got = golden.elementwise(operation, a, b)
        for x, y, z in zip(a.tolist(), b.tolist(), got, strict=True):
            want = one_operation(operation, x, y)
            assert z.view(np.uint32) == np.float32(want).view(np.uint32) & 0x7FFFFFFF | (np.signbit(want) and want == want) << 31, (
                x,
                y,
            )


def one_operation(operation, x, y):
    """In binary64, which rounds a sum or product of binary32 numbers harmlessly."""
    if operation == "step":
        return float(x >= y)
    if x != x or y != y:
        return float("nan")
    if operation == "max":
        return max((x, y), key=lambda value: (value, not np.signbit(value)))
    with np.errstate(all="ignore"):
        return float(np.float32({"add": np.add, "sub": np.subtract, "mul": np.multiply}[operation](x, y)))


def test_golden_rows():
    """From the first element on, each step rounded: other orders give other sums."""
    rows = np.array([[1, 2.0**24, 1, -(2.0**24)], [2.0**24, 1, 1, -(2.0**24)]], np.float32)
    assert golden.horizontal("add", rows).tolist() == [0, 0]
    assert golden.horizontal("add", rows[:, ::-1]).tolist() == [2, 2]
    assert golden.horizontal("mul", np.array([[3, 0.5, -2]], np.float32)).tolist() == [-3]
    assert golden.horizontal("max", np.array([[-0.0, 0.0, -1], [-3, -2, np.nan]], np.float32)).view(np.uint32).tolist() == [
        0,
        0x7FC00000,
    ]
    assert golden.horizontal("add", np.array([[-0.0]], np.float32)).view(np.uint32).tolist() == [1 << 31]


def test_golden_refuses_what_does_not_exist():
    with pytest.raises(ValueError, match="step"):
        golden.horizontal("step", np.zeros((1, 1), np.float32))
    with pytest.raises(ValueError, match="no operation"):
        golden.elementwise("div", np.zeros(1, np.float32), np.zeros(1, np.float32))
