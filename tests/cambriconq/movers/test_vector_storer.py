import random
from collections.abc import Iterator
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
from nibblecore.hdl.cambriconq.movers.vector_storer import VectorStorer
from nibblecore.hdl.cambriconq.quantize.quantize_unit import line_layout
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.machine import Machine, Tag
from nibblecore.sim.golden.cambriconq.movers.vector_loader import beats_of, marked, vector_loader
from nibblecore.sim.golden.cambriconq.movers.vector_storer import vector_storer
from places import now
from structs import join

BASE, SIZE = 0x8000_0000, 1 << 14


class StorerAndWriter(wiring.Component):
    """The block and the DMA that it commands."""

    def __init__(self, cols):
        self.cols = cols
        super().__init__(
            {
                "start": In(1),
                "slot": In(3),
                "at": In(32),
                "tags": In(32),
                "done": Out(1),
                "i": In(stream.Signature(line_layout(cols))),
                "m_axi": Out(Axi4Write(cols // 2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.storer = block = VectorStorer(self.cols)
        m.submodules.writer = writer = AxiWriter(self.cols // 2)
        connect(m, block.command, writer.command)
        connect(m, block.data, writer.data)
        connect(m, self.i, block.i)
        m.d.comb += [getattr(block, name).eq(getattr(self, name)) for name in ("start", "slot", "at", "tags")]
        m.d.comb += [self.done.eq(block.done), block.writer_idle.eq(writer.idle), *forward(writer.m_axi, self.m_axi)]
        return m


def quiet(dut):
    for port in ("start", "slot", "at", "tags", "i__valid", "i__payload"):
        getattr(dut, port).value = 0


async def start(dut, **options):
    quiet(dut)
    memory = AxiMemory(dut, SIZE, base=BASE, **options)
    memory.fill(1)
    await bench.start(dut)
    return memory, random.Random(random.getrandbits(32))


async def begin(dut, slot, at, tags):
    for port, value in (("slot", slot), ("at", BASE + at), ("tags", BASE + tags), ("start", 1)):
        getattr(dut, port).value = value
    await RisingEdge(dut.clk)
    dut.start.value = 0


def words(lines, line_bytes):
    return [join(line_layout(2 * line_bytes), line._asdict()) for line in lines]


def random_lines(rng, vectors, slot, line_bytes):
    return marked(
        [rng.getrandbits(8 * line_bytes) for _ in range(vectors * slot)], [rng.getrandbits(10) for _ in range(vectors)], slot
    )


async def run(dut, memory, rng, vectors, slot, at, tags, valid, early=False):
    """All of memory, in the order of the beats, `done` once and not before every answer; the cycles from start to the last line
    and to `done`. With `early` lines are offered before the start."""
    line_bytes, writes, place = memory.bus_bytes, len(memory.writes), f"{vectors} vectors, slot {slot}, {at:#x}, tags {tags:#x}"
    lines = random_lines(rng, vectors, slot, line_bytes)
    expected = vector_storer(memory.data, lines, at, tags, line_bytes)
    sender = cocotb.start_soon(bench.send(dut, "i", words(lines, line_bytes), valid)) if early else None
    for _ in range(5 * early):
        await ReadOnly()
        assert not dut.i__ready.value
        await RisingEdge(dut.clk)
    first, taken, done = now(), now(), 0
    await begin(dut, slot, at, tags)
    sender = sender or cocotb.start_soon(bench.send(dut, "i", words(lines, line_bytes), valid))
    while not done:
        await ReadOnly()
        taken = now() if dut.i__valid.value and dut.i__ready.value else taken
        done = now() if dut.done.value else 0
        assert not done or (memory.outstanding_writes == 0 and not dut.m_axi__wvalid.value and not dut.m_axi__awvalid.value)
        assert now() - first < 60 * vectors * (slot + 1) + 5000, place
        await RisingEdge(dut.clk)
    assert np.array_equal(memory.data, expected), place
    for _ in range(3):
        await ReadOnly()
        assert not dut.done.value and not dut.i__ready.value
        await RisingEdge(dut.clk)
    sender.cancel()
    ordered = [
        (address - address % line_bytes, count)
        for turn in zip(*[iter(beats_of(vectors, slot, at, tags, line_bytes))] * 2, strict=True)
        for address, count in reversed(turn)
    ]
    seen = [address - BASE + beat * line_bytes for address, count in memory.writes[writes:] for beat in range(count)]
    assert seen == [address + beat * line_bytes for address, count in ordered for beat in range(count)], place
    return taken - first, done - first


def jobs(rng: random.Random, line_bytes: int) -> Iterator[tuple[int, int, int, int]]:
    """Vectors, slot, and where lines and tags go; they may overlap."""
    yield 1, 1, SIZE - line_bytes, 0
    yield 1, 4, 0, SIZE - 2
    yield 2, 3, line_bytes, SIZE // 2 + line_bytes - 2  # tags in two beats
    yield 9, 1, 0, 0  # tags overwrite lines before them
    yield 20, 2, 10 * line_bytes, 10 * line_bytes - 6  # lines overwrite tags before them
    for slot in (1, 2, 3, 4):
        for vectors in (rng.randint(1, 5), rng.randint(6, 40)):
            yield (
                vectors,
                slot,
                rng.randrange(SIZE // line_bytes - vectors * slot + 1) * line_bytes,
                2 * rng.randrange(SIZE // 2 - vectors + 1),
            )


@cocotb.test(timeout_time=3, timeout_unit="ms")
@cocotb.parametrize(case=range(4))
async def bench_vectors(dut, case):
    names = list(bench.PATTERNS)
    stalls = {"aw": names[case], "w": names[(0, 2, 3, 1)[case]], "b": names[(0, 3, 1, 2)[case]]}
    order = ["any", "data first", "address first", "any"][case]
    memory, rng = await start(dut, latency=(1, 40), patterns=stalls, order=order, seed=case + 1)
    for turn, job in enumerate(jobs(rng, memory.bus_bytes)):
        await run(dut, memory, rng, *job, bench.PATTERNS[names[turn % 4]](rng.getrandbits(32)), early=turn % 3 == 1)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_tags_at_every_place(dut):
    memory, rng = await start(dut)
    in_beat = memory.bus_bytes // 2
    for place, vectors in product(range(in_beat), (1, in_beat, in_beat + 1)):
        await run(dut, memory, rng, vectors, 1, SIZE // 2, 2 * place, bench.always())


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_start_without_lines(dut):
    """It asks for nothing, and the next start counts."""
    memory, rng = await start(dut)
    for turn in range(4):
        await begin(dut, 3, 64 * turn, 1000)
        for _ in range(turn * 5):
            await ReadOnly()
            assert not dut.done.value and not dut.m_axi__awvalid.value and not dut.m_axi__wvalid.value
            await RisingEdge(dut.clk)
        await run(dut, memory, rng, 3, 2, 4096, 2050, bench.always())


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_throughput(dut):
    """Slot lines in slot + 1 cycles while the writer's 8 bursts cover the latency."""
    memory, rng = await start(dut, latency=1)
    for slot in (1, 2, 3, 4):
        taken, done = await run(dut, memory, rng, 40, slot, 4096, 10, bench.always())
        assert taken <= 40 * (slot + 1) + 4 and done <= taken + 9, f"slot {slot}: {taken}, {done}"
    memory._latency = lambda: 40
    taken, done = await run(dut, memory, rng, 40, 4, 4096, 10, bench.always())
    dut._log.info(f"slot 4 at a latency of 40: {160 / taken:.3f} lines a cycle; done {done - taken} cycles after the last")
    assert done <= taken + 47


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    memory, rng = await start(dut, latency=(1, 20), patterns={"w": "random"})
    for turn in range(12):
        lines = words(random_lines(rng, 30, 3, memory.bus_bytes), memory.bus_bytes)
        sender = cocotb.start_soon(bench.send(dut, "i", lines, bench.mostly(0.8, turn)))
        await begin(dut, 3, 4096, 4)
        for _ in range(rng.randint(1, 80)):
            await RisingEdge(dut.clk)
        sender.cancel()
        quiet(dut)
        await bench.reset(dut)
        await run(dut, memory, rng, 5, 2, 4096, 2 * turn, bench.always(), early=turn % 2 == 1)


@pytest.mark.parametrize("cols", [16, 8])
def test_vector_storer(cols):
    bench.run(StorerAndWriter(cols), __file__, f"vector_storer_{cols}")


@pytest.mark.parametrize("cols", [8, 16, 64])
def test_golden_is_the_functional_models_vstore(cols):
    """Of random slots of NBin, and what is written there is what a load finds where nothing overlaps."""
    rng = random.Random(1)
    config = CambriconqConfig(name="bench", rows=8, cols=cols, nbin_bytes=256 * cols // 2, sb_bytes=64, nbout_bytes=64)
    for vectors, slot, at, tags in jobs(rng, cols // 2):
        golden = Machine(config, np.random.default_rng(1).integers(0, 256, SIZE, np.uint8), lambda number, x: x)
        lines = [line._replace(tag=line.tag & 255 | slot - 1 << 8) for line in random_lines(rng, vectors, slot, cols // 2)]
        for number, line in enumerate(lines, start=3):
            golden.buffers[0].lines[number] = bench.unpack(line.line, 4, cols)
            golden.buffers[0].tags[number] = Tag.unpack(line.tag)
        expected = vector_storer(golden.memory, lines, at, tags, cols // 2)
        golden._vstore(side=0, slot=slot, vectors=vectors, src=3, dest=at, dest_tags=tags)
        assert np.array_equal(golden.memory, expected)
        if at + vectors * slot * cols // 2 <= tags or tags + 2 * vectors <= at:
            assert vector_loader(expected, vectors, slot, at, tags, cols // 2)[0] == lines
