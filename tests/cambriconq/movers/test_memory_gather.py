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
from nibblecore.hdl.bus.axi4 import Axi4Read, forward
from nibblecore.hdl.bus.reader import AxiReader
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.cambriconq.movers.memory_gather import MemoryGather
from nibblecore.hdl.cambriconq.program.job import Place, Shape, elements_layout
from nibblecore.sim.golden.cambriconq.movers.gather import gather
from nibblecore.sim.golden.cambriconq.movers.memory_commands import commands
from nibblecore.sim.golden.cambriconq.movers.memory_gather import memory_gather
from nibblecore.sim.golden.cambriconq.movers.walk import Pattern
from places import EMPTY, begin, element, now, patterns, wide_patterns

BASE, SIZE = 0x8000_0000, 1 << 14


class GatherAndReader(wiring.Component):
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
                "o": Out(stream.Signature(elements_layout(bus_bytes // 4))),
                "idle": Out(1),
                "m_axi": Out(Axi4Read(bus_bytes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.gather = block = MemoryGather(self.bus_bytes)
        m.submodules.reader = reader = AxiReader(self.bus_bytes)
        connect(m, block.command, reader.command)
        connect(m, reader.data, block.data)
        connect(m, block.o, self.o)
        m.d.comb += [
            block.start.eq(self.start),
            block.shape.eq(self.shape),
            block.place.eq(self.place),
            block.wide.eq(self.wide),
            self.done.eq(block.done),
            self.idle.eq(reader.idle),
            *forward(reader.m_axi, self.m_axi),
        ]
        return m


def quiet(dut):
    for port in ("start", "shape", "place", "wide", "o__ready"):
        getattr(dut, port).value = 0


async def start(dut, **options):
    quiet(dut)
    memory = AxiMemory(dut, SIZE, base=BASE, **options)
    memory.fill(1)
    await bench.start(dut)
    return memory, random.Random(random.getrandbits(32))


def above(pattern):
    return pattern._replace(at=pattern.at + BASE)


async def run(dut, memory, pattern, ready, wide=False):
    """Every word, every beat once, `done` in the cycle after the last word and in no other; the cycles from first word to last."""
    lanes = memory.bus_bytes // 4
    expected, done, seen, reads = memory_gather(memory.data, pattern, lanes if wide else 1), [], [], len(memory.reads)

    async def watch():
        while True:
            await ReadOnly()
            if dut.done.value:
                done.append(now())
            if dut.o__valid.value:
                seen.append(now())
            await RisingEdge(dut.clk)

    watcher = cocotb.start_soon(watch())
    await begin(dut, above(pattern), wide)
    taken = await bench.receive(dut, "o", len(expected), ready)
    assert [element(word, lanes) for word in taken] == expected, (pattern, wide)
    end = now()
    for _ in range(3):
        await ReadOnly()
        assert not dut.o__valid.value
        await RisingEdge(dut.clk)
    watcher.cancel()
    assert done == [end]
    assert dut.idle.value, "beats were asked for that nobody took"
    assert sum(beats for _, beats in memory.reads[reads:]) == sum(beats for _, beats in commands(pattern, memory.bus_bytes))
    return end - seen[0] if seen else 0


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(case=range(4))
async def bench_words(dut, case):
    names = list(bench.PATTERNS)
    stalls = {"ar": names[case], "r": names[(0, 2, 3, 1)[case]]}
    memory, rng = await start(dut, latency=(1, 40), patterns=stalls, seed=case + 1)
    jobs = [(pattern, False) for pattern in patterns(rng, SIZE, 4)]
    jobs += [(pattern, True) for pattern in wide_patterns(rng, SIZE, 4, memory.bus_bytes // 4)]
    rng.shuffle(jobs)
    for turn, (pattern, wide) in enumerate(jobs):
        await run(dut, memory, pattern, bench.PATTERNS[names[turn % 4]](rng.getrandbits(32)), wide)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_pages_and_alignment(dut):
    """Rows of every length and alignment up to three beats, and rows across a 4 KiB page."""
    memory, _ = await start(dut, latency=3)
    lanes = memory.bus_bytes // 4
    for first, cols in product(range(lanes), [*range(1, lanes + 2), 2 * lanes, 2 * lanes + 1]):
        await run(dut, memory, Pattern(2, cols, 4 * first, 4 * (cols + 3), 4), bench.always())
    for cols in range(1, 3 * lanes + 1):
        await run(dut, memory, Pattern(2, cols, 4 * lanes, 12 * lanes, 4), bench.always(), wide=True)
    await run(dut, memory, Pattern(3, 100, 4096 - 40, 4096, 4), bench.always())
    await run(dut, memory, Pattern(3, 100, 4096 - 64, 4096, 4), bench.always(), wide=True)
    await run(dut, memory, Pattern(2, 9, 4096 - 32, 4096, 8), bench.always())


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_empty(dut):
    memory, _ = await start(dut)
    for pattern, wide in product(EMPTY, (False, True)):
        first = now()
        await run(dut, memory, pattern, bench.always(), wide)
        assert now() - first == 4 and not memory.reads  # three of them are waited for after the end
    await run(dut, memory, Pattern(2, 3, 4, 400, 4), bench.always())


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_throughput(dut):
    """A word a cycle from a memory 40 cycles away, rows not aligned, or a beat a cycle; elements one by one up to a latency of 14."""
    memory, _ = await start(dut, latency=40)
    lanes = memory.bus_bytes // 4
    for cols in (4 * lanes, 4 * lanes + 1):
        wide = Pattern(40, cols, 4 * lanes, 20 * lanes, 4)
        assert await run(dut, memory, wide, bench.always(), wide=True) == 40 * -(-cols // lanes)
    assert await run(dut, memory, Pattern(40, 33, 4, 136, 4), bench.always()) == 40 * 33
    memory._latency = lambda: 14
    assert await run(dut, memory, Pattern(40, 33, 4, 4, 164), bench.always()) == 40 * 33
    memory._latency = lambda: 40
    cycles = await run(dut, memory, Pattern(40, 33, 4, 4, 164), bench.always())
    dut._log.info(f"one by one at a latency of 40: {40 * 33 / cycles:.3f} words a cycle")
    assert 40 * 33 / cycles >= 16 / 42


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_latency(dut):
    await start(dut, latency=10)
    seen: dict[str, int] = {}
    first = now()
    await begin(dut, above(Pattern(1, 1, 8, 0, 4)))
    while len(seen) < 3:
        await ReadOnly()
        for port in ("m_axi__arvalid", "m_axi__rvalid", "o__valid"):
            if getattr(dut, port).value:
                seen.setdefault(port, now() - first)
        await RisingEdge(dut.clk)
    assert seen["m_axi__arvalid"] == 3
    assert seen["o__valid"] - seen["m_axi__rvalid"] == 1


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    memory, rng = await start(dut, latency=(1, 20), patterns={"r": "random"})
    for turn in range(10):
        wide = turn % 3 == 0
        await begin(dut, above(Pattern(9, 9, 64, 64, 4) if wide else Pattern(9, 9, 4, 40, 4 + 4 * (turn % 2))), wide)
        dut.o__ready.value = rng.randrange(2)
        for _ in range(rng.randint(1, 60)):
            await RisingEdge(dut.clk)
        quiet(dut)
        await bench.reset(dut)
        await run(dut, memory, Pattern(3, 5, 4 * turn, 40, 4), bench.always())
        await run(dut, memory, Pattern(3, 5, 160, 320, 4), bench.always(), wide=True)


@pytest.mark.parametrize("bus_bytes", [8, 32])
def test_memory_gather(bus_bytes):
    bench.run(GatherAndReader(bus_bytes), __file__, f"memory_gather_{bus_bytes}")


def test_golden_is_the_gather_of_memory_as_words():
    rng = np.random.default_rng(1)
    memory = rng.integers(0, 256, 4096, np.uint8)
    words = np.array([int.from_bytes(memory[at : at + 4].tobytes(), "little") for at in range(0, 4096, 4)], np.uint32)
    for pattern in [*EMPTY, *patterns(random.Random(2), 4096, 4)]:
        in_words = Pattern(pattern.rows, pattern.cols, *(part // 4 for part in pattern[2:]))
        if (pattern.row, pattern.col) != (0xFFFF_FFFC, 0xFFFF_FFFC):
            for together in (1, 2, 8):
                assert memory_gather(memory, pattern, together) == gather(words, in_words, together)
