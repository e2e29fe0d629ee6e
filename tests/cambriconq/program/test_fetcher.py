import random
from collections import Counter

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.program.fetcher import fetched_layout
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from structs import split

MEMORY = 1 << 13
SIZE = INSTRUCTION_BYTES


class Reader:
    """Memory behind the reader's two streams; knows what has been asked for."""

    def __init__(self, dut, rng, patterns):
        self.dut, self.patterns = dut, patterns
        self.memory = rng.randbytes(MEMORY)
        self.asked, self.wrong, self.end = [], None, MEMORY

    async def run(self):
        line = bench.parameters()["line_bytes"]
        while True:
            word = (await bench.receive(self.dut, "command", 1, self.patterns[0]))[0]
            address, beats = word & 2**32 - 1, word >> 32
            assert beats * line == SIZE and address + SIZE <= self.end
            self.asked.append(address)
            for at in range(address, address + SIZE, line):
                if address == self.wrong and at == address + SIZE // 2:
                    self.dut.read_error.value = 1
                await bench.send(self.dut, "data", [int.from_bytes(self.memory[at % MEMORY :][:line], "little")], self.patterns[1])


async def begin(dut, *names):
    for port in ("start", "entry", "hold", "drop", "o__ready", "command__ready", "data__valid", "data__payload", "read_error"):
        getattr(dut, port).value = 0
    dut.memory_bytes.value = MEMORY
    await bench.start(dut)
    rng = random.Random(random.getrandbits(32))
    reader = Reader(dut, rng, [bench.PATTERNS[name](rng.getrandbits(32)) for name in names or ("always", "always")])
    return rng, reader, cocotb.start_soon(reader.run())


async def pulse(dut, name):
    getattr(dut, name).value = 1
    await RisingEdge(dut.clk)
    getattr(dut, name).value = 0


async def started(dut, entry):
    dut.entry.value = entry
    await pulse(dut, "start")


async def fetch(dut, count, pattern):
    found = [split(fetched_layout(), word) for word in await bench.receive(dut, "o", count, pattern)]
    return [(f["code"], f["instruction"]) for f in found]


async def dropped(dut):
    """Drops what is there; returns once nothing is under way."""
    await pulse(dut, "drop")
    for _ in range(400):
        await ReadOnly()
        idle = dut.idle.value
        await RisingEdge(dut.clk)
        if idle:
            await ReadOnly()
            assert not dut.o__valid.value
            await RisingEdge(dut.clk)
            return
    raise AssertionError("never idle")


def expected(reader, entry, count):
    return [(0, int.from_bytes(reader.memory[at : at + SIZE], "little")) for at in range(entry, entry + count * SIZE, SIZE)]


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_order(dut):
    for names in (("always", "always"), ("random", "random"), ("bursts", "random")):
        rng, reader, task = await begin(dut, *(name if name in bench.PATTERNS else "always" for name in names))
        for _ in range(4):
            entry, count = SIZE * rng.randrange(60), rng.randint(1, 12)
            await started(dut, entry)
            pattern = rng.choice(list(bench.PATTERNS.values()))(rng.getrandbits(32))
            assert await fetch(dut, count, pattern) == expected(reader, entry, count)
            await dropped(dut)
        task.cancel()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_room(dut):
    """Fetched ahead as far as there is room, and no further."""
    _, reader, _ = await begin(dut)
    await started(dut, 128)
    for _ in range(300):
        await RisingEdge(dut.clk)
    assert len(reader.asked) == bench.parameters()["depth"]
    assert await fetch(dut, 3, bench.PATTERNS["always"](1)) == expected(reader, 128, 3)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_hold(dut):
    """While held, nothing is asked for once what has been asked for is there."""
    rng, reader, _ = await begin(dut)
    await started(dut, 0)
    taken = cocotb.start_soon(fetch(dut, 30, bench.PATTERNS["always"](1)))
    while not taken.done():
        dut.hold.value = 1
        for _ in range(40):
            await RisingEdge(dut.clk)
        await ReadOnly()
        assert dut.idle.value
        asked = len(reader.asked)
        for _ in range(rng.randrange(60)):
            await RisingEdge(dut.clk)
        assert len(reader.asked) == asked
        dut.hold.value = 0
        for _ in range(rng.randrange(1, 60)):
            await RisingEdge(dut.clk)
    assert taken.result() == expected(reader, 0, 30)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_refused(dut):
    """A code in its turn, and nothing after it."""
    _, reader, _ = await begin(dut)
    always = bench.PATTERNS["always"](1)
    askew = [at + (1 << bit) for at in (0, MEMORY, MEMORY + SIZE) for bit in range(SIZE.bit_length() - 1)]
    refused = [(entry, ErrorCode.MISALIGNED) for entry in askew]
    refused += [(entry, ErrorCode.MEMORY_RANGE) for entry in (MEMORY, MEMORY + SIZE, 2 * MEMORY, (1 << 32) - SIZE)]
    for entry, code in refused:
        await started(dut, entry)
        assert [c for c, _ in await fetch(dut, 1, always)] == [code]
        await dropped(dut)
    assert not reader.asked
    await started(dut, MEMORY - 2 * SIZE)
    assert [c for c, _ in await fetch(dut, 3, always)] == [0, 0, ErrorCode.MEMORY_RANGE]
    await dropped(dut)
    # Behind the last of all addresses is not the first.
    dut.memory_bytes.value = reader.end = 1 << 32
    await started(dut, (1 << 32) - SIZE)
    assert [c for c, _ in await fetch(dut, 2, always)] == [0, ErrorCode.MEMORY_RANGE]
    await dropped(dut)
    dut.memory_bytes.value = MEMORY
    reader.wrong = 5 * SIZE
    await started(dut, 2 * SIZE)
    assert [c for c, _ in await fetch(dut, 4, always)] == [0, 0, 0, ErrorCode.BUS_READ]
    for _ in range(100):
        await ReadOnly()
        assert not dut.o__valid.value
        await RisingEdge(dut.clk)
    assert reader.asked[-1] == 5 * SIZE


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_drop_and_reset(dut):
    """At any moment; the next program is whole."""
    rng, reader, task = await begin(dut)
    for cycles in range(0, 60, 3):
        await started(dut, 64)
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        await dropped(dut)
        await started(dut, 1024)
        assert await fetch(dut, 4, bench.PATTERNS["always"](1)) == expected(reader, 1024, 4)
        await dropped(dut)
    for cycles in (1, 5, 11, 30):
        await started(dut, 64)
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        task.cancel()
        dut.data__valid.value = dut.command__ready.value = 0
        await bench.reset(dut)
        task = cocotb.start_soon(reader.run())
        await started(dut, 1024)
        assert await fetch(dut, 4, bench.PATTERNS["always"](rng.getrandbits(32))) == expected(reader, 1024, 4)
        await dropped(dut)


