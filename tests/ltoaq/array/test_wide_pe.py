import random
from itertools import product

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.ltoaq.array.pair_packer import packed
from nibblecore.sim.golden.ltoaq.array.wide_pe import accumulate, word_sums


class Driver:
    """Feeds words and checks every output in every cycle; the accumulator is followed word by word."""

    def __init__(self, dut, eight_bit):
        self.dut, self.eight_bit, self.lanes = dut, eight_bit, bench.parameters()["lanes"]
        self.paired = bench.parameters()["paired"]
        self.least = -31 if self.paired else -32
        self.last = (0, 0, 0)
        # Of the pass under way and the one before it; None before the first boundary.
        self.sums = self.closed = None

    async def idle(self, boundary, drain_in=0):
        await self.word([0] * self.lanes, [0] * self.lanes, boundary, drain_in)

    def random(self, rng, extreme=False):
        """Lanes of A and W; in 8-bit mode halves of operands, all of them −1024 if `extreme`."""
        if not self.eight_bit:
            return [[rng.randrange(self.least, 32) for _ in range(self.lanes)] for _ in range(2)]
        return [halves([-1024 if extreme else rng.randrange(-1024, 1024) for _ in range(self.lanes // 4)], role) for role in "aw"]

    def packed(self, lanes, role):
        return packed(lanes, role, eight_bit=self.eight_bit) if self.paired else bench.pack(lanes, 6)

    async def word(self, a, w, boundary, drain_in=0):
        """One cycle: `drain_in` must be 0 where the word before carried the boundary."""
        dut = self.dut
        given = *(self.packed(lanes, role) for lanes, role in ((a, "a"), (w, "w"))), int(boundary)
        dut.a.value, dut.w.value, dut.boundary.value = given
        dut.drain_in.value = drain_in
        await ReadOnly()
        assert (int(dut.a_next.value), int(dut.w_next.value), int(dut.boundary_next.value)) == self.last
        if not self.last[2]:
            assert int(dut.drain_out.value) == drain_in
        elif self.closed is not None:
            total, overflow = accumulate(self.closed)
            assert int(dut.drain_out.value) == int(total) & (2**32 - 1) | int(overflow) << 32
        await RisingEdge(dut.clk)
        self.last = given
        if boundary:
            self.closed, self.sums = self.sums, []
        if self.sums is not None:
            self.sums.append(int(word_sums(a, w, eight_bit=self.eight_bit)))


async def begin(dut, eight_bit):
    dut.a.value = dut.w.value = dut.boundary.value = dut.drain_in.value = 0
    dut.eight_bit.value = int(eight_bit)
    await bench.start(dut)
    await RisingEdge(dut.clk)
    return Driver(dut, eight_bit), random.Random(random.getrandbits(32))


def halves(values, role):
    pairs = [(value & 31, value >> 5) for value in values]
    return [half for low, high in pairs for half in ([low, high, low, high] if role == "a" else [low, low, high, high])]


@cocotb.test()
async def bench_every_pair_in_each_lane(dut):
    """Each pair is a pass of its own, so that its product alone is on the bus."""
    pe, _ = await begin(dut, False)
    values = range(pe.least, 32)
    for lane in range(pe.lanes):
        for x, y in product(values, values):
            a, w = [0] * pe.lanes, [0] * pe.lanes
            a[lane], w[lane] = x, y
            await pe.word(a, w, True)
    await pe.idle(True)
    await pe.idle(False)


@cocotb.test()
async def bench_corners_of_all_lanes(dut):
    """Values at the ends and round 0 in all lanes at once: paired, lanes borrow from one another."""
    pe, rng = await begin(dut, False)
    ends = [pe.least, 31, -1, 0, 1]
    words = list(product(ends, repeat=4))
    for a in words:
        for w in rng.sample(words, 25):
            await pe.word(list(a) * (pe.lanes // 4), list(w) * (pe.lanes // 4), True)
    await pe.idle(True)
    await pe.idle(False)


@cocotb.test()
async def bench_eight_bit_products(dut):
    pe, rng = await begin(dut, True)
    corners = [-1024, -1023, -992, -993, -33, -32, -31, -1, 0, 1, 31, 32, 992, 1023]
    values = pe.lanes // 4
    for group in range(values):
        for x in corners:
            for y in corners:
                # The other product of the word is a corner as well.
                a, w = [rng.choice(corners) for _ in range(values)], [rng.choice(corners) for _ in range(values)]
                a[group], w[group] = x, y
                await pe.word(halves(a, "a"), halves(w, "w"), True)
    for _ in range(5000):
        await pe.word(*pe.random(rng), True)
    await pe.idle(True)
    await pe.idle(False)


@cocotb.test()
@cocotb.parametrize(eight_bit=[False, True], pattern=list(bench.PATTERNS))
async def bench_passes(dut, eight_bit, pattern):
    """Passes of random length with idle words, traffic of other rows on the bus, and overflow now and then."""
    pe, rng = await begin(dut, eight_bit)
    busy = bench.PATTERNS[pattern](rng.getrandbits(16))
    for number in range(15):
        extreme = eight_bit and number == 7
        length = 2100 if extreme else rng.randrange(1, 50)
        for step in range(length):
            while step and not next(busy) and not extreme:
                await pe.idle(False, 0 if pe.last[2] else rng.getrandbits(33))
            await pe.word(*pe.random(rng, extreme), step == 0, 0 if pe.last[2] else rng.getrandbits(33))
    for boundary in (True, False):
        await pe.idle(boundary)


@cocotb.test()
async def bench_reset_forgets_the_boundary(dut):
    pe, rng = await begin(dut, False)
    for _ in range(20):
        await pe.word(*pe.random(rng), True)
        dut.boundary.value, dut.rst.value = 1, 1
        await RisingEdge(dut.clk)
        dut.boundary.value, dut.rst.value = 0, 0
        await ReadOnly()
        assert int(dut.boundary_next.value) == 0 and int(dut.drain_out.value) == 0
        await RisingEdge(dut.clk)
        pe.last = (int(dut.a.value), int(dut.w.value), 0)
        pe.sums = None


@pytest.mark.parametrize(("lanes", "paired"), [(4, False), (8, False), (4, True)])
def test_pe(lanes, paired):
    from nibblecore.hdl.ltoaq.array.wide_pe import WidePe

    name = f"wide_pe_{lanes}{'_paired' * paired}_bench"
    bench.run(WidePe(lanes, paired), __file__, name, parameters={"lanes": lanes, "paired": paired})


def test_other_numbers_of_lanes_are_refused():
    from nibblecore.hdl.ltoaq.array.wide_pe import WidePe

    with pytest.raises(ValueError, match="lanes"):
        WidePe(6)
    with pytest.raises(ValueError, match="four lanes"):
        WidePe(8, paired=True)


@pytest.mark.parametrize("lanes", [4, 8])
def test_golden_sums_are_products(lanes):
    rng = np.random.default_rng(3)
    x, y = rng.integers(-1024, 1024, (2, 500, lanes // 4))
    a, w = (np.array([halves(word, role) for word in values.tolist()]) for values, role in ((x, "a"), (y, "w")))
    assert (word_sums(a, w, eight_bit=True) == (x * y).sum(axis=1)).all()
    a, w = rng.integers(-32, 32, (2, 500, lanes))
    assert (word_sums(a, w, eight_bit=False) == np.einsum("ij,ij->i", a, w)).all()


@pytest.mark.parametrize("lanes", [[32, 0, 0, 0], [0, 0, 0, -33]])
def test_golden_refuses_lanes_out_of_range(lanes):
    with pytest.raises(ValueError, match="outside"):
        word_sums(lanes, [0] * 4, eight_bit=False)


def test_golden_refuses_negative_low_halves():
    for lanes in (4, 8):
        with pytest.raises(ValueError, match="low halves"):
            word_sums([0] * (lanes - 2) + [-1, 0], [0] * lanes, eight_bit=True)
