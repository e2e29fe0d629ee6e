import random
from itertools import groupby, product

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.movers.gather import Gather
from nibblecore.sim.golden.cambriconq.movers.gather import gather
from nibblecore.sim.golden.cambriconq.movers.walk import Pattern, addresses
from places import EMPTY, begin, element, now, patterns, wide_patterns


class ReadPort:
    """NBout's read port, granted when `pattern` says so; what nobody has read is noise."""

    def __init__(self, dut, words, lanes, rng):
        self.dut, self.rows, self.rng = dut, words.reshape(-1, lanes), rng
        self.pattern = bench.always()
        self.reads = 0
        cocotb.start_soon(self._run())

    async def _run(self):
        dut, waiting = self.dut, None
        while True:
            dut.read__ready.value = int(next(self.pattern))
            await ReadOnly()
            row = int(dut.read__payload.value) if dut.read__valid.value else None
            assert dut.rst.value or waiting in (None, row), "a request was withdrawn"
            granted = row is not None and dut.read__ready.value
            waiting = None if granted or dut.rst.value else row
            await RisingEdge(dut.clk)
            self.reads += bool(granted)
            lanes = self.rows[row].tolist() if granted else [self.rng.getrandbits(32) for _ in self.rows[0]]
            dut.read_data.value = bench.pack(lanes, 32)


async def start(dut):
    p, rng = bench.parameters(), random.Random(random.getrandbits(32))
    for port in ("start", "shape", "place", "o__ready", "read__ready", "read_data", *(["wide"] if p["words"] > 1 else [])):
        getattr(dut, port).value = 0
    await bench.start(dut)
    words = np.random.default_rng(rng.getrandbits(32)).integers(0, 1 << 32, 1 << p["bits"], np.uint32)
    return words, ReadPort(dut, words, p["lanes"], rng), rng


def modes():
    """Narrow and wide, where there is a difference."""
    return [False, True] if bench.parameters()["words"] > 1 else [False]


async def run(dut, words, port, pattern, ready, wide=False):
    """Every word, `done` in the cycle after the last and in no other; returns the cycles from start to `done`."""
    lanes, together = bench.parameters()["lanes"], bench.parameters()["words"]
    expected, done, first, reads = gather(words, pattern, together if wide else 1), [], now(), port.reads

    async def watch():
        while True:
            await ReadOnly()
            if dut.done.value:
                done.append(now() - first)
            await RisingEdge(dut.clk)

    watcher = cocotb.start_soon(watch())
    await begin(dut, pattern, wide)
    taken = await bench.receive(dut, "o", len(expected), ready)
    assert [element(payload, together) for payload in taken] == expected, (pattern, wide)
    end = now() - first
    for _ in range(3):
        await ReadOnly()
        assert not dut.o__valid.value and not dut.read__valid.value
        await RisingEdge(dut.clk)
    watcher.cancel()
    assert done == [end], f"done in cycles {done}, not in {end}"
    assert port.reads - reads == len([row for row, _ in groupby(addresses(pattern).ravel() % len(words) // lanes)])
    return end


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_words(dut):
    words, port, rng = await start(dut)
    together, names = bench.parameters()["words"], list(bench.PATTERNS)
    jobs = [(pattern, False) for pattern in patterns(rng, len(words), 1)]
    if together > 1:
        jobs += [(pattern, True) for _ in range(2) for pattern in wide_patterns(rng, len(words), 1, together)]
        rng.shuffle(jobs)
    for turn, (pattern, wide) in enumerate(jobs):
        port.pattern = bench.PATTERNS[names[turn // 4 % 4]](rng.getrandbits(32))
        await run(dut, words, port, pattern, bench.PATTERNS[names[turn % 4]](rng.getrandbits(32)), wide)
    # What was read for one job says nothing to the next.
    for wide in modes() * 3:
        words ^= 0x5A5A5A5A
        await run(dut, words, port, Pattern(1, 2, 2 * together, 0, 1), bench.always(), wide)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_empty(dut):
    words, port, _ = await start(dut)
    together = bench.parameters()["words"]
    for pattern, wide in product(EMPTY, modes()):
        assert await run(dut, words, port, pattern, bench.always(), wide) == 1
        await run(dut, words, port, Pattern(2, 3, together, 4 * together, 1), bench.always(), wide)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_a_word_every_cycle(dut):
    """From the third cycle after start on, also across rows; groups of words with `wide`."""
    words, port, _ = await start(dut)
    lanes, together = bench.parameters()["lanes"], bench.parameters()["words"]
    assert await run(dut, words, port, Pattern(16, 8, 3, 8, 1), bench.always()) == 128 + 3
    # With every other grant, a row every other cycle: none is lost to the FIFO.
    port.pattern = bench.bursts(1, 1)
    assert await run(dut, words, port, Pattern(1, 60, 3, 0, lanes), bench.always()) <= 2 * 60 + 4
    # Along rows one grant in as many cycles as a row has words is enough.
    port.pattern = bench.bursts(1, lanes - 1)
    assert await run(dut, words, port, Pattern(16, lanes, 0, lanes, 1), bench.always()) <= 16 * lanes + lanes + 4
    if together > 1:
        port.pattern = bench.always()
        for cols in range(1, 3 * together + 1):
            groups = -(-cols // together)
            pattern = Pattern(9, cols, together, 4 * together, 1)
            assert await run(dut, words, port, pattern, bench.always(), wide=True) == 9 * groups + 3
        in_row = lanes // together
        port.pattern = bench.bursts(1, in_row - 1)
        assert await run(dut, words, port, Pattern(12, lanes, 0, lanes, 1), bench.always(), wide=True) <= 12 * in_row + in_row + 4


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    words, port, rng = await start(dut)
    together = bench.parameters()["words"]
    for cycles, wide in product(range(1, 20), modes()):
        dut.o__ready.value = rng.randrange(2)
        await begin(dut, Pattern(5, 5 * together, 0, 6 * together, 1) if wide else Pattern(5, 5, 0, 5, 1), wide)
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        await bench.reset(dut)
        dut.o__ready.value = 0
        for after in modes():
            pattern = Pattern(2, together + 1, cycles * together, 2 * together, 1) if after else Pattern(2, 2, cycles, 5, 2)
            await run(dut, words, port, pattern, bench.always(), after)


@pytest.mark.parametrize("lanes, bits, words", [(16, 10, 4), (16, 10, 8), (4, 8, 2), (2, 8, 2), (2, 8, 1)])
def test_gather(lanes, bits, words):
    parameters = {"lanes": lanes, "bits": bits, "words": words}
    bench.run(Gather(lanes, bits, words), __file__, f"gather_{lanes}_{words}", parameters=parameters)


def test_illegal_parameters():
    with pytest.raises(ValueError):
        Gather(2, 8, 4)


def test_golden_is_numpy_of_bytes():
    """A row with a distance of its own, word for word, and rows in groups."""
    words = np.arange(100, dtype=np.uint32) * 3
    assert gather(words, Pattern(2, 3, 5, 20, 2)) == [
        ((15,), 0, 0),
        ((21,), 0, 0),
        ((27,), 1, 0),
        ((75,), 0, 0),
        ((81,), 0, 0),
        ((87,), 1, 1),
    ]
    assert gather(words, Pattern(2, 3, 4, 20, 1), words=2) == [((12, 15), 0, 0), ((18,), 1, 0), ((72, 75), 0, 0), ((78,), 1, 1)]
    assert gather(words, EMPTY[0]) == gather(words, EMPTY[1], words=2) == []
