import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from nibblecore.hdl.config import PRESETS, TINY, LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import MatrixShape, RawJob, TileIndex
from nibblecore.sim.golden.ltoaq.output.raw_loader import bursts, line_beats, padded_tiles
from structs import join, split

WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256)
ONE_PART = LtoaqConfig(name="one_part", rows=8, cols=8, tile=8, bus_bytes=32, bank_words=256)
CONFIGS = {config.name: config for config in (TINY, WIDE_BUS, ONE_PART, PRESETS["fpga_fused"])}


class TileBuffer:
    """Takes writes and hands over whole tiles; accepts writes while `pattern` says that a half is free."""

    def __init__(self, dut, config, pattern):
        self.dut, self.config, self.pattern = dut, config, pattern
        self.tiles = []

    async def run(self):
        dut, config = self.dut, self.config
        s, c = config.tile, config.output_cols
        tile = np.full((s, s), -1)
        seen = np.zeros((s, s), bool)
        while True:
            dut.raw_ready.value = int(next(self.pattern))
            await ReadOnly()
            enable = int(dut.raw_enable.value)
            if enable:
                assert dut.raw_ready.value, "write without room"
            words = bench.unpack(int(dut.raw_data.value), 32, c, signed=True)
            row, first = int(dut.raw_row.value), int(dut.raw_part.value) * c
            for column in range(c):
                if enable >> column & 1:
                    assert not seen[row, first + column], "element written twice"
                    tile[row, first + column], seen[row, first + column] = words[column], True
            if dut.raw_done.value:
                assert seen.all(), "tile not complete"
                self.tiles.append(tile.copy())
                seen[:] = False
            await RisingEdge(dut.clk)