async def fetched_by_cycle(dut, entry, cycles, drop, error=None):
    """Starts in cycle 0, with the last run's error still up, which falls after it; (cycle, code, instruction) of what was taken.

    Lasts `cycles`, or until nothing is under way.
    """
    dut.entry.value, dut.o__ready.value = entry, 1
    taken, now, idle = [], 0, False
    while now < cycles or not idle:
        dut.start.value, dut.drop.value = int(now == 0), int(now == drop)
        if now:
            dut.read_error.value = int(error is not None and now >= error)
        await ReadOnly()
        idle = bool(dut.idle.value)
        assert now <= drop or not dut.command__valid.value, f"asked for in cycle {now}, after a drop in {drop}"
        if dut.o__valid.value:
            found = split(fetched_layout(), int(dut.o__payload.value))
            taken.append((now, found["code"], found["instruction"]))
        await RisingEdge(dut.clk)
        now += 1
        assert now < cycles + 100, "never idle"
    return taken


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_error_and_drop_in_every_cycle(dut):
    """An error belongs to the first instruction that is whole when it shows; from a drop on nothing comes; the last error hurts no start."""
    _, reader, _ = await begin(dut)
    entry = 2 * SIZE
    whole = await fetched_by_cycle(dut, entry, 90, 80)
    assert [found[1:] for found in whole] == expected(reader, entry, len(whole)) and len(whole) >= 3
    # An instruction is looked at in the cycle before it is on offer.
    looked_at = [cycle - 1 for cycle, *_ in whole]
    met = Counter[tuple[int, int]]()
    for error in range(1, looked_at[2] + 2):
        bad = next(number for number, cycle in enumerate(looked_at) if cycle >= error)
        for drop in range(max(1, error - 3), error + 4):
            taken = await fetched_by_cycle(dut, entry, looked_at[2] + 8, drop, error)
            wanted = [(cycle, 0, word) for cycle, _, word in whole[:bad]] + [(whole[bad][0], ErrorCode.BUS_READ, whole[bad][2])]
            assert taken == [found for found in wanted if found[0] <= drop], f"error from cycle {error} on, drop in {drop}"
            met[looked_at[bad] - error, looked_at[bad] - drop] += 1
    assert met[0, 0] >= 3 and met[0, -1] >= 3


@pytest.mark.parametrize("line_bytes", [8, 32])
def test_fetcher(line_bytes):
    from nibblecore.hdl.cambriconq.program.fetcher import Fetcher

    bench.run(Fetcher(line_bytes), __file__, "fetcher", parameters={"line_bytes": line_bytes, "depth": 4})
