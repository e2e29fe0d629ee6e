"""Frames of any commands, in and out of their turn, against the golden twin: answers, memory, registers, counts."""

import random
from typing import Any

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.link import protocol as hardware
from nibblecore.hdl.link.byte_link import DEPTH, ByteLink
from nibblecore.hdl.link.command_executor import CommandExecutor
from nibblecore.hdl.link.protocol import FRAME_BYTES, SLOTS
from nibblecore.sim.formats.frames import unwrap, wrap
from nibblecore.sim.golden.link import command_executor as golden
from nibblecore.sim.golden.link.byte_link import ByteLink as Golden

MEMORY_BYTES, CLOCK_HZ, BUILD, ADDRESS_BITS = 700, 25_000_000, b"\0build\xff\x01", 7
IDENTITY = (
    b"\x01\x04"
    + b"".join(value.to_bytes(size, "little") for value, size in ((508, 2), (2048, 2), (MEMORY_BYTES, 4), (CLOCK_HZ, 4)))
    + BUILD
)
OKAY, EXOKAY, SLVERR, DECERR = range(4)
HELD = {0x00: 0x1234_5678, 0x04: 0, 0x40: 0xFFFF_FFFF, 0x7C: 0x8000_0001}
"""Registers that are there; others are answered with an error."""


class Board:
    """Registers and memory, as the twin's port has them."""

    def __init__(self):
        self.memory = bytearray(MEMORY_BYTES)
        self.registers = dict(HELD)
        self.irq_after = None

    def read_register(self, offset):
        return self.registers[offset]

    def write_register(self, offset, value):
        if offset not in self.registers:
            raise KeyError(offset)
        self.registers[offset] = value

    def wait(self, cycles):
        return self.irq_after is not None and self.irq_after <= cycles


class Bench:
    """The block with memory and registers of its own, at any pace."""

    def __init__(self, dut, seed):
        self.dut = dut
        self.rng = random.Random(seed)
        self.board = Board()
        self.requests = 0

    async def start(self):
        dut = self.dut
        for name in ("data", "received", "broken", "line__ready", "memory_request__ready", "memory_response__valid", "irq"):
            getattr(dut, name).value = 0
        for name in ("awready", "wready", "bvalid", "arready", "rvalid"):
            getattr(dut, f"m_axi__{name}").value = 0
        await bench.start(dut)
        self.tasks = [cocotb.start_soon(task) for task in (self.memory(), self.register_writes(), self.register_reads())]

    def stop(self):
        for task in self.tasks:
            task.cancel()

    async def pause(self):
        for _ in range(self.rng.choice([0, 0, 0, 1, 5])):
            await RisingEdge(self.dut.clk)

    async def taken(self, valid, ready):
        """Until `valid` was met by `ready`, which is lowered again."""
        await self.pause()
        ready.value = 1
        while True:
            await ReadOnly()
            done = int(valid.value)
            values = self.snapshot() if done else None
            await RisingEdge(self.dut.clk)
            if done:
                ready.value = 0
                return values

    async def offered(self, valid, ready):
        await self.pause()
        valid.value = 1
        while True:
            await ReadOnly()
            done = int(ready.value)
            await RisingEdge(self.dut.clk)
            if done:
                valid.value = 0
                return

    def snapshot(self):
        dut = self.dut
        return {
            "request": int(dut.memory_request__payload.value),
            "awaddr": int(dut.m_axi__awaddr.value),
            "wdata": int(dut.m_axi__wdata.value),
            "wstrb": int(dut.m_axi__wstrb.value),
            "araddr": int(dut.m_axi__araddr.value),
        }

    async def memory(self):
        dut = self.dut
        while True:
            request = (await self.taken(dut.memory_request__valid, dut.memory_request__ready))["request"]
            address, write, byte = request & 0xFFFF_FFFF, request >> 32 & 1, request >> 33
            assert address < MEMORY_BYTES, "a request reaches beyond the memory"
            self.requests += 1
            dut.memory_response__payload.value = self.rng.randrange(256) if write else self.board.memory[address]
            if write:
                self.board.memory[address] = byte
            await self.offered(dut.memory_response__valid, dut.memory_response__ready)

    async def register_writes(self):
        dut = self.dut
        while True:
            order = self.rng.randrange(3)
            channels = [(dut.m_axi__awvalid, dut.m_axi__awready), (dut.m_axi__wvalid, dut.m_axi__wready)]
            if order == 0:
                waiting = [cocotb.start_soon(self.taken(*channel)) for channel in channels]
                address, data = [await task for task in waiting]
            else:
                got = {channel: await self.taken(*channels[channel]) for channel in ((0, 1) if order == 1 else (1, 0))}
                address, data = got[0], got[1]
            assert data["wstrb"] == 0xF
            there = address["awaddr"] in self.board.registers
            if there:
                self.board.registers[address["awaddr"]] = data["wdata"]
            dut.m_axi__bresp.value = OKAY if there else self.rng.choice([SLVERR, DECERR, EXOKAY])
            await self.offered(dut.m_axi__bvalid, dut.m_axi__bready)

    async def register_reads(self):
        dut = self.dut
        while True:
            address = (await self.taken(dut.m_axi__arvalid, dut.m_axi__arready))["araddr"]
            there = address in self.board.registers
            dut.m_axi__rdata.value = self.board.registers[address] if there else self.rng.getrandbits(32)
            dut.m_axi__rresp.value = OKAY if there else self.rng.choice([SLVERR, DECERR, EXOKAY])
            await self.offered(dut.m_axi__rvalid, dut.m_axi__rready)

    async def send(self, line, pattern=None):
        dut, pattern = self.dut, pattern or bench.always()
        for byte in line:
            while not next(pattern):
                dut.received.value = 0
                await RisingEdge(dut.clk)
            dut.received.value, dut.data.value = 1, byte
            await RisingEdge(dut.clk)
        dut.received.value = 0

    async def exchange(self, line, answer, sending="always", receiving="always"):
        """Send a line; what comes back must be `answer` and nothing behind it."""
        got = cocotb.start_soon(bench.receive(self.dut, "line", len(answer), bench.PATTERNS[receiving](1)))
        await self.send(line, bench.PATTERNS[sending](2))
        assert bytes(await got) == answer
        await self.quiet()

    async def quiet(self, cycles=40):
        """Nothing is offered for so long."""
        for _ in range(cycles):
            await ReadOnly()
            assert not int(self.dut.line__valid.value), "a byte that nobody asked for"
            await RisingEdge(self.dut.clk)


