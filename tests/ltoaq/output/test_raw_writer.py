import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from nibblecore.hdl.config import PRESETS, TINY, LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import MatrixShape, RawJob, TileIndex
from nibblecore.sim.golden.ltoaq.output.raw_writer import lines
from structs import join

WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256)
ONE_PART = LtoaqConfig(name="one_part", rows=8, cols=8, tile=8, bus_bytes=32, bank_words=256)
CONFIGS = {config.name: config for config in (TINY, WIDE_BUS, ONE_PART, PRESETS["fpga_fused"])}


class TileBuffer:
    """Holds the tiles given to it; answers reads a cycle later and keeps the answer."""

    def __init__(self, dut, config):
        self.dut, self.config, self.tiles, self.consumed = dut, config, [], 0

    async def run(self):
        dut, c = self.dut, self.config.output_cols
        while True:
            dut.full.value = int(bool(self.tiles))
            await ReadOnly()
            reads, done = dut.read_enable.value, dut.consumed.value
            row, part = int(dut.read_row.value), int(dut.read_part.value)
            await RisingEdge(dut.clk)
            if reads:
                dut.read_data.value = bench.pack(self.tiles[0][row, part * c : part * c + c].tolist(), 32)
            if done:
                self.tiles.pop(0)
                self.consumed += 1


