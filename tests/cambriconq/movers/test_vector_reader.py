import random
from typing import Any

import bench
import cocotb
import pytest
from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.cambriconq.buffers.tag import Tag as TagStruct
from nibblecore.hdl.cambriconq.buffers.tagged_memory import TaggedMemory
from nibblecore.hdl.cambriconq.movers.vector_reader import VectorReader
from nibblecore.hdl.cambriconq.quantize.quantize_unit import line_layout
from nibblecore.sim.golden.cambriconq.machine import Buffer, Tag, _Stop
from nibblecore.sim.golden.cambriconq.movers.vector_reader import vector_reader
from places import now
from structs import split

LINES = 64


class ReaderAndMemory(wiring.Component):
    """The block and a buffer; what the buffer shows is spoilt in every cycle that follows no read."""

    def __init__(self, cols):
        self.cols = cols
        super().__init__(
            {
                "start": In(1),
                "vectors": In(16),
                "slot": In(3),
                "at": In(range(LINES)),
                "done": Out(1),
                "no_tag": Out(1),
                "o": Out(stream.Signature(line_layout(cols))),
                "write_enable": In(1),
                "write_line": In(range(LINES)),
                "write_tag": In(TagStruct),
                "write_data": In(4 * cols),
                "clear": In(1),
                "sweeping": Out(1),
                "reads": Out(1),
                "address": Out(range(LINES)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = block = VectorReader(self.cols, LINES)
        m.submodules.memory = memory = TaggedMemory(LINES, 4 * self.cols, 2)
        connect(m, block.o, self.o)
        m.d.comb += [getattr(block, name).eq(getattr(self, name)) for name in ("start", "vectors", "slot", "at")]
        m.d.comb += [
            getattr(memory, name).eq(getattr(self, name))
            for name in ("write_enable", "write_line", "write_tag", "write_data", "clear")
        ]
        m.d.comb += [
            self.done.eq(block.done),
            self.no_tag.eq(block.no_tag),
            self.sweeping.eq(memory.sweeping),
            memory.write_valid.eq(1),
            self.reads.eq(block.port.enable),
            self.address.eq(block.port.address),
            memory.read_enable.eq(block.port.enable),
            memory.read_line.eq(block.port.address),
        ]
        shown = Signal()
        m.d.sync += shown.eq(block.port.enable)
        m.d.comb += [
            block.port.line.eq(Mux(shown, memory.read_data, ~memory.read_data)),
            block.port.tag.eq(Mux(shown, memory.read_tag.as_value(), ~memory.read_tag.as_value())),
            block.port.written.eq(Mux(shown, memory.read_valid, ~memory.read_valid)),
        ]
        return m


def quiet(dut):
    for port in ("start", "vectors", "slot", "at", "o__ready", "write_enable", "write_line", "write_tag", "write_data", "clear"):
        getattr(dut, port).value = 0


async def start(dut):
    quiet(dut)
    await bench.start(dut)
    return random.Random(random.getrandbits(32))


async def fill(
    dut: Any, rng: random.Random, slot: int, at: int, vectors: int, wrong: str | None = None
) -> tuple[list[int], list[int | None]]:
    """A cleared buffer with vectors at a place; returns its lines and tags. `wrong` is what one line of one slot has."""
    width = len(dut.write_data)
    lines = [rng.getrandbits(width) for _ in range(LINES)]
    tags: list[int | None] = [None] * LINES
    some = [rng.getrandbits(10) for _ in range(2)]
    for number in range(vectors):
        tags[at + number * slot : at + (number + 1) * slot] = [rng.choice(some) if wrong else rng.getrandbits(10)] * slot
    for beside in (at - 1, at + vectors * slot):
        if 0 <= beside < LINES:
            tags[beside] = rng.choice((None, some[0]))
    if wrong:
        victim = at + rng.choice((0, vectors * slot - 1, rng.randrange(vectors * slot)))
        tag = tags[victim]
        assert tag is not None
        tags[victim] = None if wrong == "none" else tag ^ 1 << rng.randrange(10)
    while dut.sweeping.value:
        await RisingEdge(dut.clk)
    dut.clear.value = 1
    await RisingEdge(dut.clk)
    dut.clear.value = 0
    await RisingEdge(dut.clk)
    while dut.sweeping.value:
        await RisingEdge(dut.clk)
    for number in (number for number, tag in enumerate(tags) if tag is not None):
        dut.write_enable.value, dut.write_line.value, dut.write_data.value = 1, number, lines[number]
        dut.write_tag.value = tags[number]
        await RisingEdge(dut.clk)
    dut.write_enable.value = 0
    return lines, tags


async def begin(dut, vectors, slot, at):
    for port, value in (("vectors", vectors), ("slot", slot), ("at", at), ("start", 1)):
        getattr(dut, port).value = value
    await RisingEdge(dut.clk)
    dut.start.value = 0


async def run(dut, lines, tags, vectors, slot, at, ready):
    """Every line, or none and `no_tag`; reads within the place; `done` once. Cycles from start to the first line, the last, `done`."""
    place = f"{vectors} vectors, slot {slot}, at {at}"
    expected = vector_reader(lines, tags, vectors, slot, at)
    layout, waiting, taken, first = line_layout(len(dut.write_data) // 4), None, [], now()
    done: list[int] = []
    moved: list[int] = []
    await begin(dut, vectors, slot, at)
    while not done or now() < done[-1] + 4:
        dut.o__ready.value = int(next(ready))
        await ReadOnly()
        if dut.done.value:
            done.append(now())
            assert bool(dut.no_tag.value) == (expected is None), place
        assert not dut.reads.value or at <= int(dut.address.value) < at + vectors * slot, place
        valid, line = bool(dut.o__valid.value), int(dut.o__payload.value)
        assert waiting in (None, (valid, line)), f"{place}: a line on offer was withdrawn or changed"
        waiting = (valid, line) if valid and not dut.o__ready.value else None
        if valid and dut.o__ready.value:
            taken.append(split(layout, line))
            moved.append(now())
        assert now() - first < 100 * vectors * slot + 500, place
        await RisingEdge(dut.clk)
    assert taken == [line._asdict() for line in expected or []], place
    assert len(done) == 1 and (not moved or done[0] == moved[-1] + 1), place
    return moved[0] - first if moved else None, moved[-1] - first if moved else None, done[0] - first


def jobs(rng):
    yield 1, 1, 0
    yield 1, 1, LINES - 1
    yield LINES, 1, 0
    yield LINES // 4, 4, 0
    for slot in (1, 2, 3, 4):
        for _ in range(3):
            vectors = rng.randint(1, LINES // slot)
            yield vectors, slot, rng.randrange(LINES - vectors * slot + 1)


@cocotb.test(timeout_time=3, timeout_unit="ms")
@cocotb.parametrize(ready=list(bench.PATTERNS))
async def bench_vectors(dut, ready):
    rng = await start(dut)
    for vectors, slot, at in jobs(rng):
        content = await fill(dut, rng, slot, at, vectors)
        await run(dut, *content, vectors, slot, at, bench.PATTERNS[ready](rng.getrandbits(32)))


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_not_a_vector(dut):
    """A line that was not written, or another bit of a tag, among the first, the last or any line; with one line a slot only the former."""
    rng = await start(dut)
    for _ in range(3):
        for turn, (vectors, slot, at) in enumerate(jobs(rng)):
            wrong = ("none", "tag")[turn % 2]
            content = await fill(dut, rng, slot, at, vectors, wrong)
            await run(dut, *content, vectors, slot, at, bench.mostly(0.7, turn))
            content = await fill(dut, rng, slot, at, vectors)
            await run(dut, *content, vectors, slot, at, bench.mostly(0.7, turn))


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_throughput(dut):
    """A line a cycle in either pass, three cycles between them."""
    rng = await start(dut)
    for slot in (1, 2, 3, 4):
        vectors = 60 // slot
        content = await fill(dut, rng, slot, 2, vectors)
        assert await run(dut, *content, vectors, slot, 2, bench.always()) == (
            slot * vectors + 4,
            2 * slot * vectors + 3,
            2 * slot * vectors + 4,
        )


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    rng = await start(dut)
    for _ in range(12):
        await fill(dut, rng, 3, 1, 20)
        await begin(dut, 20, 3, 1)
        dut.o__ready.value = rng.randrange(2)
        for _ in range(rng.randint(1, 130)):
            await RisingEdge(dut.clk)
        quiet(dut)
        await bench.reset(dut)
        content = await fill(dut, rng, 2, 30, 5)
        await run(dut, *content, 5, 2, 30, bench.always())


@pytest.mark.parametrize("cols", [16, 8])
def test_vector_reader(cols):
    bench.run(ReaderAndMemory(cols), __file__, f"vector_reader_{cols}")


@pytest.mark.parametrize("cols", [8, 16])
def test_golden_is_the_functional_models_buffer(cols):
    rng, seen = random.Random(1), set()
    for turn, (vectors, slot, at) in enumerate(job for _ in range(8) for job in jobs(rng)):
        buffer, lines = Buffer.of(LINES, cols), [rng.getrandbits(4 * cols) for _ in range(LINES)]
        words = [word for _ in range(LINES) for word in [rng.getrandbits(10)] * slot]
        tags = [None] * at + words[: LINES - at]
        if turn % 3:
            tags[rng.randrange(LINES)] = (None, words[0])[turn % 2]
        for number, (line, tag) in enumerate(zip(lines, tags, strict=True)):
            buffer.lines[number] = bench.unpack(line, 4, cols)
            buffer.tags[number] = None if tag is None else Tag.unpack(tag)
        found = vector_reader(lines, tags, vectors, slot, at)
        seen.add(found is None)
        try:
            vectors_there = [buffer.vector(at + number * slot, slot) for number in range(vectors)]
        except _Stop:
            assert found is None
            continue
        assert found is not None
        assert [Tag.unpack(line.tag) for line in found] == [tag for _, tag in vectors_there for _ in range(slot)]
        for number, (values, _) in enumerate(vectors_there):
            planes = [bench.unpack(line.line, 4, cols) for line in found[number * slot : number * slot + slot]]
            assert planes == [(values >> 4 * plane & 15).tolist() for plane in range(slot)]
    assert seen == {False, True}
