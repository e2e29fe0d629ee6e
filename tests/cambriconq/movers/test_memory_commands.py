import random

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.bus.streams import command_layout
from nibblecore.hdl.cambriconq.movers.memory_commands import MemoryCommands
from nibblecore.sim.golden.cambriconq.movers.memory_commands import commands
from nibblecore.sim.golden.cambriconq.movers.walk import Pattern, addresses
from places import EMPTY, begin, patterns
from structs import split

LONG = [Pattern(2, 65535, 4, 0x4_0000, 4), Pattern(1, 65535, 0xFFC0_0000 + 28, 0, 4), Pattern(2, 400, 0, 4000, 40)]


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_commands(dut):
    bus_bytes, rng = bench.parameters()["bus_bytes"], random.Random(random.getrandbits(32))
    dut.start.value, dut.shape.value, dut.place.value, dut.command__ready.value = 0, 0, 0, 0
    await bench.start(dut)
    for turn, pattern in enumerate([*LONG, *EMPTY, *patterns(rng, 1 << 14, 4), *patterns(rng, 1 << 14, 4, contiguous=True)]):
        expected = commands(pattern, bus_bytes)
        await begin(dut, pattern)
        name = list(bench.PATTERNS)[turn % len(bench.PATTERNS)]
        taken = await bench.receive(dut, "command", len(expected), bench.PATTERNS[name](rng.getrandbits(32)))
        assert [tuple(split(command_layout(), word).values()) for word in taken] == expected, pattern
        for _ in range(2):
            await ReadOnly()
            assert not dut.command__valid.value, "a command too many"
            await RisingEdge(dut.clk)


@pytest.mark.parametrize("bus_bytes", [8, 32])
def test_memory_commands(bus_bytes):
    bench.run(MemoryCommands(bus_bytes), __file__, f"memory_commands_{bus_bytes}", parameters={"bus_bytes": bus_bytes})


@pytest.mark.parametrize("bus_bytes", [4, 12, 256])
def test_illegal_parameters(bus_bytes):
    with pytest.raises(ValueError):
        MemoryCommands(bus_bytes)


@pytest.mark.parametrize("bus_bytes", [8, 32])
def test_golden_commands_cover_the_words_and_no_other_beat(bus_bytes):
    for pattern in [*EMPTY, *patterns(random.Random(1), 4096, 4)]:
        touched = {address // bus_bytes for address in addresses(pattern).ravel().tolist()}
        covered = {first // bus_bytes + beat for first, beats in commands(pattern, bus_bytes) for beat in range(beats)}
        assert covered == touched
        assert len(commands(pattern, bus_bytes)) == pattern.rows * (min(1, pattern.cols) if pattern.col == 4 else pattern.cols)
