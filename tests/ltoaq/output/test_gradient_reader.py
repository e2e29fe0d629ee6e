import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.config import TINY, LtoaqConfig
from nibblecore.sim.golden.ltoaq.output.gradient_reader import slices

WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256)
FOUR_SLICES = LtoaqConfig(name="four_slices", rows=16, cols=16, tile=16, bus_bytes=8, bank_words=256)
CONFIGS = {config.name: config for config in (TINY, WIDE_BUS, FOUR_SLICES)}
CASES = [(TINY, 5), (TINY, 2), (WIDE_BUS, 4), (FOUR_SLICES, 1), (FOUR_SLICES, 3)]


class Pipeline:
    """The tile buffer and the quantizers: pairs of tiles in, what is seen at x and g out, with the cycle of each."""

    def __init__(self, dut, config):
        self.dut, self.config = dut, config
        self.tiles, self.x, self.g, self.cycle, self.last_consumed = [], [], [], 0, 0

    async def run(self):
        dut, c, lanes = self.dut, self.config.output_cols, self.config.block
        while True:
            dut.full_next.value = int(len(self.tiles) > 1)
            await ReadOnly()
            reads, other, done = dut.read_enable.value, int(dut.read_other.value), dut.consumed.value
            row, part = int(dut.read_row.value), int(dut.read_part.value)
            for valid, values, seen in ((dut.x_valid, dut.x, self.x), (dut.g_valid, dut.g, self.g)):
                if valid.value:
                    seen.append((self.cycle, bench.unpack(int(values.value), 32, lanes, signed=True)))
            if reads:
                assert dut.busy.value
                data = bench.pack(self.tiles[other][row, part * c : part * c + c].tolist(), 32)
            await RisingEdge(dut.clk)
            self.cycle += 1
            dut.read_data.value = data if reads else random.getrandbits(32 * c) if done else dut.read_data.value
            if done:
                self.tiles.pop(0)
                self.last_consumed = self.cycle


async def start(dut):
    for port in ("enable", "full_next", "read_data"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return CONFIGS[bench.parameters()["config"]], bench.parameters()["latency"]


async def pairs(dut, config, latency, count, pattern):
    s = config.tile
    rng = np.random.default_rng(random.getrandbits(32))
    pipeline = Pipeline(dut, config)
    running = cocotb.start_soon(pipeline.run())
    dut.enable.value = 1
    expected: list[tuple[list[int], list[int]]] = []
    for _ in range(count):
        x, g = rng.integers(-(2**31), 2**31, (2, s, s))
        expected += slices(x, g, config.block)
        for tile in (x, g):
            while len(pipeline.tiles) > 1 or not next(pattern):
                await RisingEdge(dut.clk)
            pipeline.tiles.append(tile)
    while pipeline.tiles:
        await RisingEdge(dut.clk)
    running.cancel()
    await RisingEdge(dut.clk)
    assert not dut.busy.value
    assert [value for _, value in pipeline.x] == [x for x, _ in expected]
    assert [value for _, value in pipeline.g] == [g for _, g in expected]
    x_times, g_times = [cycle for cycle, _ in pipeline.x], [cycle for cycle, _ in pipeline.g]
    assert g_times == [cycle + latency for cycle in x_times], "g does not meet x's delta"
    assert pipeline.last_consumed > max(g_times), "a tile was given back too early"
    return x_times


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_pairs_of_tiles(dut):
    config, latency = await start(dut)
    for name, pattern in bench.PATTERNS.items():
        times = await pairs(dut, config, latency, 3, pattern(1))
        per_tile = config.tile**2 // config.block
        assert times[per_tile - 1] - times[0] == 2 * (per_tile - 1), f"{name}: not a slice every two cycles"


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_waits_for_both_tiles_and_for_enable(dut):
    config, _ = await start(dut)
    for enable, full_next in ((0, 1), (1, 0), (0, 0)):
        dut.enable.value, dut.full_next.value = enable, full_next
        for _ in range(2 * config.tile):
            await RisingEdge(dut.clk)
            await ReadOnly()
            assert not dut.busy.value and not dut.read_enable.value and not dut.consumed.value
            assert not dut.x_valid.value and not dut.g_valid.value
        await RisingEdge(dut.clk)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config, latency = await start(dut)
    for cycles in range(1, 12, 2):
        dut.enable.value, dut.full_next.value = 1, 1
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        dut.enable.value = 0
        await bench.reset(dut)
    await pairs(dut, config, latency, 1, bench.always())


@pytest.mark.parametrize("config, latency", CASES, ids=[f"{config.name}-{latency}" for config, latency in CASES])
def test_gradient_reader(config, latency):
    from nibblecore.hdl.ltoaq.output.gradient_reader import GradientReader

    bench.run(GradientReader(config, latency), __file__, "gradient_reader", parameters={"config": config.name, "latency": latency})


def test_golden_slices_by_hand():
    x = np.arange(16).reshape(4, 4)
    assert list(slices(x, -x, 2))[:3] == [([0, 1], [0, -1]), ([2, 3], [-2, -3]), ([4, 5], [-4, -5])]
