import random
from dataclasses import asdict

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.config import PRESETS
from nibblecore.hdl.ltoaq.output.encoder import Encoder
from nibblecore.sim.golden.ltoaq.operands.decoder import decode, unpack_codes
from nibblecore.sim.golden.ltoaq.output.encoder import encode, run_codes
from run_length import DENSITIES, SHAPES

NO_LIMIT = 0xFFFF


class Tile:
    """Flags of a tile, the words they come in, and the segment they make."""

    def __init__(self, shape, flags, eight_bit):
        self.shape, self.flags, self.eight_bit = shape, np.asarray(flags, dtype=bool), eight_bit
        self.lanes = shape.word_lanes(eight_bit)
        self.beats = encode(self.flags, shape.bus_bits, shape.run_bits)

    @property
    def words(self):
        """Payloads; what lies above the lanes in use is rubbish."""
        words = [bench.pack(word, 1) for word in self.flags.reshape(-1, self.lanes)]
        above = self.shape.lanes - self.lanes
        words = [word | random.getrandbits(above) << self.lanes for word in words] if above else words
        return [*words[:-1], words[-1] | 1 << self.shape.lanes]

    @property
    def cycles(self):
        """Cycles of each word by the contract: the codes of its outliers, escapes included."""
        codes = run_codes(self.flags, self.shape.run_bits)
        marks, elements = np.array(codes, dtype=int) != self.shape.escape, np.flatnonzero(self.flags)
        # An escape counts for the word of the next outlier.
        places = [elements[marks[:n].sum()] for n in range(len(codes))]
        counts = np.bincount(np.array(places, dtype=int) // self.lanes, minlength=self.flags.size // self.lanes)
        return [int(max(1, -(-count // self.shape.runs_per_cycle))) for count in counts]


def random_tile(shape, rng, density=None):
    eight_bit = bool(rng.randrange(2))
    words = rng.choice([shape.words(eight_bit), rng.randint(1, shape.words(eight_bit))])
    density = rng.choice(DENSITIES) if density is None else density
    return Tile(shape, [rng.random() < density for _ in range(words * shape.word_lanes(eight_bit))], eight_bit)


def corner_tiles(shape):
    """Runs round multiples of the escape, outliers at either end of words and tiles, codes that just fill a beat."""
    size = 2**shape.elements_bits
    for eight_bit in (False, True):
        lanes = shape.word_lanes(eight_bit)
        for run in (n * shape.escape + d for n in (1, 2, 3, 4, 8) for d in (-1, 0, 1)):
            if run < size:
                yield Tile(shape, np.arange(size) == run, eight_bit)
            if 2 * run + 2 <= size:
                yield Tile(shape, np.isin(np.arange(size), (run, 2 * run + 1)), eight_bit)
        for lane in (0, lanes - 1):
            yield Tile(shape, np.arange(size) % lanes == lane, eight_bit)
        for place in (0, lanes - 1, lanes, size - 1):
            yield Tile(shape, np.arange(size) == place, eight_bit)
        for count in range(shape.slots - 4, shape.slots + 1):
            yield Tile(shape, np.arange(size) < count, eight_bit)
            yield Tile(shape, np.arange(size) >= size - count, eight_bit)
        yield Tile(shape, np.ones(lanes), eight_bit)
        yield Tile(shape, np.zeros(lanes), eight_bit)


def quiet(dut):
    for port in ("flags__valid", "flags__payload", "eight_bit", "runs__ready", "clear"):
        getattr(dut, port).value = 0
    dut.limit.value = NO_LIMIT


async def begin(dut):
    quiet(dut)
    await bench.start(dut)
    return SHAPES[bench.parameters()["shape"]], random.Random(random.getrandbits(32))


async def send(dut, tiles, pattern):
    for tile in tiles:
        dut.eight_bit.value = int(tile.eight_bit)
        await bench.send(dut, "flags", tile.words, pattern)
    dut.flags__valid.value = 0


async def check_beats(dut, expected):
    """`segment_beats` is that of the segment whose beat is offered."""
    beats = iter(expected)
    wanted = next(beats)
    while True:
        await ReadOnly()
        if int(dut.runs__valid.value):
            assert int(dut.segment_beats.value) == wanted
            if int(dut.runs__ready.value):
                wanted = next(beats, 0)
        await RisingEdge(dut.clk)


async def check(dut, tiles, flags="always", runs="always", seed=1):
    """The segments of `tiles`, in order, and nothing after them."""
    last = 1 << tiles[0].shape.bus_bits if tiles else 0
    expected = [beat | (last if n == len(tile.beats) - 1 else 0) for tile in tiles for n, beat in enumerate(tile.beats)]
    watch = cocotb.start_soon(check_beats(dut, [len(tile.beats) for tile in tiles for _ in tile.beats]))
    sender = cocotb.start_soon(send(dut, tiles, bench.PATTERNS[flags](seed)))
    got = await bench.receive(dut, "runs", len(expected), bench.PATTERNS[runs](seed + 1))
    for number, (beat, wanted) in enumerate(zip(got, expected, strict=True)):
        assert beat == wanted, f"beat {number} is {beat:#x}, not {wanted:#x}"
    await sender
    watch.cancel()
    dut.runs__ready.value = 1
    for _ in range(8):
        await ReadOnly()
        assert not int(dut.runs__valid.value) and not int(dut.overflow.value)
        await RisingEdge(dut.clk)
    dut.runs__ready.value = 0


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(flags=list(bench.PATTERNS), runs=list(bench.PATTERNS))
async def bench_random(dut, flags, runs):
    shape, rng = await begin(dut)
    tiles = [random_tile(shape, rng, density=density) for density in DENSITIES for _ in range(4)]
    rng.shuffle(tiles)
    await check(dut, tiles, flags, runs, rng.getrandbits(20))


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(runs=["always", "random"])
async def bench_corners(dut, runs):
    shape, rng = await begin(dut)
    tiles = list(corner_tiles(shape))
    await check(dut, tiles, runs=runs)
    rng.shuffle(tiles)
    await check(dut, tiles, flags="random", runs=runs)


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(density=DENSITIES)
async def bench_throughput(dut, density):
    """Every word takes just its cycles, across the border of tiles too; the first beat comes `latency` after the last word."""
    shape, rng = await begin(dut)
    tiles = []
    for eight_bit in (False, True, False, False):
        tiles.append(Tile(shape, [rng.random() < density for _ in range(2**shape.elements_bits)], eight_bit))
    cocotb.start_soon(send(dut, tiles, bench.always()))
    dut.runs__ready.value = 1
    cycles = [n for tile in tiles for n in tile.cycles]
    taken: list[int] = []
    beats: list[int] = []
    clock = 0
    while len(taken) < len(cycles) or not beats:
        await ReadOnly()
        if int(dut.flags__valid.value) and int(dut.flags__ready.value):
            taken.append(clock)
        if int(dut.runs__valid.value):
            beats.append(clock)
        await RisingEdge(dut.clk)
        clock += 1
        assert clock < 10000
    assert list(np.diff(taken)) == cycles[:-1]
    last = len(tiles[0].cycles) - 1
    assert beats[0] == taken[last] + tiles[0].cycles[-1] - 1 + Encoder.latency


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_one_tile_ahead(dut):
    """While a segment waits, all words of the longest next one are taken."""
    shape, _ = await begin(dut)
    tiles = [Tile(shape, np.ones(2**shape.elements_bits), False) for _ in range(2)]
    await send(dut, tiles, bench.always())
    last = 1 << shape.bus_bits
    got = await bench.receive(dut, "runs", 2 * shape.max_run_beats)
    assert got == 2 * [*tiles[0].beats[:-1], tiles[0].beats[-1] | last]


async def clear(dut):
    quiet(dut)
    dut.clear.value = 1
    await ReadOnly()
    assert not int(dut.flags__ready.value) and not int(dut.runs__valid.value)
    await RisingEdge(dut.clk)
    dut.clear.value = 0
    await ReadOnly()
    assert not int(dut.overflow.value) and not int(dut.runs__valid.value) and int(dut.flags__ready.value)
    await RisingEdge(dut.clk)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_overflow(dut):
    """A segment of `limit` beats passes; one more stops the encoder until it is cleared."""
    shape, rng = await begin(dut)
    for number in range(30):
        bad = random_tile(shape, rng, rng.choice([0.3, 0.5, 1]))
        while len(bad.beats) == 1:
            bad = Tile(shape, np.ones(shape.word_lanes(False) * shape.words(False)), False)
        limit = rng.choice([len(bad.beats) - 1, rng.randint(1, len(bad.beats) - 1)])
        dut.limit.value = len(bad.beats)
        await check(dut, [bad], flags="random", runs="random", seed=number)
        dut.limit.value = limit
        before = [tile for tile in (random_tile(shape, rng) for _ in range(3)) if len(tile.beats) <= limit]
        after = [random_tile(shape, rng) for _ in range(2)]
        sender = cocotb.start_soon(send(dut, [*before, bad, *after], bench.PATTERNS["random"](number)))
        expected, got, overflow, quiet_cycles = [beat for tile in before for beat in tile.beats], [], False, 0
        pattern = bench.PATTERNS[rng.choice(["always", "random", "rare"])](number)
        for _ in range(50000):
            dut.runs__ready.value = int(next(pattern))
            await ReadOnly()
            assert int(dut.overflow.value) or not overflow, "overflow is sticky"
            overflow = bool(int(dut.overflow.value))
            if overflow:
                assert not int(dut.runs__valid.value) and int(dut.flags__ready.value)
                quiet_cycles += sender.done()
            elif int(dut.runs__valid.value) and int(dut.runs__ready.value):
                got.append(int(dut.runs__payload.value) & ((1 << shape.bus_bits) - 1))
            await RisingEdge(dut.clk)
            if quiet_cycles > 10:
                break
        assert quiet_cycles > 10, "no end"
        assert got == expected[: len(got)]
        await clear(dut)
        await check(dut, [tile for tile in after if len(tile.beats) <= NO_LIMIT], runs="random", seed=number)


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(how=["clear", "reset"])
async def bench_interrupted(dut, how):
    """Nothing of what was on its way is left after a clear or a reset."""
    shape, rng = await begin(dut)
    for number in range(40):
        tasks = [
            cocotb.start_soon(send(dut, [random_tile(shape, rng) for _ in range(6)], bench.PATTERNS["random"](number))),
            cocotb.start_soon(bench.receive(dut, "runs", 10**6, bench.PATTERNS[rng.choice(["random", "rare"])](number))),
        ]
        for _ in range(rng.randint(1, 60)):
            await RisingEdge(dut.clk)
        for task in tasks:
            task.cancel()
        if how == "clear":
            await clear(dut)
        else:
            quiet(dut)
            await bench.reset(dut)
        await check(dut, [random_tile(shape, rng) for _ in range(2)], runs="random", seed=number)


@pytest.mark.parametrize("shape", SHAPES)
def test_encoder(shape):
    if config := PRESETS.get(shape):
        component = Encoder.of(config)
        assert component.max_run_beats == config.max_run_beats
    else:
        component = Encoder(**asdict(SHAPES[shape]))
    bench.run(component, __file__, "encoder", parameters={"shape": shape})


@pytest.mark.parametrize(
    "wrong",
    [
        {"lanes": 12},
        {"lanes": 1},
        {"lanes": 128},
        {"runs_per_cycle": 0},
        {"runs_per_cycle": 8},
        {"elements_bits": 12},
        {"elements_bits": 3},
    ],
)
def test_illegal_arguments(wrong):
    with pytest.raises(ValueError):
        Encoder(**(asdict(SHAPES["tiny"]) | wrong))


class TestGolden:
    @staticmethod
    def naive(flags, escape):
        """The codes, counting elements one by one."""
        codes, waiting, run = [], 0, 0
        for flag in flags:
            if flag:
                codes += [escape] * waiting + [run]
                waiting, run = 0, 0
            else:
                run += 1
            if run == escape:
                waiting, run = waiting + 1, 0
        return codes

    @pytest.mark.parametrize("density", DENSITIES)
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_random_flags(self, shape, density):
        rng = np.random.default_rng(1)
        for tile in [Tile(shape, rng.random(2**shape.elements_bits) < density, False) for _ in range(20)] + list(
            corner_tiles(shape)
        ):
            codes = self.naive(tile.flags, shape.escape)
            assert tile.beats == shape.segment(codes)
            assert list(unpack_codes(tile.beats, shape.bus_bits, shape.run_bits)[2 : 2 + len(codes)]) == codes
            words = tile.flags.size // tile.lanes
            assert np.array_equal(decode(tile.beats, words, tile.lanes, shape.bus_bits, shape.run_bits), tile.flags)

    def test_count(self):
        with pytest.raises(ValueError, match="cannot be counted"):
            encode(np.ones(64), 23, 3)
