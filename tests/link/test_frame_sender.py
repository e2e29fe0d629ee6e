"""What comes out is the golden twin's line, of every slot, once more on demand, at any pace of the line."""

import random

import bench
import cocotb
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.link.frame_sender import FrameSender
from nibblecore.hdl.link.protocol import FRAME_BYTES, SLOTS
from nibblecore.sim.formats.frames import CHECK_BYTES, unwrap
from nibblecore.sim.golden.link import frame_sender as golden

LONGEST = FRAME_BYTES - CHECK_BYTES


async def begin(dut):
    for name in ("slot", "start", "byte__valid", "finish", "again", "line__ready"):
        getattr(dut, name).value = 0
    await bench.start(dut)


async def strobe(dut, name, slot):
    dut.slot.value = slot
    getattr(dut, name).value = 1
    await RisingEdge(dut.clk)
    getattr(dut, name).value = 0


async def give(dut, slot, frame, pattern):
    await strobe(dut, "start", slot)
    await ReadOnly()
    assert int(dut.room.value) == LONGEST
    await RisingEdge(dut.clk)
    await bench.send(dut, "byte", frame, pattern)
    await ReadOnly()
    assert int(dut.room.value) == LONGEST - len(frame) and int(dut.idle.value)
    await RisingEdge(dut.clk)


async def line_of(dut, name, slot, size, pattern):
    receiving = cocotb.start_soon(bench.receive(dut, "line", size, pattern))
    await strobe(dut, name, slot)
    line = bytes(await receiving)
    await ReadOnly()
    assert int(dut.idle.value) and not int(dut.line__valid.value), "nothing follows the delimiter"
    await RisingEdge(dut.clk)
    return line


def frames(rng):
    """Lengths around runs of 254 with the CRC behind them; zeros never, sometimes, always, and at the ends."""
    for size in (1, 2, 248, 249, 250, 251, 252, 253, 254, 255, 256, 500, 502, 503, 504):
        yield bytes(rng.randrange(1, 256) for _ in range(size))
        yield bytes(size)
        yield bytes(rng.choice([0, 255, rng.randrange(256)]) for _ in range(size))
    yield bytes(range(1, 255)) + b"\0" + bytes(range(1, 250))


@cocotb.test()
async def bench_frames(dut):
    await begin(dut)
    rng = random.Random(1)
    twin = golden.FrameSender()
    for number, frame in enumerate(frames(rng)):
        slot = rng.randrange(SLOTS)
        pattern = [*bench.PATTERNS.values()][number % len(bench.PATTERNS)] if len(frame) < 260 else bench.PATTERNS["always"]
        await give(dut, slot, frame, pattern(number))
        wanted = twin.send(slot, frame)
        assert await line_of(dut, "finish", slot, len(wanted), pattern(-number)) == wanted, len(frame)
        assert unwrap(wanted[:-1]) == frame


@cocotb.test()
async def bench_again(dut):
    """Slots keep their frames beside each other, to the longest."""
    await begin(dut)
    rng = random.Random(2)
    twin = golden.FrameSender()
    held = set()
    for _ in range(40):
        slot = rng.randrange(SLOTS)
        if slot not in held or rng.random() < 0.4:
            frame = bytes(rng.randrange(256) for _ in range(rng.choice([1, 30, LONGEST])))
            await give(dut, slot, frame, bench.always())
            held.add(slot)
            wanted, name = twin.send(slot, frame), "finish"
        else:
            wanted, name = twin.again(slot), "again"
        assert await line_of(dut, name, slot, len(wanted), bench.always()) == wanted
    assert held == set(range(SLOTS))


@cocotb.test()
async def bench_reset(dut):
    """A reset ends a frame that is being given or sent; the next is whole."""
    await begin(dut)
    rng = random.Random(3)
    twin = golden.FrameSender()
    for cut in range(1, 40, 3):
        await give(dut, 1, b"abcdefgh", bench.always())
        dut.line__ready.value = 1
        await strobe(dut, "finish", 1)
        for _ in range(cut):
            await RisingEdge(dut.clk)
        await bench.reset(dut)
        dut.line__ready.value = 0
        await ReadOnly()
        assert int(dut.idle.value) and not int(dut.line__valid.value)
        await RisingEdge(dut.clk)
        frame = bytes(rng.randrange(256) for _ in range(9))
        await give(dut, 1, frame, bench.always())
        wanted = twin.send(1, frame)
        assert await line_of(dut, "finish", 1, len(wanted), bench.always()) == wanted


@cocotb.test()
async def bench_latency(dut):
    """Seven cycles from ``finish`` to the first byte, two from ``again``; then a byte in two cycles."""
    await begin(dut)
    await give(dut, 0, b"a", bench.always())
    dut.line__ready.value = 1
    for name, latency in (("finish", 7), ("again", 2)):
        await strobe(dut, name, 0)
        offered = []
        for cycle in range(1, 40):
            await ReadOnly()
            if int(dut.line__valid.value):
                offered.append(cycle)
            await RisingEdge(dut.clk)
        assert offered[0] == latency, (name, offered)
        assert offered[1:-1] == [offered[0] + 2 * n for n in range(1, len(offered) - 1)]


def test_frame_sender():
    bench.run(FrameSender(), __file__, "frame_sender")