def little(value, size):
    return value.to_bytes(size, "little")


def random_command(rng):
    """A command of any kind, most of them right; corners of memory and registers."""
    opcode = rng.choice([0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5])
    offset = (
        rng.choice([0x00, 0x04, 0x40, 0x7C, 0x7C, 0x40, 0x08, 0x03, 0x80, 0xFC, 0xFF])
        if rng.random() < 0.3
        else rng.choice([*HELD])
    )
    if opcode == 0:
        return b"\0"
    if opcode == 1:
        return little(opcode, 1) + little(offset, 1)
    if opcode == 2:
        return little(opcode, 1) + little(offset, 1) + little(rng.choice([0, 1, 0xFFFF_FFFF, rng.getrandbits(32)]), 4)
    if opcode == 5:
        return little(opcode, 1) + little(rng.choice([0, 1, 30, 200]), 3)
    size = rng.choice([0, 1, 2, 3, 17, 60])
    address = rng.choice([0, rng.randrange(MEMORY_BYTES - size), MEMORY_BYTES - size])
    if rng.random() < 0.06:
        address, size = rng.choice(
            [(MEMORY_BYTES - size + 1, size), (MEMORY_BYTES, 1), (0xFFFF_FFFF, 1), (0, MEMORY_BYTES + 1), (0, 0xFFFF)]
        )
    data = bytes(rng.choice([0, 255, rng.randrange(256)]) for _ in range(min(size, 60))) if opcode == 4 else b""
    return little(opcode, 1) + little(address, 4) + little(size, 2) + data