async def start(dut):
    for port in ("enable", "full", "read_data", "tile__valid", "write_command__ready", "write_data__ready"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    dut.enable.value = 1
    return CONFIGS[bench.parameters()["config"]], random.Random(random.getrandbits(32))


async def store(dut, config, rng, m, n, patterns, order=None):
    """All tiles of an m × n matrix; returns the cycles it took."""
    s, bus = config.tile, config.bus_bytes
    address, pitch = bus * rng.randrange(100), -(-4 * n // bus) * bus + bus * rng.randrange(3)
    dut.job.value = join(RawJob, {"address": address, "pitch": pitch})
    dut.shape.value = join(MatrixShape, {"m": m, "n": n, "m_tiles": -(-m // s), "n_tiles": -(-n // s)})
    places = [(row, col) for row in range(-(-m // s)) for col in range(-(-n // s))]
    rng.shuffle(places)
    generator = np.random.default_rng(rng.getrandbits(32))
    tiles = [generator.integers(-(2**31), 2**31, (s, s)) for _ in places]
    expected = [
        line for (row, col), tile in zip(places, tiles, strict=True) for line in lines(tile, row, col, m, n, address, pitch, config)
    ]
    buffer = TileBuffer(dut, config)
    cycles = 0

    async def supply():
        """Tiles become full some time after they were announced, two at a time."""
        for number, tile in enumerate(tiles):
            while number - buffer.consumed >= 2 or not next(patterns[3]):
                await RisingEdge(dut.clk)
            buffer.tiles.append(tile)
            await RisingEdge(dut.clk)

    async def count():
        nonlocal cycles
        while True:
            await RisingEdge(dut.clk)
            cycles += 1

    tasks = [cocotb.start_soon(task) for task in (buffer.run(), supply(), count())]
    announce = cocotb.start_soon(bench.send(dut, "tile", [join(TileIndex, {"row": r, "col": c}) for r, c in places], patterns[2]))
    commands = cocotb.start_soon(bench.receive(dut, "write_command", len(expected), patterns[0]))
    data = cocotb.start_soon(bench.receive(dut, "write_data", sum(len(beats) for _, beats in expected), patterns[1]))
    seen = [(word & 2**32 - 1, word >> 32) for word in await commands]
    assert seen == [(at, len(beats)) for at, beats in expected]
    words = await data
    await announce
    for word, (value, strobe) in zip(words, (beat for _, beats in expected for beat in beats), strict=True):
        mask = sum(0xFF << 8 * byte for byte in range(bus) if strobe >> byte & 1)
        assert (word >> 8 * bus, word & mask) == (strobe, value)
    for _ in range(3):
        await FallingEdge(dut.clk)
    assert buffer.consumed == len(tiles)
    assert not dut.busy.value and not dut.write_command__valid.value and not dut.write_data__valid.value
    for task in tasks:
        task.cancel()
    await RisingEdge(dut.clk)
    return cycles


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_matrices(dut):
    config, rng = await start(dut)
    s, names = config.tile, list(bench.PATTERNS)
    sizes = [(1, 1), (s, s), (1, 2 * s + 1), (2 * s + 1, 1), (s + 1, s - 1), (s, config.bus_bytes // 4), (s, config.output_cols)]
    sizes += [(rng.randint(1, 3 * s), rng.randint(1, 3 * s)) for _ in range(5)]
    for turn, (m, n) in enumerate(sizes):
        chosen = [names[turn % 4], names[turn // 2 % 4], names[(turn + 1) % 4], names[turn // 3 % 4]]
        await store(dut, config, rng, m, n, [bench.PATTERNS[name](rng.getrandbits(32)) for name in chosen])


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_throughput(dut):
    """C·4/bus_bytes beats every C·4/bus_bytes + 1 cycles, and a cycle more for each line."""
    config, rng = await start(dut)
    s, beats = config.tile, config.output_cols * 4 // config.bus_bytes
    cycles = await store(dut, config, rng, 2 * s, 2 * s, [bench.always() for _ in range(4)])
    assert cycles <= 4 * s * (s // config.output_cols * (beats + 1) + 1) + 40


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_nothing_unless_enabled(dut):
    """A tensor's tiles pass by: the writer leaves them alone."""
    config, _ = await start(dut)
    dut.enable.value, dut.full.value = 0, 1
    dut.shape.value = join(MatrixShape, {"m": 8, "n": 8, "m_tiles": 1, "n_tiles": 1})
    await bench.send(dut, "tile", [0])
    for _ in range(4 * config.tile):
        await FallingEdge(dut.clk)
        assert not dut.read_enable.value and not dut.consumed.value and not dut.write_command__valid.value
    await bench.reset(dut)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config, rng = await start(dut)
    dut.shape.value = join(MatrixShape, {"m": 3, "n": config.tile, "m_tiles": 1, "n_tiles": 1})
    for cycles in range(2, 12):
        dut.full.value, dut.tile__valid.value, dut.write_command__ready.value, dut.write_data__ready.value = 1, 1, 1, 1
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        for port in ("full", "tile__valid", "write_command__ready", "write_data__ready"):
            getattr(dut, port).value = 0
        await bench.reset(dut)
    await store(dut, config, rng, config.tile + 1, config.tile + 1, [bench.always() for _ in range(4)])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_raw_writer(config):
    from nibblecore.hdl.ltoaq.output.raw_writer import RawWriter

    bench.run(RawWriter(config), __file__, "raw_writer", parameters={"config": config.name})


def test_golden_lines_make_the_matrix():
    """Written into memory, the lines of all tiles are the row-major matrix, and nothing else is touched."""
    rng = np.random.default_rng(5)
    for config in CONFIGS.values():
        s = config.tile
        for m, n in ((1, 1), (s + 3, 2 * s + 1), (s, s)):
            matrix = rng.integers(-(2**31), 2**31, (m, n))
            pitch = -(-4 * n // config.bus_bytes) * config.bus_bytes
            memory = {}
            for row in range(-(-m // s)):
                for col in range(-(-n // s)):
                    tile = np.full((s, s), 7)
                    part = matrix[row * s : (row + 1) * s, col * s : (col + 1) * s]
                    tile[: part.shape[0], : part.shape[1]] = part
                    for at, beats in lines(tile, row, col, m, n, 64, pitch, config):
                        for number, (value, strobe) in enumerate(beats):
                            for byte in range(config.bus_bytes):
                                if strobe >> byte & 1:
                                    memory[at + number * config.bus_bytes + byte] = value >> 8 * byte & 255
            expected = {
                64 + i * pitch + 4 * j + b: int(matrix[i, j]) >> 8 * b & 255 for i in range(m) for j in range(n) for b in range(4)
            }
            assert memory == expected
