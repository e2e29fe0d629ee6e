"""Every frame of a line that is right comes out, in order; every other is dropped and told; the room is exactly as large as it says."""

import random
import zlib

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.link.frame_receiver import FrameReceiver
from nibblecore.sim.formats.frames import stuff, wrap
from nibblecore.sim.golden.link.frame_receiver import FrameReceiver as Golden

DEPTH = 64
BROKEN = -1


def damaged(rng):
    """What a line may hold between two delimiters, most of it no frame."""
    frame = bytes(rng.choice([0, 1, 255, rng.randrange(256)]) for _ in range(rng.choice([1, 2, 3, 20, 40])))
    line = bytearray(wrap(frame)[:-1])
    kind = rng.randrange(12)
    if kind == 0:
        line[rng.randrange(len(line))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del line[rng.randrange(len(line))]
    elif kind == 2:
        line.insert(rng.randrange(len(line) + 1), rng.randrange(1, 256))
    elif kind == 3:
        del line[rng.randrange(len(line)) :]
    elif kind == 4:
        line = bytearray(rng.randrange(256) for _ in range(rng.randrange(40)))
    elif kind == 5:
        line = bytearray(stuff(zlib.crc32(b"").to_bytes(4, "little")))
    elif kind == 6:
        line = bytearray(rng.choice([b"", b"\x01", b"\x02", b"\x01\x01", b"\xff"]))
    elif kind == 7:
        line = bytearray(stuff(frame + zlib.crc32(frame).to_bytes(4, "big")))
    elif kind == 8:
        return [*line[: len(line) // 2], BROKEN, *line[len(line) // 2 :], 0]
    return [*line, 0]


async def send(dut, line, pattern):
    """Bytes of a line, a `BROKEN` one for what did not arrive whole; counts what the receiver says of each frame's end."""
    told = []
    for item in [*line, None]:
        while item is not None and not next(pattern):
            dut.received.value = dut.broken.value = 0
            told += await tell(dut)
        dut.received.value, dut.broken.value = int(item not in (None, BROKEN)), int(item == BROKEN)
        dut.data.value = item if item not in (None, BROKEN) else 0xEE
        told += await tell(dut)
    dut.received.value = dut.broken.value = 0
    told += await tell(dut)
    return told


async def tell(dut):
    await ReadOnly()
    said = [name for name in ("malformed", "wrong", "full") if int(getattr(dut, name).value)]
    await RisingEdge(dut.clk)
    return said


def expected(line, golden):
    frames = []
    for item in line:
        if item == BROKEN:
            golden.lose()
        elif (frame := golden.receive(item)) is not None:
            frames.append(frame)
            golden.take(len(frame))
    return frames


async def begin(dut):
    dut.received.value = dut.broken.value = dut.frame__ready.value = 0
    await bench.start(dut)


def payloads(frames):
    return [byte | (place == len(frame) - 1) << 8 for frame in frames for place, byte in enumerate(frame)]


@cocotb.test()
async def bench_frames(dut):
    for name, pattern in bench.PATTERNS.items():
        await begin(dut)
        rng = random.Random(name)
        golden = Golden()
        line = [item for _ in range(60) for item in damaged(rng)]
        wanted = payloads(expected(line, golden))
        # Read at least as fast as it is written, or the room would end: its bench is another.
        receiving = cocotb.start_soon(bench.receive(dut, "frame", len(wanted), bench.always()))
        told = await send(dut, line, pattern(1))
        assert await receiving == wanted and wanted
        assert {what: told.count(what) for what in ("malformed", "wrong", "full")} == {
            what: golden.dropped[what] for what in ("malformed", "wrong", "full")
        }
        assert golden.dropped["malformed"] > 5 and golden.dropped["wrong"] > 2


@cocotb.test()
async def bench_back_pressure(dut):
    for name, pattern in bench.PATTERNS.items():
        await begin(dut)
        rng = random.Random(name)
        frames = [bytes(rng.randrange(256) for _ in range(rng.randrange(1, 12))) for _ in range(40)]
        receiving = cocotb.start_soon(bench.receive(dut, "frame", sum(map(len, frames)), pattern(2)))
        for frame in frames:
            assert not await send(dut, wrap(frame), bench.mostly(0.05, 3))
        assert await receiving == payloads(frames)


@cocotb.test()
async def bench_room(dut):
    """Frames are dropped whole where they find no room, and only there; what waits is not touched."""
    await begin(dut)
    rng = random.Random(5)
    full = 0
    for _ in range(60):
        waiting: list[bytes] = []
        for _ in range(rng.randrange(1, 8)):
            # One byte of what waits lies at the output, not in the store: the room then is a byte larger.
            frame = bytes(rng.randrange(256) for _ in range(rng.choice([1, 2, 15, 16, 30, 62, 63, 64, 65, 66, 100])))
            told = await send(dut, wrap(frame), bench.always())
            room = DEPTH + 1 - sum(map(len, waiting)) if waiting else DEPTH
            fits = len(frame) <= room
            assert told == ([] if fits else ["full"]), (len(frame), room)
            full += not fits
            if fits:
                waiting.append(frame)
        wanted = payloads(waiting)
        assert await bench.receive(dut, "frame", len(wanted)) == wanted
    assert full > 20


@cocotb.test()
async def bench_coincidence(dut):
    """A byte lost in the cycle of a delimiter, or between frames, spoils that frame alone."""
    await begin(dut)
    for gap in range(12):
        dut.frame__ready.value = 1
        line = [*wrap(b"ab"), *wrap(b"cd"), *wrap(b"ef")]
        told, got = [], []
        for place, item in enumerate([*line, None, None, None, None]):
            dut.received.value, dut.data.value = int(item is not None), item or 0
            dut.broken.value = int(place == gap)
            await ReadOnly()
            if int(dut.frame__valid.value):
                got.append(int(dut.frame__payload.value) & 0xFF)
            told += [name for name in ("malformed", "wrong", "full") if int(getattr(dut, name).value)]
            await RisingEdge(dut.clk)
        for _ in range(12):
            await ReadOnly()
            if int(dut.frame__valid.value):
                got.append(int(dut.frame__payload.value) & 0xFF)
            await RisingEdge(dut.clk)
        lost = 0 if gap < 8 else 1
        assert told == ["malformed"] and bytes(got) == b"".join(part for n, part in enumerate((b"ab", b"cd", b"ef")) if n != lost)


@cocotb.test()
async def bench_reset(dut):
    await begin(dut)
    rng = random.Random(6)
    for _ in range(20):
        await send(dut, (wrap(b"waits") + wrap(b"unfinished"))[: rng.randrange(1, 24)], bench.always())
        await bench.reset(dut)
        await ReadOnly()
        assert not int(dut.frame__valid.value)
        await RisingEdge(dut.clk)
        assert not await send(dut, wrap(b"next"), bench.always())
        assert await bench.receive(dut, "frame", 4) == payloads([b"next"])


@cocotb.test()
async def bench_latency(dut):
    """A frame is offered two cycles after its delimiter; then a byte a cycle."""
    await begin(dut)
    for byte in wrap(b"abc"):
        dut.received.value, dut.data.value = 1, byte
        await RisingEdge(dut.clk)
    dut.received.value, dut.frame__ready.value = 0, 1
    offered = []
    for cycle in range(1, 10):
        await ReadOnly()
        if int(dut.frame__valid.value):
            offered.append(cycle)
        await RisingEdge(dut.clk)
    assert offered == [2, 3, 4], offered


def test_frame_receiver():
    bench.run(FrameReceiver(DEPTH), __file__, "frame_receiver")


@pytest.mark.parametrize("depth", [0, 8, 24, 1000])
def test_depth(depth):
    with pytest.raises(ValueError, match="power of two"):
        FrameReceiver(depth)


def test_golden():
    """The twin on lines put together by hand."""
    golden = Golden(8)
    assert golden.receive(0) is None and not golden.dropped
    frames = [golden.receive(byte) for byte in wrap(b"12345") + wrap(b"abcd") + wrap(b"xyz")]
    assert [frame for frame in frames if frame is not None] == [b"12345", b"xyz"]
    assert golden.dropped == {"full": 1} and golden.waiting == 8
    golden.take(8)
    golden.lose()
    assert [golden.receive(byte) for byte in wrap(b"ab")][-1] is None and golden.dropped["malformed"] == 1
    for byte in (*b"\x05abcd", 0, *stuff(b"abcd1234"), 0):
        assert golden.receive(byte) is None
    assert golden.dropped == {"full": 1, "malformed": 2, "wrong": 1}
