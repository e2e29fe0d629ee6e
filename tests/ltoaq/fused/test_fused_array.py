import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.ltoaq.fused.cluster import Operand, dot_product, operand
from nibblecore.sim.golden.ltoaq.fused.fused_array import beats, fused_array

MODES = [(bits, a, w) for bits in (4, 8) for a in (False, True) for w in (False, True)]


def random_tensor(rng, rows, words, bits, signed, ratio):
    """Codes, flags and the format of a random tensor; odd word counts are padded by a normal word of zeros."""
    lanes = {4: 4, 8: 1}[bits]
    limit = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    threshold = int(rng.choice([1, limit, rng.integers(1, limit + 1)]))
    codes = rng.integers(0, 2**bits, (rows, words, lanes))
    corner = rng.choice([0, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1], codes.shape)
    codes = np.where(rng.random(codes.shape) < 0.2, corner, codes)
    flags = rng.random(codes.shape) < ratio
    if words % 2:
        codes, flags = (np.concatenate([x, np.zeros((rows, 1, lanes), x.dtype)], axis=1) for x in (codes, flags))
    return codes, flags, threshold, int(rng.integers(4))


class Streams:
    """Drives and checks every place of the vector streams at once, each with an idle pattern of its own."""

    def __init__(self, dut, rows, columns):
        self.dut, self.rows, self.columns = dut, rows, columns
        self.cycle = 0

    def idle(self):
        dut = self.dut
        dut.a__valid.value = dut.w__valid.value = dut.result__ready.value = 0
        for port in ("eight_bit", "a_signed", "w_signed", "a_threshold", "w_threshold", "a_k", "w_k", "a__payload", "w__payload"):
            getattr(dut, port).value = 0

    def set_format(self, bits, a, w):
        dut = self.dut
        dut.eight_bit.value = int(bits == 8)
        for name, (signed, threshold, k) in (("a", a), ("w", w)):
            for field, value in (("signed", int(signed)), ("threshold", threshold), ("k", k)):
                getattr(dut, f"{name}_{field}").value = value

    async def run(self, a_beats, w_beats, results, patterns, *, limit=200_000):
        """Send every list of beats to its row or column, take `results` a column; returns [column][n] of (value, overflow)."""
        dut = self.dut
        sides = {"a": [list(x) for x in a_beats], "w": [list(x) for x in w_beats]}
        idle = {name: [patterns(f"{name}{i}") for i in range(len(lists))] for name, lists in sides.items()}
        ready_patterns = [patterns(f"result{i}") for i in range(self.columns)]
        place = {name: [0] * len(lists) for name, lists in sides.items()}
        offered = {name: [False] * len(lists) for name, lists in sides.items()}
        taken: list[list[tuple[int, bool]]] = [[] for _ in range(self.columns)]
        waiting: list[int | None] = [None] * self.columns
        while any(len(column) < results for column in taken):
            assert limit > 0, f"stuck: {[len(column) for column in taken]} of {results} results"
            limit -= 1
            for name, lists in sides.items():
                payload = valid = 0
                for i, items in enumerate(lists):
                    # Once offered, a beat stays until it is taken.
                    offered[name][i] = place[name][i] < len(items) and (offered[name][i] or next(idle[name][i]))
                    if offered[name][i]:
                        valid |= 1 << i
                        payload |= items[place[name][i]] << 41 * i
                getattr(dut, f"{name}__valid").value, getattr(dut, f"{name}__payload").value = valid, payload
            takes = [len(column) < results and next(pattern) for column, pattern in zip(taken, ready_patterns, strict=True)]
            dut.result__ready.value = bench.pack(takes, 1)
            await ReadOnly()
            for name in sides:
                ready = int(getattr(dut, f"{name}__ready").value)
                for i, is_offered in enumerate(offered[name]):
                    if is_offered and ready >> i & 1:
                        place[name][i] += 1
                        offered[name][i] = False
            valid, payload = int(dut.result__valid.value), int(dut.result__payload.value)
            for column in range(self.columns):
                word = payload >> 33 * column & (1 << 33) - 1 if valid >> column & 1 else None
                if waiting[column] is not None:
                    assert word == waiting[column], f"result {column} withdrawn or changed before it was taken"
                waiting[column] = None if takes[column] else word
                if word is not None and takes[column]:
                    value = word & 0xFFFF_FFFF
                    taken[column].append((value - 2**32 if value >> 31 else value, bool(word >> 32)))
            await RisingEdge(dut.clk)
            self.cycle += 1
        dut.a__valid.value = dut.w__valid.value = dut.result__ready.value = 0
        return taken

    async def quiet(self, cycles=60):
        self.dut.result__ready.value = (1 << self.columns) - 1
        for _ in range(cycles):
            await ReadOnly()
            assert int(self.dut.result__valid.value) == 0, "a result that nobody asked for"
            await RisingEdge(self.dut.clk)


