"""WGSTORE over the bus: the unit behind the real DMAs, all of memory compared."""

import random
from itertools import product

import bench
import cocotb
import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from axi_memory import AxiMemory
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.bus.axi4 import Axi4, forward
from nibblecore.hdl.bus.reader import AxiReader
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.bus.writer import AxiWriter
from nibblecore.hdl.cambriconq.program.job import Shape
from nibblecore.hdl.cambriconq.update.bus_updater import BusUpdater
from nibblecore.sim.golden.cambriconq.update.bus_updater import bus_updater
from places import now
from structs import join
from updates import OPTIMIZERS, memory, numbers, twin, words_of

BASE, SIZE = 0x8000_0000, 1 << 15
INPUTS = {
    "start": In(1),
    "shape": In(Shape),
    "w": In(32),
    "m": In(32),
    "v": In(32),
    "mem_row": In(32),
    "optimizer": In(data.ArrayLayout(32, 6)),
    "use_m": In(1),
    "use_rsqrt": In(1),
}


class UpdaterAndDmas(wiring.Component):
    """The block and the DMAs that it commands."""

    def __init__(self, bus_bytes):
        self.bus_bytes = bus_bytes
        super().__init__({**INPUTS, "i": In(stream.Signature(32)), "done": Out(1), "m_axi": Out(Axi4(bus_bytes))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.updater = block = BusUpdater(self.bus_bytes)
        m.submodules.reader = reader = AxiReader(self.bus_bytes)
        m.submodules.writer = writer = AxiWriter(self.bus_bytes)
        connect(m, block.read_command, reader.command)
        connect(m, reader.data, block.read_data)
        connect(m, block.write_command, writer.command)
        connect(m, block.write_data, writer.data)
        connect(m, self.i, block.i)
        m.d.comb += [
            *(getattr(block, name).eq(getattr(self, name)) for name in INPUTS),
            self.done.eq(block.done),
            block.writer_idle.eq(writer.idle),
            *forward(reader.m_axi, self.m_axi),
            *forward(writer.m_axi, self.m_axi),
        ]
        return m


def quiet(dut):
    for port in (*INPUTS, "i__valid", "i__payload"):
        getattr(dut, port).value = 0


async def start(dut, **options):
    quiet(dut)
    space = AxiMemory(dut, SIZE, base=BASE, **options)
    rng = random.Random(random.getrandbits(32))
    space.data[:] = memory(SIZE // 4, np.random.default_rng(rng.getrandbits(32))).view(np.uint8)
    await bench.start(dut)
    return space, rng


async def begin(dut, name, shape, places, mem_row):
    constants, selectors = words_of(name)
    dut.optimizer.value, dut.use_m.value, dut.use_rsqrt.value = bench.pack(constants, 32), selectors & 1, selectors >> 1
    dut.shape.value, dut.mem_row.value = join(Shape, {"rows": shape[0], "cols": shape[1]}), mem_row
    dut.w.value, dut.m.value, dut.v.value = (BASE + at for at in places)
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0


async def update(dut, space, rng, name, shape, places, mem_row, pattern=None):
    """All of memory is as the twin has it; `done` comes once, when every write has been answered. Returns cycles from start to `done`."""
    gradients = numbers(np.random.default_rng(rng.getrandbits(32)), shape[0] * shape[1])
    expected = space.data.copy()
    bus_updater(expected.view(np.float32), twin(name), places, mem_row, gradients.view(np.float32).reshape(shape))
    sender = cocotb.start_soon(bench.send(dut, "i", [*gradients.tolist(), 0], pattern))
    first, done, taken = now(), 0, 0
    await begin(dut, name, shape, places, mem_row)
    while not done:
        await ReadOnly()
        taken += int(dut.i__valid.value and dut.i__ready.value)
        done = now() if dut.done.value else 0
        assert not done or (space.outstanding_writes == 0 and not dut.m_axi__wvalid.value and not dut.m_axi__awvalid.value)
        assert now() - first < 150 * len(gradients) + 3000, "hangs"
        await RisingEdge(dut.clk)
    sender.cancel()
    dut.i__valid.value = 0
    assert taken == len(gradients) and space.outstanding_reads == 0
    wrong = np.flatnonzero(space.data.view(np.uint32) != expected.view(np.uint32))
    assert not len(wrong), f"{shape}, {places}, {mem_row}: {len(wrong)} words differ, the first at {4 * int(wrong[0]):#x}"
    for _ in range(3):
        await ReadOnly()
        assert not dut.done.value and not dut.m_axi__arvalid.value and not dut.m_axi__awvalid.value
        await RisingEdge(dut.clk)
    return done - first


def apart(rng, shape, mem_row):
    """Three places, in any order, that share no word: in spaces of their own, or row by row between each other."""
    rows, cols = shape
    if mem_row >= 12 * cols and rng.random() < 0.5:
        first = 4 * rng.randrange(20)
        return tuple(first + 4 * cols * number for number in rng.sample(range(3), 3))
    third = SIZE // 3 // 4 * 4
    reach = (rows - 1) * mem_row + 4 * cols
    assert reach <= third
    return tuple(third * number + 4 * rng.randrange((third - reach) // 4 + 1) for number in rng.sample(range(3), 3))


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(case=range(4))
async def bench_shapes(dut, case):
    names = list(bench.PATTERNS)
    stalls = {
        channel: names[(case + turn) % 4 if channel != "ar" else case] for turn, channel in enumerate(("ar", "r", "aw", "w", "b"))
    }
    order = ["any", "data first", "address first", "any"][case]
    space, rng = await start(dut, latency=(1, 40), patterns=stalls, order=order, seed=case + 1)
    shapes = [(1, 1), (1, 70), (20, 1), (3, 5), (4, 33), *((rng.randint(1, 7), rng.randint(1, 25)) for _ in range(3))]
    for turn, (rows, cols) in enumerate(shapes):
        mem_row = 4 * (cols + rng.choice((0, 0, 1, 2 * cols, 2 * cols + 1, 50)))
        pattern = bench.PATTERNS[names[turn % 4 if rows * cols < 70 else 0]](rng.getrandbits(32))
        await update(dut, space, rng, list(OPTIMIZERS)[turn % 4], (rows, cols), apart(rng, (rows, cols), mem_row), mem_row, pattern)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_alignment(dut):
    """The three in every position to each other within a beat (of the first words of wide beats), in rows of all small lengths."""
    space, rng = await start(dut, latency=(1, 10))
    lanes = space.bus_bytes // 4
    for offsets in product(range(min(lanes, 3)), repeat=3):
        cols = rng.choice((1, 2, 3, lanes, lanes + 1, 2 * lanes + 1))
        places = tuple(4096 * number + 4 * (lanes - 1 + offset) for number, offset in enumerate(offsets))
        await update(dut, space, rng, "adam", (4, cols), places, 4 * (cols + rng.randrange(3)))


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_drift(dut):
    """Rows of which one operand takes a beat and another two, many more than the queues hold."""
    space, rng = await start(dut, latency=40)
    lanes = space.bus_bytes // 4
    for places in ((0, 8192 + 4, 16384 + 4), (4, 8192, 16384), (4, 8192 + 4, 16384)):
        await update(dut, space, rng, "rmsprop", (60, lanes), places, 4 * lanes)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_rate(dut):
    """As many cycles a weight as the bus takes for three words, one at least, and a start and an end; not a cycle more once it runs."""
    space, rng = await start(dut, latency=20)
    cycles_a_weight = max(1, 3 * 4 / space.bus_bytes)
    short = await update(dut, space, rng, "adam", (1, 512), (0, 10240, 20480), 0)
    long = await update(dut, space, rng, "adam", (1, 1280), (0, 10240, 20480), 0)
    assert long - short <= cycles_a_weight * 768 + 2
    for shape, places in (((1, 1024), (0, 10240, 20480)), ((4, 256), (4, 10240, 20480)), ((16, 64), (0, 10240, 20484))):
        count = shape[0] * shape[1]
        cycles = await update(dut, space, rng, "adam", shape, places, 4 * shape[1])
        dut._log.info(
            f"{shape[0]}×{shape[1]}, {space.bus_bytes} bytes a beat: {cycles} cycles, {count / cycles:.3f} weights a cycle"
        )
        assert cycles <= 1.05 * cycles_a_weight * count + 150


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_empty(dut):
    space, rng = await start(dut)
    for shape in ((0, 0), (0, 3), (3, 0)):
        assert await update(dut, space, rng, "sgd", shape, (0, 4096, 8192), 12) == 1
    assert not space.reads and not space.writes
    await update(dut, space, rng, "sgd", (2, 3), (0, 4096, 8192), 12)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    space, rng = await start(dut, latency=(1, 20), patterns={"w": "random"})
    for after in (1, 4, 10, 20, 35, 60, 90, 140):
        sender = cocotb.start_soon(
            bench.send(dut, "i", numbers(np.random.default_rng(after), 200).tolist(), bench.mostly(0.8, after))
        )
        await begin(dut, "adagrad", (10, 20), (4, 4096, 8192), 80)
        for _ in range(after):
            await RisingEdge(dut.clk)
        sender.cancel()
        quiet(dut)
        await bench.reset(dut)
        await update(dut, space, rng, "adam", (3, 5), apart(rng, (3, 5), 24), 24)


@pytest.mark.parametrize("bus_bytes", [8, 32])
def test_bus_updater(bus_bytes):
    bench.run(UpdaterAndDmas(bus_bytes), __file__, f"bus_updater_{bus_bytes}")


def test_golden_is_the_same_element_by_element():
    rng = np.random.default_rng(3)
    floats, gradients = memory(300, rng).view(np.float32), numbers(rng, 12).view(np.float32).reshape(3, 4)
    one, other = floats.copy(), floats.copy()
    places = (16, 404, 808)
    bus_updater(one, twin("adam"), places, 20, gradients)
    for i, j in reversed(list(np.ndindex(3, 4))):
        at = [place // 4 + 5 * i + j for place in places]
        w, m, v = other[at].reshape(3, 1)
        for where, value in zip(at, twin("adam").update(w, m, v, gradients[i, j : j + 1]), strict=True):
            other[where] = value[0]
    assert (one == other).all() and (one != floats).sum() == 36