def random_frame(rng, number):
    frame = bytes([number]) + b"".join(random_command(rng) for _ in range(rng.choice([0, 1, 1, 2, 3, 8])))
    kind = rng.random()
    if kind < 0.08:
        frame = frame[: rng.randrange(1, len(frame) + 1)]
    elif kind < 0.14:
        frame += bytes([rng.choice([6, 7, 8, 0x80, 0xFF])]) + bytes(rng.randrange(8))
    elif kind < 0.17:
        frame = bytes([number]) + b"\x03" + little(rng.randrange(100), 4) + little(rng.choice([500, 501, 502, 503, 600]), 2)
    elif kind < 0.19:
        frame = bytes([number]) + b"\x01\x40" * 130
    elif kind < 0.25:
        frame = bytes([number]) + bytes(
            rng.choice([0, 1, 2, 3, 4, rng.randrange(6, 256)]) for _ in range(30)
        )  # no WAIT of any length
    return frame


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_frames(dut):
    outcomes, turns = set(), set()
    for seed, (sending, receiving) in enumerate([("always", "always"), ("random", "always"), ("bursts", "random")]):
        table = Bench(dut, seed)
        await table.start()
        rng, board = random.Random(seed), Board()
        twin = Golden(board, IDENTITY, ADDRESS_BITS)
        number = 0
        for _ in range(50):
            turn = rng.choice(["next"] * 12 + ["again", "again", "strange", "start", "damaged"])
            turns.add(turn)
            if turn == "again":
                used = (number - rng.randrange(1, SLOTS + 1)) % 128
            elif turn == "strange":
                used = (number + rng.randrange(1, 128 - SLOTS)) % 128
            elif turn == "start":
                number = rng.randrange(128)
                used = 0x80 | number
            else:
                used = number
            board.irq_after = table.board.irq_after = rng.choice([None, 0])
            dut.irq.value = int(board.irq_after == 0)
            line = bytearray(wrap(random_frame(rng, used)))
            if turn == "damaged":
                line[rng.randrange(len(line) - 1)] ^= 1 << rng.randrange(8)
            answer = twin.receive(bytes(line))
            await table.exchange(line, answer, sending, receiving)
            assert table.board.memory == board.memory and table.board.registers == board.registers
            if answer:
                outcomes.add(unwrap(answer[:-1])[-1])
            if turn in ("next", "start"):
                number = (number + 1) % 128
        assert table.requests > 200
        table.stop()
    assert outcomes == set(golden.Outcome) and len(turns) == 5


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_window(dut):
    """Frames sent without waiting are carried out in turn; those sent twice are answered twice and carried out once."""
    table = Bench(dut, 10)
    await table.start()
    rng, board = random.Random(10), Board()
    twin = Golden(board, IDENTITY, ADDRESS_BITS)
    number = 0
    for _ in range(12):
        frames = [bytes([(number + place) % 128]) + b"".join(random_command(rng) for _ in range(4)) for place in range(SLOTS)]
        line = b"".join(map(wrap, frames))
        answer = twin.receive(line)
        await table.exchange(line, answer, "random", "random")
        repeated = twin.receive(line)
        assert repeated == answer
        await table.exchange(line, repeated, "always", "always")
        number = (number + SLOTS) % 128
        assert table.board.memory == board.memory and table.board.registers == board.registers
    assert twin.executor.counts["repeated"] == 12 * SLOTS


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_wait(dut):
    """WAIT ends with the interrupt, or after exactly its cycles, and memory that the interrupt speaks of is read behind it."""
    table = Bench(dut, 11)
    await table.start()
    number = 0
    for cycles in (0, 1, 2, 40, 41, 42, 300):
        for rises in (None, 0, 40, 200):
            dut.irq.value = int(rises == 0)
            got = cocotb.start_soon(bench.receive(dut, "line", 10, bench.always()))
            await table.send(wrap(bytes([number]) + b"\x05" + little(cycles, 3)))
            for _ in range(rises or 0):
                await RisingEdge(dut.clk)
            if rises:
                dut.irq.value = 1
            answer = unwrap(bytes(await got)[:-1]) if False else None
            line = bytes(await got)
            answer = unwrap(line[: line.index(0)])
            # The frame reaches WAIT some cycles after its delimiter; none of the cases lies so near.
            wanted = rises is not None and rises <= cycles + 12
            assert answer == bytes([number, wanted, 1, 0]), (cycles, rises)
            number += 1


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_wait_takes_its_cycles(dut):
    table = Bench(dut, 12)
    await table.start()
    taken = []
    for number, cycles in enumerate((0, 1, 500, 0x01_0000)):
        got = cocotb.start_soon(bench.receive(dut, "line", 1, bench.always()))
        await table.send(wrap(bytes([number]) + b"\x05" + little(cycles, 3)))
        passed = 0
        while not got.done():
            await RisingEdge(dut.clk)
            passed += 1
        taken.append(passed - cycles)
        await bench.receive(dut, "line", 9, bench.always())
        await table.quiet()
    assert max(taken) - min(taken) == 0, taken


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_answer_waits(dut):
    """While the host takes nothing, frames wait, and what finds no room is dropped and counted; then all goes on."""
    table = Bench(dut, 13)
    await table.start()
    frame = b"\x04" + little(0, 4) + little(480, 2) + bytes(range(1, 241)) * 2
    lines = [wrap(bytes([number]) + frame) for number in range(8)]
    await table.send(b"".join(lines))
    answers = [wrap(bytes([number, 1, 0])) for number in range(8)]
    # One is in hand, as many as fit wait; the rest are sent once more.
    fit = 1 + DEPTH // 488
    got = bytes(await bench.receive(dut, "line", sum(map(len, answers[:fit])), bench.always()))
    assert got == b"".join(answers[:fit])
    await table.quiet(800)
    await table.exchange(b"".join(lines[fit:]), b"".join(answers[fit:]))
    board = Board()
    twin = Golden(board, IDENTITY, ADDRESS_BITS)
    for line in lines:
        twin.receive(line)
    twin.executor.counts["full"] = 8 - fit
    greeting = wrap(bytes([8, 0]))
    await table.exchange(greeting, twin.receive(greeting))


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_reset(dut):
    """A reset at any moment of a frame: afterwards frame 0 is next, and is carried out."""
    table = Bench(dut, 14)
    await table.start()
    line = wrap(b"\0\x04" + little(9, 4) + little(5, 2) + b"abcde" + b"\x01\x40")
    for cut in range(1, 200, 9):
        sending = cocotb.start_soon(table.send(line))
        dut.line__ready.value = 1
        for _ in range(cut):
            await RisingEdge(dut.clk)
        sending.cancel()
        table.stop()
        dut.received.value = dut.line__ready.value = 0
        table = Bench(dut, cut)
        await table.start()
        twin = Golden(Board(), IDENTITY, ADDRESS_BITS)
        await table.exchange(line, twin.receive(line))


