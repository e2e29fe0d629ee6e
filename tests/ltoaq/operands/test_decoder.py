import random
from dataclasses import asdict, dataclass, replace

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.config import PRESETS
from nibblecore.hdl.ltoaq.operands.decoder import Decoder
from nibblecore.sim.golden.ltoaq.operands.decoder import Malformed, decode
from nibblecore.sim.golden.ltoaq.output.encoder import encode, run_codes
from run_length import DENSITIES, SHAPES, Shape


@dataclass(frozen=True)
class Tile:
    shape: Shape
    eight_bit: bool
    words: int
    beats: list[int]

    @property
    def expected(self):
        """Words of flags; raises Malformed."""
        lanes = self.shape.word_lanes(self.eight_bit)
        flags = decode(self.beats, self.words, lanes, self.shape.bus_bits, self.shape.run_bits)
        return [bench.pack(word, 1) for word in flags.reshape(self.words, lanes)]

    @property
    def malformed(self):
        try:
            return self.expected is None
        except Malformed:
            return True

    @property
    def start(self):
        return len(self.beats) | self.words << self.shape.max_run_beats.bit_length()


def tile_of(shape, flags, eight_bit, rng, beats=None):
    """A tile of exactly these flags, with rubbish behind its codes up to `beats` beats."""
    segment = encode(flags, shape.bus_bits, shape.run_bits)
    beats = rng.randint(len(segment), shape.max_run_beats) if beats is None else beats
    rubbish = [rng.getrandbits(shape.bus_bits) for _ in range(beats - len(segment))]
    codes = 2 + len(run_codes(flags, shape.run_bits))
    if codes % shape.slots:
        segment[-1] |= (
            rng.getrandbits(shape.bus_bits) >> (codes % shape.slots * shape.run_bits) << (codes % shape.slots * shape.run_bits)
        )
    segment[-1] |= rng.getrandbits(shape.bus_bits) >> (shape.slots * shape.run_bits) << (shape.slots * shape.run_bits)
    return Tile(shape, eight_bit, len(flags) // shape.word_lanes(eight_bit), segment + rubbish)


def random_tile(shape, rng, eight_bit=None, density=None, words=None):
    eight_bit = bool(rng.randrange(2)) if eight_bit is None else eight_bit
    words = rng.choice([shape.words(eight_bit), rng.randint(1, shape.words(eight_bit))]) if words is None else words
    density = rng.choice(DENSITIES) if density is None else density
    flags = [rng.random() < density for _ in range(words * shape.word_lanes(eight_bit))]
    return tile_of(shape, flags, eight_bit, rng)


def corner_tiles(shape, rng):
    """Runs round multiples of the escape, outliers at either end of words and tiles, a segment that fills its last beat."""
    size = 2**shape.elements_bits
    for eight_bit in (False, True):
        lanes = shape.word_lanes(eight_bit)
        for run in (n * shape.escape + d for n in (1, 2, 3) for d in (-1, 0, 1)):
            if run < size:
                yield tile_of(shape, np.arange(size) == run, eight_bit, rng)
            if 2 * run + 2 <= size:
                yield tile_of(shape, np.isin(np.arange(size), (run, 2 * run + 1)), eight_bit, rng)
        for lane in (0, lanes - 1):
            yield tile_of(shape, np.arange(size) % lanes == lane, eight_bit, rng)
        for place in (0, lanes - 1, lanes, size - 1):
            yield tile_of(shape, np.arange(size) == place, eight_bit, rng)
        for count in (shape.slots - 2, shape.slots - 1, 2 * shape.slots - 2):
            yield tile_of(shape, np.arange(size) < count, eight_bit, rng, -(-(2 + count) // shape.slots))
        yield tile_of(shape, np.ones(lanes), eight_bit, rng)
        yield tile_of(shape, np.zeros(lanes), eight_bit, rng, 1)
        # Escapes up to exactly the tile's end: superfluous, but nothing runs past it.
        if size % shape.escape:
            codes = [size % shape.escape - 1] + [shape.escape] * (size // shape.escape)
            yield Tile(shape, eight_bit, shape.words(eight_bit), shape.segment(codes))


def quiet(dut):
    for port in ("start__valid", "start__payload", "eight_bit", "runs__valid", "runs__payload", "flags__ready", "clear"):
        getattr(dut, port).value = 0


async def begin(dut):
    quiet(dut)
    await bench.start(dut)
    return SHAPES[bench.parameters()["shape"]], random.Random(random.getrandbits(32))


async def send_starts(dut, tiles, pattern=None):
    for tile in tiles:
        dut.eight_bit.value = int(tile.eight_bit)
        await bench.send(dut, "start", [tile.start], pattern)
        # Taken with the start, and not looked at later.
        dut.eight_bit.value = random.getrandbits(1)


def send(dut, tiles, starts="always", runs="always", seed=1):
    """Starts and beats of `tiles`; beats come no sooner than they may."""
    return [
        cocotb.start_soon(send_starts(dut, tiles, bench.PATTERNS[starts](seed))),
        cocotb.start_soon(bench.send(dut, "runs", [beat for tile in tiles for beat in tile.beats], bench.PATTERNS[runs](seed + 1))),
    ]


async def check(dut, tiles, starts="always", runs="always", flags="always", seed=1):
    """All flags of `tiles`, in order, and nothing after them."""
    expected = [word for tile in tiles for word in tile.expected]
    senders = send(dut, tiles, starts, runs, seed)
    got = await bench.receive(dut, "flags", len(expected), bench.PATTERNS[flags](seed + 2))
    for number, (word, wanted) in enumerate(zip(got, expected, strict=True)):
        assert word == wanted, f"word {number} is {word:#x}, not {wanted:#x}"
    for sender in senders:
        await sender
    dut.flags__ready.value = 1
    for _ in range(8):
        await ReadOnly()
        assert not int(dut.flags__valid.value) and not int(dut.malformed.value)
        assert not int(dut.runs__ready.value), "a beat too many is taken"
        await RisingEdge(dut.clk)
    dut.flags__ready.value = 0


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(flags=list(bench.PATTERNS), runs=["always", "random", "rare"])
async def bench_random(dut, flags, runs):
    shape, rng = await begin(dut)
    tiles = [random_tile(shape, rng, density=density) for density in DENSITIES for _ in range(4)]
    rng.shuffle(tiles)
    await check(dut, tiles, rng.choice(list(bench.PATTERNS)), runs, flags, rng.getrandbits(20))


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(flags=["always", "random"])
async def bench_corners(dut, flags):
    shape, rng = await begin(dut)
    tiles = list(corner_tiles(shape, rng))
    await check(dut, tiles, flags=flags)
    rng.shuffle(tiles)
    await check(dut, tiles, runs="random", flags=flags)


def cycles(tile):
    """Cycles of each word by the contract."""
    shape, lanes = tile.shape, tile.shape.word_lanes(tile.eight_bit)
    flags = decode(tile.beats, tile.words, lanes, shape.bus_bits, shape.run_bits)
    codes = np.array(run_codes(flags, shape.run_bits), dtype=int)
    last_elements = np.cumsum(codes + (codes != shape.escape)) - 1
    ending = np.bincount(last_elements // lanes, minlength=tile.words)
    return [int(max(1, -(-count // shape.runs_per_cycle))) for count in ending]


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(density=DENSITIES)
async def bench_two_tiles_ahead(dut, density):
    """Two whole segments are taken while no flags are; then every word takes just its cycles, across the tiles' border too."""
    shape, rng = await begin(dut)
    tiles = []
    for eight_bit in (False, True):
        flags = [rng.random() < density for _ in range(2**shape.elements_bits)]
        tiles.append(tile_of(shape, flags, eight_bit, rng, shape.max_run_beats))
    for sender in send(dut, tiles):
        await sender
    for _ in range(4):
        await RisingEdge(dut.clk)
    expected = [word for tile in tiles for word in tile.expected]
    taken: list[int] = []
    clock = 0
    dut.flags__ready.value = 1
    while len(taken) < len(expected):
        await ReadOnly()
        if int(dut.flags__valid.value):
            assert int(dut.flags__payload.value) == expected[len(taken)]
            taken.append(clock)
        await RisingEdge(dut.clk)
        clock += 1
        assert clock < 10000
    assert list(np.diff(taken, prepend=-1)) == [1, *[n for tile in tiles for n in cycles(tile)][1:]]


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_streaming(dut):
    """Words with as many outliers as fit a cycle follow each other without a gap, tile after tile, from `latency` cycles on."""
    shape, rng = await begin(dut)
    tiles: list[Tile] = []
    for n in range(12):
        eight_bit, lanes = n % 4 == 3, shape.word_lanes(n % 4 == 3)
        while not tiles[n:]:
            words = [rng.sample(range(lanes), shape.runs_per_cycle) for _ in range(shape.words(eight_bit))]
            places = [word * lanes + lane for word, chosen in enumerate(words) for lane in chosen]
            flags = np.isin(np.arange(2**shape.elements_bits), places)
            tile = tile_of(shape, flags, eight_bit, rng, len(encode(flags, shape.bus_bits, shape.run_bits)))
            # Escapes would cost cycles.
            tiles += [tile] if set(cycles(tile)) == {1} else []
    send(dut, tiles)
    dut.flags__ready.value = 1
    first_beat, clock = None, 0
    taken: list[int] = []
    while len(taken) < sum(tile.words for tile in tiles):
        await ReadOnly()
        if first_beat is None and int(dut.runs__valid.value) and int(dut.runs__ready.value):
            first_beat = clock
        if int(dut.flags__valid.value):
            taken.append(clock)
        await RisingEdge(dut.clk)
        clock += 1
        assert clock < 10000
    assert first_beat is not None and taken[0] - first_beat == Decoder.latency
    assert taken == list(range(taken[0], taken[0] + len(taken)))


def malformed_tiles(shape, rng):
    """Each way to be malformed, at its border and far beyond it."""
    for eight_bit in (False, True):
        words = rng.randint(1, shape.words(eight_bit))
        size = words * shape.word_lanes(eight_bit)
        escapes, rest = divmod(size, shape.escape)
        past = [[shape.escape] * escapes + [rest], [shape.escape] * (escapes + 1), [shape.escape] * (escapes + 3)]
        over = [[0] * (size + 1), [0] * size + [shape.escape], [shape.escape] * escapes + [0] * (rest + 1)]
        for codes in past + over:
            if 2 + len(codes) <= shape.max_run_beats * shape.slots:
                yield Tile(shape, eight_bit, words, shape.segment(codes))
        beats = rng.randint(1, shape.max_run_beats)
        room = beats * shape.slots - 2
        for count in (room + 1, 2 ** (2 * shape.run_bits) - 1):
            yield Tile(shape, eight_bit, shape.words(eight_bit), shape.segment([0] * room, count)[:beats])


def scrambled_tile(shape, rng):
    """A tile some of whose codes are anything."""
    tile = random_tile(shape, rng)
    beats = list(tile.beats)
    for _ in range(rng.randint(1, 3)):
        slot = rng.choice([0, 2, rng.randrange(shape.slots)])
        beats[rng.randrange(len(beats))] ^= rng.getrandbits(shape.run_bits) << (slot * shape.run_bits)
    return replace(tile, beats=beats)


async def clear(dut):
    quiet(dut)
    dut.clear.value = 1
    await ReadOnly()
    assert not any(int(getattr(dut, port).value) for port in ("start__ready", "runs__ready", "flags__valid"))
    await RisingEdge(dut.clk)
    dut.clear.value = 0
    await ReadOnly()
    assert not int(dut.malformed.value) and not int(dut.flags__valid.value) and int(dut.start__ready.value)
    await RisingEdge(dut.clk)


async def fail(dut, before, bad, after, rng):
    """`bad` stops the decoder: its last word never leaves, what comes after it is dropped."""
    expected = [word for tile in before for word in tile.expected]
    senders = send(dut, [*before, bad, *after], runs=rng.choice(["always", "random"]), seed=rng.getrandbits(20))
    pattern = bench.PATTERNS[rng.choice(["always", "random", "rare"])](rng.getrandbits(20))
    words, malformed, quiet_cycles = [], False, 0
    for _ in range(50000):
        dut.flags__ready.value = int(next(pattern))
        await ReadOnly()
        assert int(dut.malformed.value) or not malformed, "malformed is sticky"
        malformed = bool(int(dut.malformed.value))
        if malformed:
            assert not int(dut.flags__valid.value) and int(dut.runs__ready.value) and int(dut.start__ready.value)
            quiet_cycles += all(sender.done() for sender in senders)
        elif int(dut.flags__valid.value) and int(dut.flags__ready.value):
            words.append(int(dut.flags__payload.value))
        await RisingEdge(dut.clk)
        if quiet_cycles > 10:
            break
    assert malformed and quiet_cycles > 10, "no end"
    # The word before may have waited when the fault was found.
    assert len(words) < len(expected) + bad.words and words[: len(expected)] == expected[: len(words)]


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_malformed(dut):
    shape, rng = await begin(dut)
    for number, bad in enumerate([*malformed_tiles(shape, rng), *(scrambled_tile(shape, rng) for _ in range(60))]):
        before = [random_tile(shape, rng) for _ in range(rng.randrange(3))]
        after = [random_tile(shape, rng) for _ in range(rng.randrange(3))]
        if not bad.malformed:
            await check(dut, [*before, bad, *after], flags="random", seed=number)
            continue
        await fail(dut, before, bad, after, rng)
        await clear(dut)
        await check(dut, after, flags="random", seed=number)


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(how=["clear", "reset"])
async def bench_interrupted(dut, how):
    """Nothing of what was on its way is left after a clear or a reset."""
    shape, rng = await begin(dut)
    for number in range(40):
        tasks = send(dut, [random_tile(shape, rng) for _ in range(6)], runs="random", seed=number)
        tasks.append(cocotb.start_soon(bench.receive(dut, "flags", 10**6, bench.PATTERNS[rng.choice(["random", "rare"])](number))))
        for _ in range(rng.randint(1, 60)):
            await RisingEdge(dut.clk)
        for task in tasks:
            task.cancel()
        if how == "clear":
            await clear(dut)
        else:
            quiet(dut)
            await bench.reset(dut)
        await check(dut, [random_tile(shape, rng) for _ in range(2)], flags="random", seed=number)


@pytest.mark.parametrize("shape", SHAPES)
def test_decoder(shape):
    if config := PRESETS.get(shape):
        component = Decoder.of(config)
        assert (component.max_run_beats, component.max_words) == (config.max_run_beats, config.tile_beats(8))
    else:
        component = Decoder(**asdict(SHAPES[shape]))
    bench.run(component, __file__, "decoder", parameters={"shape": shape})


@pytest.mark.parametrize(
    "wrong",
    [{"lanes": 12}, {"lanes": 1}, {"runs_per_cycle": 0}, {"runs_per_cycle": 9}, {"elements_bits": 12}, {"elements_bits": 3}],
)
def test_illegal_arguments(wrong):
    with pytest.raises(ValueError):
        Decoder(**(asdict(SHAPES["tiny"]) | wrong))


class TestGolden:
    """The twin against counting elements one by one."""

    @staticmethod
    def naive(codes, size, escape):
        flags, element = [False] * size, 0
        for code in codes:
            for _ in range(code):
                if element == size:
                    return None
                element += 1
            if code != escape:
                if element == size:
                    return None
                flags[element] = True
                element += 1
        return flags

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_random_codes(self, shape):
        rng, kinds = random.Random(1), set()
        for _ in range(1000):
            words, eight_bit = rng.randint(1, 4), bool(rng.randrange(2))
            lanes = shape.word_lanes(eight_bit)
            codes = [rng.choice([0, shape.escape, rng.randint(0, shape.escape)]) for _ in range(rng.randrange(2 * shape.slots))]
            beats = shape.segment(codes)
            flags = self.naive(codes, words * lanes, shape.escape)
            kinds.add(flags is None)
            if flags is None:
                with pytest.raises(Malformed):
                    decode(beats, words, lanes, shape.bus_bits, shape.run_bits)
            else:
                assert list(decode(beats, words, lanes, shape.bus_bits, shape.run_bits)) == flags
        assert kinds == {False, True}

    def test_count(self):
        shape = SHAPES["tiny"]
        room = shape.slots - 2
        assert decode(shape.segment([0] * room), 1, 16, 64, 6).sum() == room
        for beats in ([], shape.segment([0] * room, room + 1)):
            with pytest.raises(Malformed):
                decode(beats, 1, 16, 64, 6)
