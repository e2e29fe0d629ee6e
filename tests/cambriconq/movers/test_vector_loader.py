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
from nibblecore.hdl.cambriconq.movers.vector_loader import VectorLoader
from nibblecore.hdl.cambriconq.movers.vector_storer import VectorStorer
from nibblecore.hdl.cambriconq.quantize.quantize_unit import line_layout
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.machine import Machine, Tag, _Stop
from nibblecore.sim.golden.cambriconq.movers.vector_loader import vector_loader
from places import now
from structs import split

BASE, SIZE = 0x8000_0000, 1 << 14
MISFITS = [0x8000, 0x0400, 0x0B00, 0xFC00]
"""Words that are no tag."""


class LoaderAndReader(wiring.Component):
    """The block and the DMA that it commands."""

    def __init__(self, cols):
        self.cols = cols
        super().__init__(
            {
                "start": In(1),
                "vectors": In(16),
                "slot": In(3),
                "at": In(32),
                "tags": In(32),
                "done": Out(1),
                "bad_tag": Out(1),
                "o": Out(stream.Signature(line_layout(cols))),
                "idle": Out(1),
                "m_axi": Out(Axi4Read(cols // 2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader = block = VectorLoader(self.cols)
        m.submodules.reader = reader = AxiReader(self.cols // 2)
        connect(m, block.command, reader.command)
        connect(m, reader.data, block.data)
        connect(m, block.o, self.o)
        m.d.comb += [getattr(block, name).eq(getattr(self, name)) for name in ("start", "vectors", "slot", "at", "tags")]
        m.d.comb += [
            self.done.eq(block.done),
            self.bad_tag.eq(block.bad_tag),
            self.idle.eq(reader.idle),
            *forward(reader.m_axi, self.m_axi),
        ]
        return m


def quiet(dut):
    for port in ("start", "vectors", "slot", "at", "tags", "o__ready"):
        getattr(dut, port).value = 0


async def start(dut, **options):
    quiet(dut)
    memory = AxiMemory(dut, SIZE, base=BASE, **options)
    memory.fill(1)
    await bench.start(dut)
    return memory, random.Random(random.getrandbits(32))


async def begin(dut, vectors, slot, at, tags):
    for port, value in (("vectors", vectors), ("slot", slot), ("at", BASE + at), ("tags", BASE + tags), ("start", 1)):
        getattr(dut, port).value = value
    await RisingEdge(dut.clk)
    dut.start.value = 0


def put_tags(rng, memory, vectors, slot, tags, misfit=None):
    """Tags that fit, and in place of one of them `misfit`; beside them words that are no tags."""
    words = memory.data.view("<u2")
    for beside in (tags // 2 - 1, tags // 2 + vectors):
        if 0 <= beside < len(words):
            words[beside] = 0xFFFF
    words[tags // 2 : tags // 2 + vectors] = [rng.randrange(256 * slot) for _ in range(vectors)]
    if misfit is not None:
        words[tags // 2 + rng.choice((0, vectors - 1, rng.randrange(vectors)))] = misfit


async def run(dut, memory, vectors, slot, at, tags, ready):
    """Every line, or none and `bad_tag`; every beat once; `done` once. Returns the cycles from the first line to the last."""
    line_bytes = memory.bus_bytes
    place = f"{vectors} vectors, slot {slot}, {at:#x}, tags {tags:#x}"
    expected, beats = vector_loader(memory.data, vectors, slot, at, tags, line_bytes)
    layout, waiting, taken, first, reads = line_layout(2 * line_bytes), None, [], now(), len(memory.reads)
    done: list[int] = []
    moved: list[int] = []
    await begin(dut, vectors, slot, at, tags)
    while not done or now() < done[-1] + 4:
        dut.o__ready.value = int(next(ready))
        await ReadOnly()
        if dut.done.value:
            done.append(now())
            assert bool(dut.bad_tag.value) == (expected is None), place
        valid, line = bool(dut.o__valid.value), int(dut.o__payload.value)
        assert waiting in (None, (valid, line)), f"{place}: a line on offer was withdrawn or changed"
        waiting = (valid, line) if valid and not dut.o__ready.value else None
        if valid:
            moved.append(now())
        if valid and dut.o__ready.value:
            taken.append(split(layout, line))
            last_taken = now()
        assert now() - first < 100 * len(beats) * slot + 5000, place
        await RisingEdge(dut.clk)
    assert taken == [line._asdict() for line in expected or []], place
    assert len(done) == 1 and (not taken or done[0] == last_taken + 1), place
    assert dut.idle.value, f"{place}: beats were asked for that nobody took"
    seen = [address - BASE + beat * line_bytes for address, count in memory.reads[reads:] for beat in range(count)]
    assert seen == [address + beat * line_bytes for address, count in beats for beat in range(count)], place
    return moved[-1] - moved[0] + 1 if moved else 0


def jobs(rng, line_bytes):
    """Vectors, slot, and where lines and tags lie, apart."""
    half = SIZE // 2
    yield 1, 1, SIZE - line_bytes, 0
    yield 1, 4, 0, SIZE - 2
    yield 2, 3, line_bytes, half + line_bytes - 2  # tags in two beats
    for slot in (1, 2, 3, 4):
        for vectors in (rng.randint(1, 5), rng.randint(6, 40)):
            at = rng.randrange((half - vectors * slot * line_bytes) // line_bytes + 1) * line_bytes
            tags = half + 2 * rng.randrange(half // 2 - vectors + 1)
            yield (vectors, slot, at, tags) if rng.random() < 0.5 else (vectors, slot, at + half, tags - half)


@cocotb.test(timeout_time=3, timeout_unit="ms")
@cocotb.parametrize(case=range(4))
async def bench_vectors(dut, case):
    names = list(bench.PATTERNS)
    stalls = {"ar": names[case], "r": names[(0, 2, 3, 1)[case]]}
    memory, rng = await start(dut, latency=(1, 40), patterns=stalls, seed=case + 1)
    for turn, (vectors, slot, at, tags) in enumerate(jobs(rng, memory.bus_bytes)):
        put_tags(rng, memory, vectors, slot, tags)
        await run(dut, memory, vectors, slot, at, tags, bench.PATTERNS[names[turn % 4]](rng.getrandbits(32)))


@cocotb.test(timeout_time=3, timeout_unit="ms")
async def bench_malformed_tags(dut):
    """Every bit beyond the tag, every size, among the first, the last or any tag; and between them loads that are in order."""
    memory, rng = await start(dut, latency=(1, 10), patterns={"r": "random"})
    for slot, misfit in product((1, 2, 3, 4), [*(1 << bit for bit in range(10, 16)), *(size << 8 for size in range(4)), *MISFITS]):
        vectors, tags = rng.randint(1, 12), SIZE // 2 + 2 * rng.randrange(40)
        put_tags(rng, memory, vectors, slot, tags, misfit)
        await run(dut, memory, vectors, slot, memory.bus_bytes * rng.randrange(9), tags, bench.mostly(0.8, misfit))


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_tags_at_every_place(dut):
    """All alignments and numbers of tags up to three beats."""
    memory, rng = await start(dut)
    in_beat = memory.bus_bytes // 2
    for place, vectors in product(range(in_beat), range(1, 2 * in_beat + 2)):
        put_tags(rng, memory, vectors, 1, 2 * place)
        await run(dut, memory, vectors, 1, SIZE // 2, 2 * place, bench.always())


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_lines_that_hold_their_tags(dut):
    """Lines and tags may be the same bytes; also across 4 KiB pages."""
    memory, rng = await start(dut, latency=(1, 20))
    for slot in (1, 2, 3, 4):
        put_tags(rng, memory, 30, slot, 4096 - 30)
        await run(dut, memory, 30, slot, 4096 - 2 * memory.bus_bytes, 4096 - 30, bench.always())


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_throughput(dut):
    """Slot lines in slot + 1 cycles up to a latency of 14; beyond, what the reader's 16 bursts allow."""
    memory, rng = await start(dut, latency=14)
    for slot in (1, 2, 3, 4):
        put_tags(rng, memory, 40, slot, 10)
        cycles = await run(dut, memory, 40, slot, 4096, 10, bench.always())
        assert cycles <= 40 * (slot + 1), f"slot {slot}: {cycles} cycles"
    memory._latency = lambda: 40
    cycles = await run(dut, memory, 40, 4, 4096, 10, bench.always())
    dut._log.info(f"slot 4 at a latency of 40: {160 / cycles:.3f} lines a cycle")
    assert cycles <= 40 * 6


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_latency(dut):
    """The reader's two cycles after the first command, which is given in the cycle after the start."""
    memory, rng = await start(dut, latency=10)
    put_tags(rng, memory, 1, 1, 0)
    first = now()
    await begin(dut, 1, 1, 64, 0)
    while not dut.m_axi__arvalid.value:
        await RisingEdge(dut.clk)
        await ReadOnly()
    assert now() - first == 3


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    memory, rng = await start(dut, latency=(1, 20), patterns={"r": "random"})
    for turn in range(12):
        put_tags(rng, memory, 20, 3, 4, MISFITS[0] if turn % 4 == 0 else None)
        await begin(dut, 20, 3, 4096, 4)
        dut.o__ready.value = rng.randrange(2)
        for _ in range(rng.randint(1, 150)):
            await RisingEdge(dut.clk)
        quiet(dut)
        await bench.reset(dut)
        put_tags(rng, memory, 5, 2, 2 * turn)
        await run(dut, memory, 5, 2, 4096, 2 * turn, bench.always())


@pytest.mark.parametrize("cols", [16, 8])
def test_vector_loader(cols):
    bench.run(LoaderAndReader(cols), __file__, f"vector_loader_{cols}")


@pytest.mark.parametrize("cols", [4, 12])
@pytest.mark.parametrize("block", [VectorLoader, VectorStorer])
def test_line_is_a_beat(block, cols):
    with pytest.raises(ValueError, match="power of two"):
        block(cols)


def machine(cols, memory, lines=256):
    config = CambriconqConfig(name="bench", rows=8, cols=cols, nbin_bytes=lines * cols // 2, sb_bytes=64, nbout_bytes=64)
    return Machine(config, memory, lambda number, x: x)


@pytest.mark.parametrize("cols", [8, 16, 64])
def test_golden_is_the_functional_models_vload(cols):
    rng, memory = random.Random(1), np.random.default_rng(1).integers(0, 256, SIZE, np.uint8)
    for turn, (vectors, slot, at, tags) in enumerate(jobs(rng, cols // 2)):
        words = memory.view("<u2")[tags // 2 : tags // 2 + vectors]
        words[:] = [rng.randrange(256 * slot) for _ in range(vectors)]
        if turn % 3 == 2:
            words[rng.randrange(vectors)] = rng.choice(MISFITS)
        golden = machine(cols, memory)
        lines, _ = vector_loader(memory, vectors, slot, at, tags, cols // 2)
        try:
            golden._vload(side=0, slot=slot, vectors=vectors, dest=3, src=at, src_tags=tags)
        except _Stop:
            assert lines is None
            continue
        assert lines is not None
        for number, line in enumerate(lines, start=3):
            assert bench.unpack(line.line, 4, cols) == golden.buffers[0].lines[number].tolist()
            assert Tag.unpack(line.tag) == golden.buffers[0].tags[number]
        assert [line.last for line in lines] == [0] * (len(lines) - 1) + [1] and sum(
            line.last_of_vector for line in lines
        ) == vectors
