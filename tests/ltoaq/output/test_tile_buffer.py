import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge
from nibblecore.hdl.config import PRESETS, TINY, LtoaqConfig
from nibblecore.sim.golden.ltoaq.output.tile_buffer import TileQueue, tile_of_passes

WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256)
UNEQUAL = LtoaqConfig(name="unequal", rows=4, cols=8, tile=16, bus_bytes=8, bank_words=256)
CONFIGS = {config.name: config for config in (TINY, WIDE_BUS, UNEQUAL, PRESETS["fpga_fused"])}
INPUTS = (
    "take",
    "result_valid",
    "result",
    "raw_enable",
    "raw_row",
    "raw_part",
    "raw_data",
    "raw_done",
    "consumed",
    "read_enable",
    "read_other",
    "read_row",
    "read_part",
)


class Harness:
    """Drives everything on falling edges: every output is a register's, so an answer within the cycle is possible."""

    def __init__(self, dut, config):
        self.dut, self.config, self.queue = dut, config, TileQueue(config)
        self.rng = np.random.default_rng(random.getrandbits(32))
        self.releases = 0

    def values(self, *shape):
        return self.rng.integers(-(2**31), 2**31, shape)

    async def results(self, tiles, lag, taking):
        """The array: takes a credit for each pass, then column i brings its rows up to lag[i] cycles behind.

        Results of a pass follow its credit at once, in every column without order among the columns.
        """
        dut, config = self.dut, self.config
        _s, r, c = config.tile, config.rows, config.output_cols
        passes = [self.values(self.queue.passes, r, c) for _ in range(tiles)]
        rows = np.concatenate(passes).reshape(-1, c)
        allowed, done, finished = 0, [0] * c, 0
        in_a_tile = r * self.queue.passes
        while min(done) < len(rows):
            await FallingEdge(dut.clk)
            dut.take.value = 0
            while min(done) >= (finished + 1) * in_a_tile:
                self.queue.put(tile_of_passes(passes[finished], config), raw=False)
                finished += 1
            if allowed < len(rows) and next(taking) and int(dut.credit.value):
                dut.take.value = 1
                self.queue.take()
                allowed += r
            enable, word = 0, 0
            for column in range(c):
                if done[column] < allowed - r * int(dut.take.value) and next(lag[column]):
                    enable |= 1 << column
                    word |= (int(rows[done[column], column]) & 2**32 - 1) << 33 * column
                    done[column] += 1
            dut.result_valid.value, dut.result.value = enable, word
        await FallingEdge(dut.clk)
        dut.result_valid.value, dut.take.value = 0, 0
        self.queue.put(tile_of_passes(passes[-1], config), raw=False)

    async def raw(self, tiles, pattern):
        """The 32-bit loader: rows in order, a group of columns at a time."""
        dut, config = self.dut, self.config
        s, c = config.tile, config.output_cols
        lanes = config.bus_bytes // 4
        for _ in range(tiles):
            tile = self.values(s, s)
            for row in range(s):
                for col in range(0, s, lanes):
                    while True:
                        await FallingEdge(dut.clk)
                        dut.raw_enable.value, dut.raw_done.value = 0, 0
                        if next(pattern) and dut.raw_ready.value:
                            break
                    dut.raw_row.value, dut.raw_part.value = row, col // c
                    dut.raw_enable.value = ((1 << lanes) - 1) << col % c
                    word = bench.pack(tile[row, col : col + lanes].tolist(), 32)
                    dut.raw_data.value = sum(word << 32 * at for at in range(0, c, lanes))
                    dut.raw_done.value = int((row, col) == (s - 1, s - lanes))
            # Whoever looks in this half cycle sees the buffer as it was.
            self.queue.complete.append(tile)
            self.queue.credits -= self.queue.passes
        await FallingEdge(dut.clk)
        dut.raw_enable.value, dut.raw_done.value = 0, 0

    async def read(self, tiles, pattern, *, pairs=False):
        """A reader: every part of every row of the oldest tile (of both, in random order, for `pairs`), then a release."""
        dut, config = self.dut, self.config
        s, c = config.tile, config.output_cols
        for _ in range(tiles // (2 if pairs else 1)):
            await FallingEdge(dut.clk)
            while not (dut.full_next if pairs else dut.full).value:
                await FallingEdge(dut.clk)
            places = [(row, part, other) for row in range(s) for part in range(s // c) for other in range(1 + pairs)]
            if pairs:
                self.rng.shuffle(places)
            for row, part, other in places:
                while not next(pattern):
                    await FallingEdge(dut.clk)
                dut.read_enable.value, dut.read_row.value, dut.read_part.value, dut.read_other.value = (
                    1,
                    int(row),
                    int(part),
                    int(other),
                )
                await FallingEdge(dut.clk)
                dut.read_enable.value = 0
                expected = self.queue.complete[int(other)][row, part * c : part * c + c].tolist()
                for _ in range(int(self.rng.integers(1, 3))):
                    assert bench.unpack(int(dut.read_data.value), 32, c, signed=True) == expected, (row, part, other)
                    await FallingEdge(dut.clk)
            for _ in range(1 + pairs):
                dut.consumed.value = 1
                self.queue.release()
                await FallingEdge(dut.clk)
            dut.consumed.value = 0


async def start(dut):
    for port in INPUTS:
        getattr(dut, port).value = 0
    await bench.start(dut)
    return CONFIGS[bench.parameters()["config"]]


async def settled(harness):
    """All released: credits are back."""
    dut = harness.dut
    for _ in range(3):
        await FallingEdge(dut.clk)
    assert harness.queue.credits == 2 * harness.queue.passes and not harness.queue.complete
    assert dut.credit.value and dut.raw_ready.value and not dut.full.value and not dut.full_next.value


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_results_of_the_array(dut):
    """Columns one cycle behind each other, as in the wide array, then each at a pace of its own."""
    config = await start(dut)
    c = config.output_cols
    paces = [
        lambda i: iter([False] * i + [True] * 100_000),
        lambda i: bench.mostly(0.5, i),
        lambda i: bench.mostly(0.9 if i else 0.1, i),
        lambda i: bench.mostly(0.1 if i else 0.9, i),
    ]
    for pace, reader in zip(paces, bench.PATTERNS, strict=True):
        harness = Harness(dut, config)
        reading = cocotb.start_soon(harness.read(5, bench.PATTERNS[reader](9)))
        await harness.results(5, [pace(i) for i in range(c)], bench.mostly(0.7, 5))
        await reading
        await settled(harness)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_a_column_two_tiles_ahead(dut):
    config = await start(dut)
    harness = Harness(dut, config)
    late = 2 * config.tile**2 // config.output_cols + 40
    reading = cocotb.start_soon(harness.read(3, bench.always()))
    lag = [bench.always() for _ in range(config.output_cols - 1)] + [iter([False] * late + [True] * 100_000)]
    await harness.results(3, lag, bench.always())
    await reading
    await settled(harness)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_rows_of_the_loader(dut):
    config = await start(dut)
    for pairs in (False, True):
        for fill in bench.PATTERNS:
            harness = Harness(dut, config)
            reading = cocotb.start_soon(harness.read(4, bench.mostly(0.6, 3), pairs=pairs))
            await harness.raw(4, bench.PATTERNS[fill](7))
            await reading
            await settled(harness)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_loader_and_array_in_turn(dut):
    config = await start(dut)
    lag = [bench.mostly(0.5, i) for i in range(config.output_cols)]
    for tiles in (1, 2, 3):
        harness = Harness(dut, config)
        reading = cocotb.start_soon(harness.read(tiles + 3, bench.mostly(0.6, tiles)))
        await harness.raw(tiles, bench.mostly(0.7, tiles))
        await harness.results(3, lag, bench.always())
        await reading
        await settled(harness)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_credits_run_out(dut):
    """As many passes as two tiles have may be taken; a release brings back one tile's."""
    config = await start(dut)
    passes = TileQueue(config).passes
    dut.take.value = 1
    for taken in range(2 * passes):
        await FallingEdge(dut.clk)
        assert dut.credit.value == (taken < 2 * passes), taken
        assert dut.raw_ready.value == (2 * passes - taken >= passes), taken
    await FallingEdge(dut.clk)
    assert not dut.credit.value and not dut.raw_ready.value
    dut.take.value = 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_overflow_stays(dut):
    config = await start(dut)
    for column in range(config.output_cols):
        await bench.reset(dut)
        dut.result.value = 1 << 33 * column + 32
        dut.result_valid.value = ((1 << config.output_cols) - 1) ^ 1 << column
        await FallingEdge(dut.clk)
        await FallingEdge(dut.clk)
        assert not dut.overflow.value, "overflow of a result that is not valid"
        dut.result_valid.value = 1 << column
        await FallingEdge(dut.clk)
        dut.result_valid.value, dut.result.value = 0, 0
        for _ in range(3):
            await FallingEdge(dut.clk)
            assert dut.overflow.value


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config = await start(dut)
    for cycles in (1, config.tile, config.tile**2 // config.output_cols, 2 * config.tile**2 // config.output_cols):
        dut.take.value, dut.result_valid.value = 1, 0b11
        for number in range(cycles):
            dut.take.value = int(number < TileQueue(config).passes)
            await FallingEdge(dut.clk)
        dut.take.value, dut.result_valid.value = 0, 0
        await bench.reset(dut)
    harness = Harness(dut, config)
    await settled(harness)
    reading = cocotb.start_soon(harness.read(3, bench.always()))
    await harness.results(3, [bench.always() for _ in range(config.output_cols)], bench.always())
    await reading
    await settled(harness)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_tile_buffer(config):
    from nibblecore.hdl.ltoaq.output.tile_buffer import TileBuffer

    bench.run(TileBuffer(config), __file__, "tile_buffer", parameters={"config": config.name})


def test_golden_tile_by_hand():
    """Four passes of 4 × 4 in a tile of 8 × 8: pass p row r column c lands as the parts lie on the tile."""
    results = np.arange(64).reshape(4, 4, 4)
    tile = tile_of_passes(results, TINY)
    assert tile[:4, :4].tolist() == results[0].tolist() and tile[:4, 4:].tolist() == results[1].tolist()
    assert tile[4:, :4].tolist() == results[2].tolist() and tile[4:, 4:].tolist() == results[3].tolist()
