import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.scatter import Scatter
from nibblecore.sim.golden.cambriconq.scatter import scatter
from nibblecore.sim.golden.cambriconq.walk import Pattern
from places import EMPTY, begin, now, patterns


class WritePort:
    """NBout's write port, and when `done` was seen."""

    def __init__(self, dut, words, lanes):
        self.dut, self.words, self.lanes = dut, words, lanes
        self.writes, self.last, self.done = 0, 0, []
        cocotb.start_soon(self._run())

    async def _run(self):
        dut = self.dut
        while True:
            await ReadOnly()
            mask = int(dut.write_enable.value)
            assert mask.bit_count() <= 1
            if mask:
                data = bench.unpack(int(dut.write_data.value), 32, self.lanes)
                lane = mask.bit_length() - 1
                self.words[int(dut.write_row.value) * self.lanes + lane] = data[lane]
                self.writes, self.last = self.writes + 1, now()
            if dut.done.value:
                self.done.append(now())
            await RisingEdge(dut.clk)


async def start(dut):
    p, rng = bench.parameters(), random.Random(random.getrandbits(32))
    for port in ("start", "shape", "place", "i__valid", "i__payload"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    words = np.random.default_rng(rng.getrandbits(32)).integers(0, 1 << 32, 1 << p["bits"], np.uint32)
    return WritePort(dut, words, p["lanes"]), rng


async def run(dut, port, rng, pattern, valid):
    """All of NBout, `done` in the cycle after the last write and in no other; returns the cycles from start to `done`."""
    words = [rng.getrandbits(32) for _ in range(pattern.rows * pattern.cols)]
    expected = scatter(port.words, pattern, words)
    port.writes, port.done = 0, []
    # One more than there is room for, offered before the start: it stays where it is.
    sender = cocotb.start_soon(bench.send(dut, "i", [*words, 0x12345678], valid))
    for _ in range(2):
        await RisingEdge(dut.clk)
    assert port.writes == 0
    first = now()
    await begin(dut, pattern)
    while not port.done:
        await RisingEdge(dut.clk)
        assert now() < first + 20 * len(words) + 200
    assert np.array_equal(port.words, expected), pattern
    for _ in range(3):
        await RisingEdge(dut.clk)
    sender.cancel()
    dut.i__valid.value = 0
    assert port.writes == len(words)
    assert port.done == [port.last + 1 if words else first + 1]
    return port.done[0] - first


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_words(dut):
    port, rng = await start(dut)
    names = list(bench.PATTERNS)
    for turn, pattern in enumerate(patterns(rng, len(port.words), 1)):
        await run(dut, port, rng, pattern, bench.PATTERNS[names[turn % 4]](rng.getrandbits(32)))


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_empty_and_throughput(dut):
    port, rng = await start(dut)
    for pattern in EMPTY:
        assert await run(dut, port, rng, pattern, bench.always()) == 1
        assert await run(dut, port, rng, Pattern(16, 8, 3, 8, 1), bench.always()) == 128 + 1


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    port, rng = await start(dut)
    for cycles in range(1, 12):
        sender = cocotb.start_soon(bench.send(dut, "i", range(99), bench.mostly(0.7, cycles)))
        await begin(dut, Pattern(5, 5, 0, 5, 1))
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        sender.cancel()
        dut.i__valid.value = 0
        await bench.reset(dut)
        await run(dut, port, rng, Pattern(2, 2, cycles, 5, 2), bench.always())


@pytest.mark.parametrize("lanes, bits", [(2, 8), (16, 10)])
def test_scatter(lanes, bits):
    bench.run(Scatter(lanes, bits), __file__, f"scatter_{lanes}", parameters={"lanes": lanes, "bits": bits})


def test_golden_against_single_assignments():
    before = np.arange(40, dtype=np.uint32)
    after = scatter(before, Pattern(2, 3, 5, 10, 2), [100, 101, 102, 103, 104, 105])
    assert {int(i): int(after[i]) for i in np.flatnonzero(after != before)} == {5: 100, 7: 101, 9: 102, 15: 103, 17: 104, 19: 105}
    assert scatter(before, Pattern(2, 2, 3, 0, 0), [7, 8, 9, 10])[3] == 10
