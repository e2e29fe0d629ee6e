"""The receiver against lines drawn edge by edge: other rates, late edges, gaps, disturbances, broken bytes."""

import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.link.uart_receiver import PHASE_BITS, UartReceiver, phase_step


class Line:
    """Levels of a line, one a clock cycle, from edges at any time."""

    def __init__(self, cycles_per_bit):
        self.cycles_per_bit = cycles_per_bit
        self.time = 0.0
        self.levels = []

    def hold(self, level, bits, jitter=0.0):
        self.time += bits * self.cycles_per_bit
        while len(self.levels) < self.time + jitter:
            self.levels.append(level)

    def byte(self, value, rng, stop=1):
        for level in (0, *((value >> place) & 1 for place in range(8))):
            self.hold(level, 1, rng.uniform(-0.4, 0.4))
        self.hold(stop, 1)
        if not stop:
            self.hold(1, 1.5)


async def drive(dut, levels):
    """What the receiver says while the line takes these levels, and then rests."""
    found: list[int | str] = []
    for level in (*levels, *[1] * 8):
        dut.rx.value = level
        await ReadOnly()
        if int(dut.received.value):
            found.append(int(dut.data.value))
        if int(dut.broken.value):
            found.append("broken")
        await RisingEdge(dut.clk)
    return found


async def begin(dut):
    dut.rx.value = 1
    await bench.start(dut)
    parameters = bench.parameters()
    return parameters["clock_hz"] / parameters["baud"]


@cocotb.test()
async def bench_bytes(dut):
    cycles = await begin(dut)
    rng = random.Random(1)
    for rate in (0.98, 1.0, 1.02):
        line = Line(cycles * rate)
        wanted = [0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80, *(rng.randrange(256) for _ in range(30))]
        for value in wanted:
            line.hold(1, rng.choice([0, 0, 0, rng.uniform(0, 3)]))
            line.byte(value, rng)
        assert await drive(dut, line.levels) == wanted, f"{rate} of the rate"


@cocotb.test()
async def bench_broken_bytes(dut):
    """A byte whose stop bit is 0 is told; the next is right; a line that stays 0 is one broken byte."""
    cycles = await begin(dut)
    rng = random.Random(2)
    line, wanted = Line(cycles), []
    for _ in range(20):
        value, stop = rng.randrange(256), rng.randrange(2)
        line.byte(value, rng, stop)
        wanted.append(value if stop else "broken")
    line.hold(0, 40)
    line.hold(1, 1)
    line.byte(0x5A, rng)
    wanted += ["broken", 0x5A]
    assert "broken" in wanted[:20] and await drive(dut, line.levels) == wanted


@cocotb.test()
async def bench_disturbance(dut):
    """A 0 of less than half a bit is no start bit."""
    cycles = await begin(dut)
    rng = random.Random(3)
    line = Line(cycles)
    for _ in range(10):
        line.hold(0, (cycles / 2 - 1) / cycles)
        line.hold(1, 1.5)
        line.byte(0xC3, rng)
    assert await drive(dut, line.levels) == [0xC3] * 10


@cocotb.test()
async def bench_reset(dut):
    """A reset within a byte forgets it."""
    cycles = await begin(dut)
    rng = random.Random(4)
    for _ in range(10):
        line = Line(cycles)
        line.byte(0x00, rng)
        await drive(dut, line.levels[: rng.randrange(1, int(9 * cycles))])
        dut.rx.value = 1
        await bench.reset(dut, 4)
        line = Line(cycles)
        line.byte(0x96, rng)
        assert await drive(dut, line.levels) == [0x96]


@cocotb.test()
async def bench_latency(dut):
    """``received`` two or three cycles after the middle of the stop bit."""
    cycles = await begin(dut)
    line = Line(cycles)
    line.byte(0xA5, random.Random(5))
    middle = 9.5 * cycles
    for count, level in enumerate([*line.levels, *[1] * 8]):
        dut.rx.value = level
        await ReadOnly()
        if int(dut.received.value):
            assert 2 <= count - middle <= 3.5, (count, middle)
            return
        await RisingEdge(dut.clk)
    raise AssertionError("nothing was received")


@pytest.mark.parametrize(("clock_hz", "baud"), [(25_000_000, 3_000_000), (6_000_000, 1_000_000), (25_000_000, 230_400)])
def test_uart_receiver(clock_hz, baud):
    bench.run(UartReceiver(clock_hz, baud), __file__, "uart_receiver", parameters={"clock_hz": clock_hz, "baud": baud})


def test_rates():
    for clock_hz in (6_000_000, 25_000_000, 48_000_000, 100_000_000):
        for baud in (115_200, 921_600, 1_000_000, 3_000_000):
            if clock_hz >= 6 * baud:
                rate = phase_step(clock_hz, baud) * clock_hz / 2**PHASE_BITS
                assert abs(rate - baud) <= baud / 100
    with pytest.raises(ValueError, match="6 cycles a bit"):
        phase_step(17_999_999, 3_000_000)
    assert phase_step(18_000_000, 3_000_000)
    with pytest.raises(ValueError, match="6 cycles a bit"):
        phase_step(25_000_000, 0)
    with pytest.raises(ValueError, match="too slow"):
        phase_step(100_000_000, 300)
