"""The array, and the array with its accumulators, against twins and plain integer matrix products."""

import random
from dataclasses import dataclass, field

import bench
import cocotb
import numpy as np
import pytest
from amaranth import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.cambriconq.matrix.accumulator import schedule
from nibblecore.sim.golden.cambriconq.matrix.pe_array import PLANES, PeArray, lines

CONFIGS = [(3, 8), (2, 64), (1, 6)]
WIDTHS = [(a, w) for a in (4, 8, 12, 16) for w in (4, 8, 12, 16)]
RESULT_BITS = 38


class DotProducts(wiring.Component):
    """The array with an accumulator to each row; the ports of the array, and the accumulators' results."""

    def __init__(self, rows, cols):
        from nibblecore.hdl.cambriconq.matrix.accumulator import Accumulator
        from nibblecore.hdl.cambriconq.matrix.pe_array import PeArray, sum_bits

        self.array = PeArray(rows, cols)
        self.accumulators = [Accumulator(sum_bits(cols)) for _ in range(rows)]
        self.parameters = {
            "rows": rows,
            "cols": cols,
            "latency": self.array.latency,
            "sum_bits": sum_bits(cols),
            "result_latency": self.array.latency + Accumulator.LATENCY,
            "row_bits": len(self.array.load_row),
        }
        super().__init__({**self.array.signature.members, "result_valid": Out(rows), "result": Out(rows * RESULT_BITS)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = self.array
        for name, member in self.array.signature.members.items():
            ours, inner = getattr(self, name), getattr(self.array, name)
            m.d.comb += inner.eq(ours) if member.flow is In else ours.eq(inner)
        width = self.parameters["sum_bits"]
        for row, accumulator in enumerate(self.accumulators):
            m.submodules[f"accumulator{row}"] = accumulator
            m.d.comb += [
                accumulator.i_valid.eq(self.array.o_valid),
                accumulator.i_step.eq(self.array.o_step),
                accumulator.i_sum.eq(self.array.o_sum.word_select(row, width).as_signed()),
            ]
        m.d.comb += [
            self.result.eq(Cat(accumulator.o for accumulator in self.accumulators)),
            self.result_valid.eq(Cat(accumulator.o_valid for accumulator in self.accumulators)),
        ]
        return m


@dataclass
class Input:
    line: np.ndarray
    plane: int
    a_signed: bool = False
    w_signed: bool = False
    swap: bool = False
    step: tuple = (False, False, False)


@dataclass
class Tile:
    """Weights of every row, and the input vectors that meet them: as integers, as lines to load, as inputs cycle by cycle."""

    a: np.ndarray
    w: np.ndarray
    loads: list = field(default_factory=list)
    inputs: list = field(default_factory=list)

    @classmethod
    def of(cls, a, w, a_bits, w_bits, cols):
        """`a` of shape (passes, g·cols), `w` of shape (rows, g·cols)."""
        tile, g = cls(a, w), a.shape[1] // cols
        a_lines, w_lines = lines(a, a_bits), lines(w, w_bits)
        p_w = w_bits // 4
        for row in range(len(w)):
            for vector in range(g):
                for j in range(p_w):
                    tile.loads.append((row, vector * p_w + j, w_lines[j, row, vector * cols : (vector + 1) * cols]))
        for number in range(len(a)):
            for pair in schedule(a_bits // 4, p_w, g):
                tile.inputs.append(
                    Input(
                        a_lines[pair.i, number, pair.vector * cols : (pair.vector + 1) * cols],
                        pair.plane,
                        pair.a_signed,
                        pair.w_signed,
                        not tile.inputs,
                        (pair.first, pair.shift, pair.last),
                    )
                )
        return tile

    def results(self):
        """A line of results a pass."""
        return (self.a @ self.w.T).tolist()


def random_tile(rng, p, a_bits, w_bits, *, corners=False, g=None):
    g = g or PLANES // (w_bits // 4)
    passes = -(-p["rows"] * PLANES // (g * a_bits * w_bits // 16)) + int(rng.integers(3))

    def values(bits, shape):
        top = 2 ** (bits - 1)
        if not corners:
            return rng.integers(-top, top, shape)
        some = rng.choice([-top, 1 - top, top - 1, -1, 0, 1], shape)
        # Whole rows of one value reach the ends of every range on the way.
        for row in some[::2]:
            row[:] = rng.choice([-top, 1 - top, top - 1])
        return some

    return Tile.of(values(a_bits, (passes, g * p["cols"])), values(w_bits, (p["rows"], g * p["cols"])), a_bits, w_bits, p["cols"])


def cycles(tiles, busy=None, loading=None):
    """(input, load) of every cycle, None where there is none: each tile's weights load while the one before computes."""
    busy, loading = busy or bench.always(), loading or bench.always()
    loads = [list(tile.loads) for tile in tiles]
    while loads[0]:
        yield None, loads[0].pop(0) if next(loading) else None
    for number, tile in enumerate(tiles):
        inputs, following = list(tile.inputs), loads[number + 1] if number + 1 < len(tiles) else []
        # The tile's first input carries the swap; from that cycle on the next weights may load, and must be in when it ends.
        while inputs or following:
            started = len(inputs) < len(tile.inputs)
            item = inputs.pop(0) if inputs and next(busy) else None
            load = following.pop(0) if following and (item or started) and next(loading) else None
            yield item, load


class Checker:
    """Drives cycles and checks sums, steps and results of every one of them."""

    def __init__(self, dut, p, rng):
        self.dut, self.p, self.rng, self.now = dut, p, rng, 0
        self.forget()

    def forget(self):
        self.twin = PeArray(self.p["rows"], self.p["cols"])
        self.sums, self.due, self.result_cycles, self.results = {}, {}, [], []

    def garbage(self, bits):
        return int.from_bytes(self.rng.bytes(-(-bits // 8)), "little") & ((1 << bits) - 1)

    async def cycle(self, item, load, *, reset=False):
        dut, p, width = self.dut, self.p, 4 * self.p["cols"]
        dut.rst.value = int(reset)
        dut.i_valid.value, dut.load_valid.value = int(item is not None), int(load is not None)
        if item is None:
            item_ports = (self.garbage(width), self.garbage(2), *(self.garbage(1) for _ in range(3)), self.garbage(3))
        else:
            item_ports = (
                bench.pack(item.line.tolist(), 4),
                item.plane,
                int(item.a_signed),
                int(item.w_signed),
                int(item.swap),
                bench.pack(map(int, item.step), 1),
            )
        for port, value in zip(("line", "plane", "a_signed", "w_signed", "swap", "step"), item_ports, strict=True):
            getattr(dut, f"i_{port}").value = value
        if load is None:
            dut.load_line.value, dut.load_row.value, dut.load_plane.value = (
                self.garbage(width),
                self.garbage(p["row_bits"]),
                self.garbage(2),
            )
        else:
            dut.load_row.value, dut.load_plane.value, dut.load_line.value = load[0], load[1], bench.pack(load[2].tolist(), 4)
        await ReadOnly()
        self._look()
        if item is not None and not reset:
            sums = self.twin.input(item.line, item.plane, a_signed=item.a_signed, w_signed=item.w_signed, swap=item.swap)
            self.sums[self.now + p["latency"]] = (sums.tolist(), bench.pack(map(int, item.step), 1))
            if item.step[2]:
                self.result_cycles.append(self.now + p["result_latency"])
        if load is not None and not reset:
            self.twin.load(*load)
        await RisingEdge(dut.clk)
        self.now += 1

    def _look(self):
        dut, p = self.dut, self.p
        due = self.sums.pop(self.now, None)
        assert int(dut.o_valid.value) == (due is not None), f"o_valid in cycle {self.now}"
        if due is not None:
            assert bench.unpack(int(dut.o_sum.value), p["sum_bits"], p["rows"], signed=True) == due[0], f"sums of cycle {self.now}"
            assert int(dut.o_step.value) == due[1]
        expected = self.now in self.result_cycles
        assert int(dut.result_valid.value) == (2 ** p["rows"] - 1 if expected else 0), f"result_valid in cycle {self.now}"
        # A result holds until the next.
        if expected or self.results:
            shown = bench.unpack(int(dut.result.value), RESULT_BITS, p["rows"], signed=True)
            if expected:
                self.results.append(shown)
            assert shown == self.results[-1]

    async def run(self, program):
        """All of a program and the time it takes to come out; returns the number of its cycles."""
        count = 0
        for item, load in program:
            await self.cycle(item, load)
            count += 1
        for _ in range(self.p["result_latency"] + 1):
            await self.cycle(None, None)
        return count

    async def check(self, tiles, **patterns):
        self.results = []
        count = await self.run(cycles(tiles, **patterns))
        expected = [line for tile in tiles for line in tile.results()]
        assert self.results == expected, "results are not the integer products"
        return count


async def begin(dut):
    for port in (
        "i_valid",
        "i_line",
        "i_plane",
        "i_a_signed",
        "i_w_signed",
        "i_swap",
        "i_step",
        "load_valid",
        "load_line",
        "load_row",
        "load_plane",
    ):
        getattr(dut, port).value = 0
    await bench.start(dut)
    p, rng = bench.parameters(), np.random.default_rng(random.getrandbits(32))
    return Checker(dut, p, rng), p, rng


@cocotb.test()
async def bench_every_pair_of_widths(dut):
    """Random values, whole planes, weights loading all the time; widths change from one tile to the next."""
    checker, p, rng = await begin(dut)
    for _ in range(2):
        order = rng.permutation(len(WIDTHS))
        await checker.check([random_tile(rng, p, *WIDTHS[number]) for number in order])


@cocotb.test()
async def bench_corners_of_every_pair_of_widths(dut):
    checker, p, rng = await begin(dut)
    tiles = [random_tile(rng, p, a, w, corners=True) for a, w in WIDTHS for _ in range(3)]
    for a_bits, w_bits in WIDTHS:
        g = 16 // w_bits
        for a, w in ((-(2 ** (a_bits - 1)), -(2 ** (w_bits - 1))), (-(2 ** (a_bits - 1)), 2 ** (w_bits - 1) - 1)):
            tiles.append(Tile.of(np.full((4, g * p["cols"]), a), np.full((p["rows"], g * p["cols"]), w), a_bits, w_bits, p["cols"]))
    if p["cols"] == 64:
        assert max(abs(value) for tile in tiles for line in tile.results() for value in line) == 2**36
    await checker.check(tiles)


@cocotb.test()
async def bench_few_vectors(dut):
    """Passes that leave planes unused, down to one pair."""
    checker, p, rng = await begin(dut)
    await checker.check([random_tile(rng, p, a, w, g=g) for a, w in WIDTHS for g in range(1, 16 // w + 1)])


@cocotb.test()
async def bench_no_bubble(dut):
    """Tile after tile at the rate of a line a cycle: rows · cols products of nibbles in every cycle, swaps included."""
    checker, p, rng = await begin(dut)
    for a_bits, w_bits in WIDTHS:
        g = 16 // w_bits
        tiles = [random_tile(rng, p, a_bits, w_bits) for _ in range(4)]
        taken = await checker.check(tiles) - len(tiles[0].loads)
        macs = sum(tile.a.size * len(tile.w) for tile in tiles)
        assert macs * (a_bits * w_bits // 16) == taken * p["rows"] * p["cols"]
        # What the dequantizer relies on wherever the planes are full: four cycles from result to result.
        assert g * a_bits * w_bits // 16 >= 4 or (a_bits, w_bits) == (4, 12)


@cocotb.test()
@cocotb.parametrize(busy=list(bench.PATTERNS), loading=list(bench.PATTERNS))
async def bench_idle(dut, busy, loading):
    """Idle cycles in inputs and loads, with anything on the other ports meanwhile."""
    checker, p, rng = await begin(dut)
    patterns = {"busy": bench.PATTERNS[busy](int(rng.integers(99))), "loading": bench.PATTERNS[loading](int(rng.integers(99)))}
    await checker.check([random_tile(rng, p, *WIDTHS[number]) for number in rng.integers(0, len(WIDTHS), 3)], **patterns)


@cocotb.test()
async def bench_random_cycles(dut):
    """No order at all: any plane with any signs, loads and swaps in the same cycle and without each other, rows that do not exist."""
    checker, p, rng = await begin(dut)
    cols = p["cols"]
    for row in range(p["rows"]):
        for plane in range(PLANES):
            await checker.cycle(None, (row, plane, rng.integers(0, 16, cols)))
    await checker.cycle(Input(rng.integers(0, 16, cols), 0, swap=True), None)
    rows = 1 << max(1, (p["rows"] - 1).bit_length())
    for _ in range(3000):
        line, plane = rng.integers(0, 16, cols), int(rng.integers(PLANES))
        a_signed, w_signed = (bool(bit) for bit in rng.integers(0, 2, 2))
        item = Input(line, plane, a_signed, w_signed, bool(rng.random() < 0.2))
        load = int(rng.integers(rows)), int(rng.integers(PLANES)), rng.integers(0, 16, cols)
        await checker.cycle(item if rng.random() < 0.8 else None, load if rng.random() < 0.5 else None)


@cocotb.test()
async def bench_reset_mid_flow(dut):
    """Nothing of before comes out after, whatever the inputs say during the reset; what is loaded and swapped in then counts."""
    checker, p, rng = await begin(dut)
    for _ in range(30):
        tiles = [random_tile(rng, p, *WIDTHS[number]) for number in rng.integers(0, len(WIDTHS), 3)]
        program = list(cycles(tiles))
        for item, load in program[: int(rng.integers(1, len(program)))]:
            await checker.cycle(item, load)
        item, load = program[-1]
        await checker.cycle(item, load or (0, 0, rng.integers(0, 16, p["cols"])), reset=True)
        checker.forget()
        for _ in range(int(rng.integers(0, 3))):
            await checker.cycle(None, None)
        await checker.check(tiles[1:])


@pytest.mark.parametrize("rows, cols", CONFIGS)
def test_pe_array(rows, cols):
    dut = DotProducts(rows, cols)
    bench.run(dut, __file__, f"dot_products_{rows}x{cols}", parameters=dut.parameters)


def test_paper_array_is_three_small_modules():
    from nibblecore.hdl.cambriconq.matrix.pe_array import PeArray, sum_bits
    from nibblecore.hdl.emit.emit import emit_verilog

    array = PeArray(64, 64)
    assert (array.latency, sum_bits(64)) == (6, 15)
    verilog = emit_verilog(array, "pe_array")
    assert verilog.count("\nmodule ") == 3
    assert len(verilog) < 100_000


def test_sum_bits_are_enough_and_needed():
    """15 bits for 64 columns; 14, the paper's, for unsigned sums and for signed ones."""
    from nibblecore.hdl.cambriconq.matrix.pe_array import sum_bits

    for cols in (2, 8, 64):
        unsigned, mixed, both = 225 * cols, (-120 * cols, 105 * cols), (-56 * cols, 64 * cols)
        assert -(2 ** (sum_bits(cols) - 1)) <= mixed[0] and unsigned < 2 ** (sum_bits(cols) - 1)
        assert unsigned < 2 ** (sum_bits(cols) - 1) and unsigned >= 2 ** (sum_bits(cols) - 2)
        assert all(-(2 ** (sum_bits(cols) - 2)) <= low and high < 2 ** (sum_bits(cols) - 2) for low, high in (mixed, both))


def test_golden_array_is_a_product_of_lines():
    rng = np.random.default_rng(5)
    array = PeArray(3, 7)
    w, a = rng.integers(-8, 8, (3, 7)), rng.integers(0, 16, 7)
    for row in range(3):
        array.load(row, 2, w[row] % 16)
    assert (array.input(a, 2, a_signed=False, w_signed=True) == 0).all(), "the shadow set does not compute"
    assert (array.input(a, 2, a_signed=False, w_signed=True, swap=True) == w @ a).all()
    array.load(0, 2, np.zeros(7))
    assert (array.input(a, 2, a_signed=False, w_signed=True) == w @ a).all()


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_golden_lines_make_up_the_value(bits):
    values = np.random.default_rng(bits).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 500)
    nibbles = lines(values, bits)
    top = nibbles[-1] - 16 * (nibbles[-1] > 7)
    assert (sum(nibbles[place] * 16**place for place in range(bits // 4 - 1)) + top * 16 ** (bits // 4 - 1) == values).all()
    with pytest.raises(ValueError, match="fit"):
        lines(2 ** (bits - 1), bits)
