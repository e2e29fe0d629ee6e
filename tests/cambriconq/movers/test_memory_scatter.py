import random
from itertools import product

import bench
import cocotb
import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from axi_memory import AxiMemory
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.bus.axi4 import Axi4Write, forward
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.bus.writer import AxiWriter
from nibblecore.hdl.cambriconq.movers.memory_scatter import MemoryScatter
from nibblecore.hdl.cambriconq.program.job import Place, Shape, elements_layout
from nibblecore.sim.golden.cambriconq.movers.gather import elements
from nibblecore.sim.golden.cambriconq.movers.memory_commands import commands
from nibblecore.sim.golden.cambriconq.movers.memory_scatter import memory_scatter
from nibblecore.sim.golden.cambriconq.movers.scatter import scatter
from nibblecore.sim.golden.cambriconq.movers.walk import Pattern
from places import EMPTY, begin, now, offered, patterns, wide_patterns

BASE, SIZE = 0x8000_0000, 1 << 14


class ScatterAndWriter(wiring.Component):
    """The block and the DMA that it commands."""

    def __init__(self, bus_bytes):
        self.bus_bytes = bus_bytes
        super().__init__(
            {
                "start": In(1),
                "shape": In(Shape),
                "place": In(Place),
                "wide": In(1),
                "done": Out(1),
                "i": In(stream.Signature(elements_layout(bus_bytes // 4))),
                "m_axi": Out(Axi4Write(bus_bytes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.scatter = block = MemoryScatter(self.bus_bytes)
        m.submodules.writer = writer = AxiWriter(self.bus_bytes)
        connect(m, block.command, writer.command)
        connect(m, block.data, writer.data)
        connect(m, self.i, block.i)
        m.d.comb += [
            block.start.eq(self.start),
            block.shape.eq(self.shape),
            block.place.eq(self.place),
            block.wide.eq(self.wide),
            self.done.eq(block.done),
            block.writer_idle.eq(writer.idle),
            *forward(writer.m_axi, self.m_axi),
        ]
        return m


def quiet(dut):
    for port in ("start", "shape", "place", "wide", "i__valid", "i__payload"):
        getattr(dut, port).value = 0


async def start(dut, **options):
    quiet(dut)
    memory = AxiMemory(dut, SIZE, base=BASE, **options)
    memory.fill(1)
    await bench.start(dut)
    return memory, random.Random(random.getrandbits(32))


def sent(rng, words, pattern, lanes, wide):
    """Words as the block takes them; of their ends, and of a single word's mask, it takes no notice."""
    for element in elements(np.array(words).reshape(pattern.rows, pattern.cols), pattern, lanes if wide else 1):
        payload = offered(element._replace(last_of_row=rng.getrandbits(1), last=rng.getrandbits(1)), lanes, rng)
        yield payload if wide else payload ^ rng.getrandbits(lanes) << 32 * lanes


async def run(dut, memory, rng, pattern, valid, wide=False):
    """All of memory, `done` once and not before every answer; returns the cycles from start to the last word taken, and to `done`."""
    words = [rng.getrandbits(32) for _ in range(pattern.rows * pattern.cols)]
    expected, writes = memory_scatter(memory.data, pattern, words), len(memory.writes)
    sender = cocotb.start_soon(bench.send(dut, "i", sent(rng, words, pattern, memory.bus_bytes // 4, wide), valid))
    first, taken, done = now(), now(), 0
    # The distance of the columns does not count.
    await begin(dut, pattern._replace(at=pattern.at + BASE, col=rng.getrandbits(32)), wide)
    while not done:
        await ReadOnly()
        taken = now() if dut.i__valid.value and dut.i__ready.value else taken
        done = now() if dut.done.value else 0
        assert not done or (memory.outstanding_writes == 0 and not dut.m_axi__wvalid.value and not dut.m_axi__awvalid.value)
        assert now() - first < 30 * len(words) + 5000
        await RisingEdge(dut.clk)
    assert np.array_equal(memory.data, expected), (pattern, wide)
    for _ in range(3):
        await ReadOnly()
        assert not dut.done.value
        await RisingEdge(dut.clk)
    sender.cancel()
    assert sum(beats for _, beats in memory.writes[writes:]) == sum(beats for _, beats in commands(pattern, memory.bus_bytes))
    return taken - first, done - first


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(case=range(4))
async def bench_words(dut, case):
    names = list(bench.PATTERNS)
    stalls = {"aw": names[case], "w": names[(0, 2, 3, 1)[case]], "b": names[(0, 3, 1, 2)[case]]}
    order = ["any", "data first", "address first", "any"][case]
    memory, rng = await start(dut, latency=(1, 40), patterns=stalls, order=order, seed=case + 1)
    jobs = [(pattern, False) for pattern in patterns(rng, SIZE, 4, contiguous=True)]
    jobs += [(pattern, True) for pattern in wide_patterns(rng, SIZE, 4, memory.bus_bytes // 4)]
    rng.shuffle(jobs)
    for turn, (pattern, wide) in enumerate(jobs):
        await run(dut, memory, rng, pattern, bench.PATTERNS[names[turn % 4]](rng.getrandbits(32)), wide)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_pages_and_alignment(dut):
    """Rows of every length and alignment up to three beats, and rows across a 4 KiB page."""
    memory, rng = await start(dut, latency=3)
    lanes = memory.bus_bytes // 4
    for first, cols in product(range(lanes), [*range(1, lanes + 2), 2 * lanes, 2 * lanes + 1]):
        await run(dut, memory, rng, Pattern(2, cols, 4 * first, 4 * (cols + 3), 4), bench.always())
    for cols in range(1, 3 * lanes + 1):
        await run(dut, memory, rng, Pattern(2, cols, 4 * lanes, 12 * lanes, 4), bench.always(), wide=True)
    await run(dut, memory, rng, Pattern(3, 100, 4096 - 40, 4096, 4), bench.always())
    await run(dut, memory, rng, Pattern(3, 100, 4096 - 64, 4096, 4), bench.always(), wide=True)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_empty(dut):
    memory, rng = await start(dut)
    for pattern, wide in product(EMPTY, (False, True)):
        assert (await run(dut, memory, rng, pattern._replace(col=4), bench.always(), wide))[1] == 1
    assert not memory.writes
    await run(dut, memory, rng, Pattern(2, 3, 4, 400, 4), bench.always())


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_throughput(dut):
    """A word a cycle to a memory that answers after 40 cycles, rows not aligned; or a beat a cycle."""
    memory, rng = await start(dut, latency=40)
    lanes = memory.bus_bytes // 4
    for cols, wide in ((33, False), (8 * lanes, True), (7 * lanes + 1, True)):
        count = 40 * (-(-cols // lanes) if wide else cols)
        pattern = Pattern(40, cols, 0, 32 * lanes, 4) if wide else Pattern(40, cols, 4, 136, 4)
        taken, done = await run(dut, memory, rng, pattern, bench.always(), wide)
        dut._log.info(f"{count} {'beats' if wide else 'words'}: last taken in cycle {taken}, done in cycle {done}")
        assert taken <= count + 4 and done <= taken + 40 + 5


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    memory, rng = await start(dut, latency=(1, 20), patterns={"w": "random"})
    for turn in range(10):
        wide, lanes = turn % 3 == 0, memory.bus_bytes // 4
        pattern = Pattern(9, 9, BASE + 64, 64, 4) if wide else Pattern(9, 9, BASE + 4, 40, 4)
        sender = cocotb.start_soon(bench.send(dut, "i", sent(rng, range(81), pattern, lanes, wide), bench.mostly(0.8, turn)))
        await begin(dut, pattern, wide)
        for _ in range(rng.randint(1, 60)):
            await RisingEdge(dut.clk)
        sender.cancel()
        quiet(dut)
        await bench.reset(dut)
        await run(dut, memory, rng, Pattern(3, 5, 4 * turn, 40, 4), bench.always())
        await run(dut, memory, rng, Pattern(3, 5, 160, 320, 4), bench.always(), wide=True)


@pytest.mark.parametrize("bus_bytes", [8, 32])
def test_memory_scatter(bus_bytes):
    bench.run(ScatterAndWriter(bus_bytes), __file__, f"memory_scatter_{bus_bytes}")


def test_golden_is_the_scatter_to_memory_as_words():
    rng = random.Random(1)
    memory = np.random.default_rng(1).integers(0, 256, 4096, np.uint8)
    as_words = np.array([int.from_bytes(memory[at : at + 4].tobytes(), "little") for at in range(0, 4096, 4)], np.uint32)
    for pattern in [*EMPTY, *patterns(rng, 4096, 4, contiguous=True)]:
        words = [rng.getrandbits(32) for _ in range(pattern.rows * pattern.cols)]
        in_words = Pattern(pattern.rows, pattern.cols, pattern.at // 4, pattern.row // 4, 1)
        after = scatter(as_words, in_words, words)
        assert memory_scatter(memory, pattern._replace(col=4), words).tobytes() == after.astype("<u4").tobytes()