def matrix(rng, m, n, config):
    """(address, pitch, elements, memory in 32-bit words); what lies between the rows is not zero."""
    bus = config.bus_bytes
    pitch = -(-4 * n // bus) * bus + bus * rng.randrange(3)
    address = bus * rng.randrange(5)
    generator = np.random.default_rng(rng.getrandbits(32))
    memory = generator.integers(-(2**31), 2**31, (address + m * pitch) // 4)
    elements = memory[address // 4 :].reshape(m, pitch // 4)[:, :n]
    return address, pitch, elements, memory


async def serve(dut, expected, memories, patterns):
    """The read DMA: checks each command and answers with its beats, in order."""
    beats = []

    async def commands():
        for which, burst in expected:
            word = (await bench.receive(dut, "read_command", 1, patterns[0]))[0]
            assert (word & 2**32 - 1, word >> 32) == burst
            beats.extend(line_beats(memories[which], burst, bench.parameters()["bus_bytes"]))

    async def data():
        total = sum(burst[1] for _, burst in expected)
        for _ in range(total):
            while not beats:
                await RisingEdge(dut.clk)
            await bench.send(dut, "read_data", [beats.pop(0)], patterns[1])

    return [cocotb.start_soon(commands()), cocotb.start_soon(data())]


async def start(dut):
    for port in ("pair", "start", "raw_ready", "read_command__ready", "read_data__valid", "tile__ready"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return CONFIGS[bench.parameters()["config"]], random.Random(random.getrandbits(32))


async def load(dut, config, rng, m, n, pair, patterns):
    matrices = [matrix(rng, m, n, config) for _ in range(1 + pair)]
    s = config.tile
    dut.shape.value = join(MatrixShape, {"m": m, "n": n, "m_tiles": -(-m // s), "n_tiles": -(-n // s)})
    for port, (address, pitch, _, _) in zip(("x", "g"), matrices, strict=False):
        getattr(dut, port).value = join(RawJob, {"address": address, "pitch": pitch})
    expected = list(bursts(m, n, [(address, pitch) for address, pitch, _, _ in matrices], config))
    per_tile = [min(m, row + s) - row for row in range(0, m, s) for _ in range(0, n, s) for _ in matrices]
    which = [number % len(matrices) for number, count in enumerate(per_tile) for _ in range(count)]
    tiles = [list(padded_tiles(elements, s)) for _, _, elements, _ in matrices]
    wanted = [tile for group in zip(*tiles, strict=True) for tile in group]
    buffer = TileBuffer(dut, config, patterns[2])
    tasks = [cocotb.start_soon(buffer.run())]
    dut.pair.value, dut.start.value = int(pair), 1
    await RisingEdge(dut.clk)
    dut.start.value = 0
    memories = [memory for _, _, _, memory in matrices]
    dma = await serve(dut, list(zip(which, expected, strict=True)), memories, patterns)
    announced = cocotb.start_soon(bench.receive(dut, "tile", len(tiles[0]), patterns[3]))
    await FallingEdge(dut.clk)
    while len(buffer.tiles) < len(wanted):
        assert dut.busy.value, "not busy before the last tile"
        await FallingEdge(dut.clk)
    for task in dma:
        await task
    places = [split(TileIndex, word) for word in await announced]
    assert [(place["row"], place["col"]) for place in places] == [(row, col) for row, col, _ in tiles[0]]
    for (row, col, tile), seen in zip(wanted, buffer.tiles, strict=True):
        assert (seen == tile).all(), f"tile {row}, {col}"
    for _ in range(3):
        await FallingEdge(dut.clk)
    assert not dut.busy.value and not dut.tile__valid.value and not dut.read_command__valid.value
    tasks[0].cancel()


def sizes(config, rng):
    s = config.tile
    yield from [(1, 1), (s, s), (1, 2 * s + 1), (2 * s + 1, 1), (s + 1, s - 1)]
    for _ in range(4):
        yield rng.randint(1, 3 * s), rng.randint(1, 3 * s)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_matrices(dut):
    config, rng = await start(dut)
    names = list(bench.PATTERNS)
    turn = 0
    for pair in (False, True):
        for m, n in sizes(config, rng):
            chosen = [names[turn % 4], names[turn // 2 % 4], ("always", "random", "bursts")[turn % 3], names[(turn + 1) % 4]]
            await load(dut, config, rng, m, n, pair, [bench.PATTERNS[name](rng.getrandbits(32)) for name in chosen])
            turn += 1


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_a_beat_every_cycle(dut):
    """A whole tile's beats take S²·4/bus_bytes cycles when the DMA and the buffer are always ready."""
    config, rng = await start(dut)
    s = config.tile
    cycles = 0

    async def count():
        nonlocal cycles
        while True:
            await RisingEdge(dut.clk)
            cycles += 1

    counter = cocotb.start_soon(count())
    await load(dut, config, rng, 3 * s, 2 * s, False, [bench.always() for _ in range(4)])
    counter.cancel()
    assert cycles <= 6 * (s * s * 4 // config.bus_bytes) + 6 * 2 + 30


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config, rng = await start(dut)
    s = config.tile
    for cycles in (1, 3, s, 5 * s):
        dut.shape.value = join(MatrixShape, {"m": 3 * s, "n": s + 1, "m_tiles": 3, "n_tiles": 2})
        dut.start.value, dut.raw_ready.value, dut.read_command__ready.value, dut.tile__ready.value = 1, 1, 1, 1
        dut.read_data__valid.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        for port in ("raw_ready", "read_command__ready", "tile__ready", "read_data__valid"):
            getattr(dut, port).value = 0
        await bench.reset(dut)
    await load(dut, config, rng, s + 1, 2 * s - 1, False, [bench.always() for _ in range(4)])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_raw_loader(config):
    from nibblecore.hdl.ltoaq.output.raw_loader import RawLoader

    bench.run(RawLoader(config), __file__, "raw_loader", parameters={"config": config.name, "bus_bytes": config.bus_bytes})


def test_golden_bursts_read_every_element_once():
    """The tiles' lines, pasted together, are the matrix."""
    rng = random.Random(3)
    for config in CONFIGS.values():
        for m, n in sizes(config, rng):
            address, pitch, elements, memory = matrix(rng, m, n, config)
            words = [
                word
                for burst in bursts(m, n, [(address, pitch)], config)
                for beat in line_beats(memory, burst, config.bus_bytes)
                for word in bench.unpack(beat, 32, config.bus_bytes // 4, signed=True)
            ]
            assert set(elements.ravel().tolist()) <= set(words)
            tiles = {(row, col): tile for row, col, tile in padded_tiles(elements, config.tile)}
            for i in range(m):
                for j in range(n):
                    assert tiles[i // config.tile, j // config.tile][i % config.tile, j % config.tile] == elements[i, j]