def test_byte_link():
    bench.run(ByteLink(MEMORY_BYTES, CLOCK_HZ, BUILD, ADDRESS_BITS), __file__, "byte_link")


def test_lists_agree():
    """The twin's own lists are the hardware's."""
    assert {(code.name, code.value) for code in golden.Opcode} == {(code.name, code.value) for code in hardware.Opcode}
    assert {(code.name, code.value) for code in golden.Outcome} == {(code.name, code.value) for code in hardware.Outcome}
    assert (golden.VERSION, golden.SEQUENCES, golden.COUNTS) == (hardware.VERSION, hardware.SEQUENCES, hardware.COUNTS)
    assert (golden.FRAME_BYTES, golden.SLOTS) == (FRAME_BYTES, SLOTS)
    executor = CommandExecutor(MEMORY_BYTES, CLOCK_HZ, BUILD, DEPTH, ADDRESS_BITS)
    assert executor.identity == IDENTITY


@pytest.mark.parametrize(
    "change",
    [{"memory_bytes": 0}, {"memory_bytes": 1 << 32}, {"clock_hz": 0}, {"build": b"short"}, {"depth": 1 << 16}, {"address_bits": 9}],
)
def test_arguments(change):
    arguments: dict[str, Any] = {"memory_bytes": 1, "clock_hz": 1, "build": BUILD, "depth": 16, "address_bits": 7}
    CommandExecutor(**arguments)
    with pytest.raises(ValueError):
        CommandExecutor(**arguments | change)


def test_golden():
    """The twin on frames put together by hand."""
    board = Board()
    twin = Golden(board, IDENTITY, ADDRESS_BITS)

    def exchange(frame):
        line = twin.receive(wrap(frame))
        return unwrap(line[:-1]) if line else None

    assert exchange(b"\x85\0") == b"\x85" + IDENTITY + bytes(5) + b"\x01\0"
    write = b"\x06\x04" + little(698, 4) + little(2, 2) + b"hi"
    assert exchange(write) == b"\x06\x01\0" and board.memory[698:] == b"hi"
    board.memory[698:] = b"no"
    assert exchange(write) == b"\x06\x01\0" and board.memory[698:] == b"no", "once"
    assert exchange(b"\x07\x03" + little(698, 4) + little(3, 2)) == bytes([7, 0, golden.Outcome.OUTSIDE])
    assert exchange(b"\x08\x03" + little(697, 4) + little(3, 2) + b"\x01\x40") == b"\x08\0no" + b"\xff" * 4 + b"\x02\0"
    assert (
        exchange(b"\x09\x02\x40" + little(7, 4) + b"\x02\x08") == bytes([9, 1, golden.Outcome.TRUNCATED])
        and board.registers[0x40] == 7
    )
    assert exchange(b"\x0a\x01\x08") == bytes([10, 0, golden.Outcome.REFUSED])
    assert exchange(b"\x0c") is None and exchange(b"\x05") is None
    assert exchange(b"\x0b\x06") == bytes([11, 0, golden.Outcome.UNKNOWN])
    assert exchange(b"\x0c" + b"\0" * 19) == bytes([12]) + (IDENTITY + b"\0\0\0\x01\x02") * 18 + bytes([18, golden.Outcome.LONG])
