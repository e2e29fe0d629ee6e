import random
from itertools import product

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.movers.scatter import Scatter
from nibblecore.sim.golden.cambriconq.movers.gather import elements
from nibblecore.sim.golden.cambriconq.movers.scatter import scatter
from nibblecore.sim.golden.cambriconq.movers.walk import Pattern
from places import EMPTY, begin, now, offered, patterns, wide_patterns


class WritePort:
    """NBout's write port, and when `done` was seen."""

    def __init__(self, dut, words, lanes):
        self.dut, self.words, self.lanes = dut, words, lanes
        self.writes, self.last, self.done, self.wide = 0, 0, [], False
        cocotb.start_soon(self._run())

    async def _run(self):
        dut = self.dut
        while True:
            await ReadOnly()
            mask = int(dut.write_enable.value)
            if mask:
                data = bench.unpack(int(dut.write_data.value), 32, self.lanes)
                lanes = [lane for lane in range(self.lanes) if mask >> lane & 1]
                assert len(lanes) <= (bench.parameters()["words"] if self.wide else 1)
                for lane in lanes:
                    self.words[int(dut.write_row.value) * self.lanes + lane] = data[lane]
                self.writes, self.last = self.writes + len(lanes), now()
            if dut.done.value:
                self.done.append(now())
            await RisingEdge(dut.clk)


async def start(dut):
    p, rng = bench.parameters(), random.Random(random.getrandbits(32))
    for port in ("start", "shape", "place", "i__valid", "i__payload", *(["wide"] if p["words"] > 1 else [])):
        getattr(dut, port).value = 0
    await bench.start(dut)
    words = np.random.default_rng(rng.getrandbits(32)).integers(0, 1 << 32, 1 << p["bits"], np.uint32)
    return WritePort(dut, words, p["lanes"]), rng


def modes():
    """Narrow and wide, where there is a difference."""
    return [False, True] if bench.parameters()["words"] > 1 else [False]


def payloads(words, pattern, rng, wide):
    """What is offered for a shape's words: noise in words that are not there, and for ends, which do not matter."""
    together = bench.parameters()["words"]
    groups = elements(np.array(words, np.uint32), pattern, together if wide else 1)
    return [offered(group._replace(last_of_row=rng.getrandbits(1), last=rng.getrandbits(1)), together, rng) for group in groups]


async def run(dut, port, rng, pattern, valid, wide=False):
    """All of NBout, `done` in the cycle after the last write and in no other; returns the cycles from start to `done`."""
    words = [rng.getrandbits(32) for _ in range(pattern.rows * pattern.cols)]
    expected = scatter(port.words, pattern, words)
    port.writes, port.done, port.wide = 0, [], wide
    # One more than there is room for, offered before the start: it stays where it is.
    spare = payloads([0x12345678], Pattern(1, 1, 0, 0, 1), rng, wide)
    sender = cocotb.start_soon(bench.send(dut, "i", payloads(words, pattern, rng, wide) + spare, valid))
    for _ in range(2):
        await RisingEdge(dut.clk)
    assert port.writes == 0
    first = now()
    await begin(dut, pattern, wide)
    while not port.done:
        await RisingEdge(dut.clk)
        assert now() < first + 20 * len(words) + 200
    assert np.array_equal(port.words, expected), (pattern, wide)
    for _ in range(3):
        await RisingEdge(dut.clk)
    sender.cancel()
    dut.i__valid.value = 0
    assert port.writes == len(words)
    assert port.done == [port.last + 1 if words else first + 1]
    return port.done[0] - first


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_words(dut):
    port, rng = await start(dut)
    together, names = bench.parameters()["words"], list(bench.PATTERNS)
    jobs = [(pattern, False) for pattern in patterns(rng, len(port.words), 1)]
    if together > 1:
        jobs += [(pattern, True) for _ in range(2) for pattern in wide_patterns(rng, len(port.words), 1, together)]
        rng.shuffle(jobs)
    for turn, (pattern, wide) in enumerate(jobs):
        await run(dut, port, rng, pattern, bench.PATTERNS[names[turn % 4]](rng.getrandbits(32)), wide)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_empty_and_throughput(dut):
    """A word a cycle, a group of words with `wide`, also across rows."""
    port, rng = await start(dut)
    together = bench.parameters()["words"]
    for pattern, wide in product(EMPTY, modes()):
        assert await run(dut, port, rng, pattern, bench.always(), wide) == 1
        assert await run(dut, port, rng, Pattern(16, 8, 3, 8, 1), bench.always()) == 128 + 1
    if together > 1:
        for cols in range(1, 3 * together + 1):
            pattern = Pattern(9, cols, together, 4 * together, 1)
            assert await run(dut, port, rng, pattern, bench.always(), wide=True) == 9 * -(-cols // together) + 1


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    port, rng = await start(dut)
    together = bench.parameters()["words"]
    for cycles, wide in product(range(1, 12), modes()):
        port.wide = wide
        pattern = Pattern(5, 5 * together, 0, 6 * together, 1) if wide else Pattern(5, 5, 0, 5, 1)
        sent = payloads(list(range(pattern.rows * pattern.cols)), pattern, rng, wide)
        sender = cocotb.start_soon(bench.send(dut, "i", sent, bench.mostly(0.7, cycles)))
        await begin(dut, pattern, wide)
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        sender.cancel()
        dut.i__valid.value = 0
        await bench.reset(dut)
        for after in modes():
            pattern = Pattern(2, together + 1, cycles * together, 2 * together, 1) if after else Pattern(2, 2, cycles, 5, 2)
            await run(dut, port, rng, pattern, bench.always(), after)


@pytest.mark.parametrize("lanes, bits, words", [(16, 10, 4), (16, 10, 8), (4, 8, 2), (2, 8, 2), (2, 8, 1)])
def test_scatter(lanes, bits, words):
    parameters = {"lanes": lanes, "bits": bits, "words": words}
    bench.run(Scatter(lanes, bits, words), __file__, f"scatter_{lanes}_{words}", parameters=parameters)


def test_illegal_parameters():
    with pytest.raises(ValueError):
        Scatter(2, 8, 4)


def test_golden_against_single_assignments():
    before = np.arange(40, dtype=np.uint32)
    after = scatter(before, Pattern(2, 3, 5, 10, 2), [100, 101, 102, 103, 104, 105])
    assert {int(i): int(after[i]) for i in np.flatnonzero(after != before)} == {5: 100, 7: 101, 9: 102, 15: 103, 17: 104, 19: 105}
    assert scatter(before, Pattern(2, 2, 3, 0, 0), [7, 8, 9, 10])[3] == 10