def patterns(name, seed):
    return lambda stream: bench.PATTERNS[name](f"{stream}/{seed}")


def passes_of(rng, shape, count, bits, signs, ratio, words):
    """Beats a row and column, and expected results [column][n], of `count` passes of one format but lengths of their own."""
    rows, columns = shape
    formats = []
    for signed in signs:
        _, _, threshold, k = random_tensor(rng, 1, 1, bits, signed, 0)
        formats.append((signed, threshold, k))
    sent: list[list[list[int]]] = [[[] for _ in range(n)] for n in shape]
    expected: list[list[tuple[int, bool]]] = [[] for _ in range(columns)]
    for _ in range(count):
        length = int(rng.choice(words))
        operands = []
        for side, (signed, threshold, k), lists in zip(shape, formats, sent, strict=True):
            codes, flags, _, _ = random_tensor(rng, side, length, bits, signed, ratio)
            operands.append(operand(codes, flags, bits, signed, threshold, k))
            for i, items in enumerate(lists):
                items += garbled(rng, beats(codes[i], flags[i], bits), bits)
        values, overflow = fused_array(*operands)
        for column, results in enumerate(expected):
            results += [(int(values[row, column]), bool(overflow[row, column])) for row in range(rows)]
    return formats, sent, expected


def garbled(rng, items, bits):
    """In 8-bit mode the upper half of the codes and three of the flags mean nothing: fill them."""
    if bits == 4:
        return items
    noise = [int(rng.integers(1 << 8)) << 8 | int(rng.integers(8)) << 17 for _ in range(2 * len(items))]
    return [item | noise[2 * n] | noise[2 * n + 1] << 20 for n, item in enumerate(items)]


async def started(dut):
    p = bench.parameters()
    streams = Streams(dut, p["rows"], p["columns"])
    streams.idle()
    await bench.start(dut)
    return streams, (p["rows"], p["columns"]), np.random.default_rng(random.getrandbits(32))


@cocotb.test()
async def bench_every_mode_at_every_outlier_ratio(dut):
    streams, shape, rng = await started(dut)
    for bits, *signs in MODES:
        for ratio in (0, 0.05, 0.2, 0.5):
            formats, sent, expected = passes_of(rng, shape, 4, bits, signs, ratio, words=(1, 2, 3, 8, 13, 24))
            streams.set_format(bits, *formats)
            taken = await streams.run(*sent, len(expected[0]), patterns("always", 0))
            assert taken == expected, f"{bits} bits, signs {signs}, outliers {ratio}, formats {formats}"
    await streams.quiet()


@cocotb.test()
async def bench_idle_and_back_pressure(dut):
    streams, shape, rng = await started(dut)
    for name in bench.PATTERNS:
        for output in bench.PATTERNS:
            formats, sent, expected = passes_of(rng, shape, 5, 4, (True, False), 0.1, words=(1, 2, 5, 9))
            streams.set_format(4, *formats)
            seed = random.getrandbits(32)
            choose = {"r": patterns(output, seed)}
            taken = await streams.run(*sent, len(expected[0]), lambda s, c=choose, n=name, d=seed: c.get(s[0], patterns(n, d))(s))
            assert taken == expected, f"inputs {name}, outputs {output}"
    await streams.quiet()


@cocotb.test()
async def bench_one_input_late(dut):
    """Each edge stream in turn starves the others."""
    streams, shape, rng = await started(dut)
    for side, count in zip("aw", shape, strict=True):
        for slow in range(count):
            formats, sent, expected = passes_of(rng, shape, 3, 4, (True, True), 0.05, words=(4, 7))
            streams.set_format(4, *formats)
            late = f"{side}{slow}"
            taken = await streams.run(
                *sent, len(expected[0]), lambda s, late=late: bench.PATTERNS["rare" if s == late else "always"](f"{s}/{late}")
            )
            assert taken == expected, late


@cocotb.test()
async def bench_shortest_passes_back_to_back(dut):
    streams, shape, rng = await started(dut)
    for bits in (4, 8):
        formats, sent, expected = passes_of(rng, shape, 40, bits, (True, True), 0.3, words=(1, 2))
        streams.set_format(bits, *formats)
        assert await streams.run(*sent, len(expected[0]), patterns("always", 0)) == expected


@cocotb.test()
async def bench_overflow_is_flagged_and_forgotten(dut):
    streams, (rows, columns), _ = await started(dut)
    streams.set_format(8, (False, 255, 3), (False, 255, 3))
    # 600 products of (255 + 255·8)² pass 2^31 and, unsigned as they are, never come back.
    big = (np.full((1, 600, 1), 255), np.ones((1, 600, 1), bool))
    small = (np.full((1, 4, 1), 255), np.ones((1, 4, 1), bool))
    stream, expected = [], []
    for codes, flags in (big, small):
        stream += beats(codes[0], flags[0], 8)
        side = operand(codes, flags, 8, False, 255, 3)
        values, overflow = fused_array(side, side)
        expected += [(int(values[0, 0]), bool(overflow[0, 0]))] * rows
    assert [overflow for _, overflow in expected] == [True] * rows + [False] * rows
    taken = await streams.run([stream] * rows, [stream] * columns, 2 * rows, patterns("always", 0))
    assert taken == [expected] * columns


