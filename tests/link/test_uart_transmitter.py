"""The line looked at in the middle of its bits, and at each edge."""

import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.link.uart_transmitter import UartTransmitter


async def watch(dut, levels):
    while True:
        await ReadOnly()
        levels.append(int(dut.tx.value))
        await RisingEdge(dut.clk)


def bytes_of(levels, cycles):
    """The bytes on a line, and the cycles in which their start bits began."""
    found, starts, at = [], [], 0
    while at < len(levels):
        if levels[at]:
            at += 1
            continue
        middles = [levels[round(at + (place + 0.5) * cycles)] for place in range(10)]
        assert middles[0] == 0 and middles[9] == 1
        found.append(sum(bit << place for place, bit in enumerate(middles[1:9])))
        starts.append(at)
        at = round(at + 9.5 * cycles)
    return found, starts


@cocotb.test()
async def bench_bytes(dut):
    parameters = bench.parameters()
    cycles = parameters["clock_hz"] / parameters["baud"]
    dut.data__valid.value = 0
    await bench.start(dut)
    for pattern in ("always", "rare"):
        levels: list[int] = []
        watching = cocotb.start_soon(watch(dut, levels))
        rng = random.Random(pattern)
        wanted = [0x00, 0xFF, 0x55, 0xAA, *(rng.randrange(256) for _ in range(30))]
        await bench.send(dut, "data", wanted, bench.PATTERNS[pattern](1))
        for _ in range(int(10 * cycles) + 4):
            await RisingEdge(dut.clk)
        watching.cancel()
        found, starts = bytes_of(levels, cycles)
        assert found == wanted
        if pattern == "always":
            length = (starts[-1] - starts[0]) / (len(starts) - 1)
            assert 10 * cycles <= length <= 10 * cycles + 2, "a byte takes ten bits and at most two cycles"


@cocotb.test()
async def bench_idle_and_reset(dut):
    """The line is 1 when there is nothing to send, and at once when reset."""
    dut.data__valid.value = 0
    await bench.start(dut)
    for _ in range(20):
        await ReadOnly()
        assert int(dut.tx.value) == 1 and int(dut.data__ready.value) == 1
        await RisingEdge(dut.clk)
    dut.data__valid.value, dut.data__payload.value = 1, 0
    await RisingEdge(dut.clk)
    await ReadOnly()
    assert int(dut.tx.value) == 0 and int(dut.data__ready.value) == 0, "the start bit begins the cycle after the byte was taken"
    await RisingEdge(dut.clk)
    dut.data__valid.value = 0
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await ReadOnly()
    assert int(dut.tx.value) == 1


@pytest.mark.parametrize(("clock_hz", "baud"), [(25_000_000, 3_000_000), (6_000_000, 1_000_000)])
def test_uart_transmitter(clock_hz, baud):
    bench.run(UartTransmitter(clock_hz, baud), __file__, "uart_transmitter", parameters={"clock_hz": clock_hz, "baud": baud})
