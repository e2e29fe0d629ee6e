"""Frames over two wires whose other end has a clock of its own, and their answers."""

import random

import bench
import cocotb
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.link.serial_link import SerialLink
from nibblecore.sim.formats.frames import unwrap, wrap

CLOCK_HZ, BAUD = 6_000_000, 1_000_000
CYCLES = CLOCK_HZ / BAUD


def levels(line, rate):
    """The wire's level in each cycle while `line` goes over it."""
    found: list[int] = []
    time = 0.0
    for byte in line:
        for bit in (0, *((byte >> place) & 1 for place in range(8)), 1):
            time += CYCLES * rate
            found += [bit] * (round(time) - len(found))
    return found


async def memory(dut, held):
    """Answers each request in the next cycle."""
    dut.memory_request__ready.value = 1
    while True:
        await ReadOnly()
        valid, request = int(dut.memory_request__valid.value), int(dut.memory_request__payload.value)
        await RisingEdge(dut.clk)
        dut.memory_response__valid.value = valid
        if valid:
            address = request & 0xFFFF_FFFF
            dut.memory_response__payload.value = held.get(address, 0)
            if request >> 32 & 1:
                held[address] = request >> 33


async def bytes_of(dut, found):
    """Reads the wire in the middle of its bits."""
    while True:
        await ReadOnly()
        if int(dut.tx.value):
            await RisingEdge(dut.clk)
            continue
        byte = 0
        for place in range(10):
            for _ in range(int(CYCLES / 2 if place == 0 else CYCLES)):
                await RisingEdge(dut.clk)
            await ReadOnly()
            byte |= int(dut.tx.value) << place
        assert byte & 0x201 == 0x200
        found.append(byte >> 1 & 0xFF)
        await RisingEdge(dut.clk)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def bench_frames(dut):
    for name in ("irq", "memory_request__ready", "memory_response__valid"):
        getattr(dut, name).value = 0
    for name in ("awready", "wready", "bvalid", "arready", "rvalid"):
        getattr(dut, f"m_axi__{name}").value = 0
    dut.rx.value = 1
    await bench.start(dut)
    held: dict[int, int] = {}
    found: list[int] = []
    cocotb.start_soon(memory(dut, held))
    cocotb.start_soon(bytes_of(dut, found))
    rng = random.Random(1)
    for number, rate in enumerate((1.0, 0.98, 1.02, 1.0, 0.98)):
        data = bytes(rng.choice([0, 255, rng.randrange(256)]) for _ in range(12))
        address = rng.randrange(1000).to_bytes(4, "little")
        frame = bytes([number]) + b"\x04" + address + b"\x0c\0" + data + b"\x03" + address + b"\x0c\0"
        found.clear()
        for level in levels(wrap(frame), rate):
            dut.rx.value = level
            await RisingEdge(dut.clk)
        dut.rx.value = 1
        while 0 not in found:
            await RisingEdge(dut.clk)
        assert unwrap(bytes(found[:-1])) == bytes([number]) + data + b"\x02\0"
        for _ in range(100):
            await RisingEdge(dut.clk)


def test_serial_link():
    bench.run(SerialLink(BAUD, 1024, CLOCK_HZ, bytes(8), 7), __file__, "serial_link")