@cocotb.test()
async def bench_reset_mid_flow(dut):
    streams, shape, rng = await started(dut)
    for _ in range(20):
        formats, sent, expected = passes_of(rng, shape, 3, 4, (True, True), 0.3, words=(6, 9))
        streams.set_format(4, *formats)
        dut.result__ready.value = 0
        for side in "aw":
            getattr(dut, f"{side}__valid").value = random.getrandbits(shape["aw".index(side)])
            getattr(dut, f"{side}__payload").value = random.getrandbits(41 * shape["aw".index(side)])
        for _ in range(random.randrange(1, 30)):
            await RisingEdge(dut.clk)
        await bench.reset(dut, 1)
        dut.a__valid.value = dut.w__valid.value = 0
        await bench.reset(dut, 1)
        assert await streams.run(*sent, len(expected[0]), patterns("random", rng.integers(1 << 30))) == expected


@cocotb.test()
async def bench_latency_and_throughput(dut):
    streams, (rows, columns), _ = await started(dut)
    streams.set_format(4, (True, 7, 0), (True, 7, 0))
    length = bench.parameters()["pass_beats"]
    codes, flags = np.full((2 * length, 4), 1), np.zeros((2 * length, 4), bool)
    stream = beats(codes, flags, 4) * 8
    dut.result__ready.value = (1 << columns) - 1
    sent_at: list[int] = []
    seen: list[list[int]] = [[] for _ in range(columns)]
    place, cycle = {"a": [0] * rows, "w": [0] * columns}, 0
    while any(len(column) < 8 * rows for column in seen):
        for side, places in place.items():
            getattr(dut, f"{side}__valid").value = bench.pack([n < len(stream) and cycle >= i for i, n in enumerate(places)], 1)
            getattr(dut, f"{side}__payload").value = bench.pack([stream[min(n, len(stream) - 1)] for n in places], 41)
        await ReadOnly()
        valid = int(dut.result__valid.value)
        for column, items in enumerate(seen):
            if valid >> column & 1:
                items.append(cycle)
        for side, places in place.items():
            ready = int(getattr(dut, f"{side}__ready").value)
            for i, n in enumerate(places):
                if n < len(stream) and cycle >= i and ready >> i & 1:
                    places[i] += 1
                    if side == "a" and i == 0 and places[i] % length == 0:
                        sent_at.append(cycle)
        await RisingEdge(dut.clk)
        cycle += 1
        assert cycle < 2000
    latency = bench.parameters()["latency"]
    for column, items in enumerate(seen):
        measured = [at - sent_at[0] for at in items[:rows]]
        assert measured == latency[column], f"column {column}: {measured}"
        # Every pass at full rate: the results of one row are one pass apart.
        assert all(items[n + rows] - items[n] == length for n in range(len(items) - rows)), items


@pytest.mark.parametrize("rows, columns, depth", [(2, 2, 2), (4, 4, 4)])
def test_fused_array(rows, columns, depth):
    from nibblecore.hdl.ltoaq.fused.fused_array import FusedArray

    array = FusedArray(rows, 2 * columns, depth)
    latency = [[array.latency(row, column) for row in range(rows)] for column in range(columns)]
    parameters = {"rows": rows, "columns": columns, "latency": latency, "pass_beats": 8}
    bench.run(array, __file__, "fused_array", parameters=parameters)


@pytest.mark.parametrize("bits, a_signed, w_signed", MODES)
def test_golden_is_a_product_of_real_numbers(bits, a_signed, w_signed):
    rng = np.random.default_rng(1)
    sides, reals = [], []
    for signed, rows in ((a_signed, 3), (w_signed, 5)):
        codes, flags, threshold, k = random_tensor(rng, rows, 10, bits, signed, 0.3)
        sides.append(operand(codes, flags, bits, signed, threshold, k))
        real = np.zeros(codes.shape)
        for place, code in np.ndenumerate(codes):
            sign = -1 if signed and code >> (bits - 1) else 1
            if flags[place]:
                magnitude = int(code) & (2 ** (bits - 1) - 1) if signed else int(code)
                real[place] = sign * (threshold + magnitude * 2.0**k)
            else:
                real[place] = float(int(code) - 2**bits if sign < 0 else int(code))
        reals.append(real.reshape(rows, -1))
    values, overflow = fused_array(*sides)
    assert not overflow.any()
    assert (values == reals[0] @ reals[1].T).all()
    for row, column in np.ndindex(3, 5):
        one = [Operand(*(x[n] for x in side)) for side, n in zip(sides, (row, column), strict=True)]
        assert dot_product(*one) == (values[row, column], False)
