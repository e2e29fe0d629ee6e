import itertools
import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from cocotb.utils import get_sim_time
from nibblecore.sim.golden.ltoaq.output.block_store import block_beats

PERIOD = 10  # ns
SHAPES = {"one_block": (4, 4), "wide": (16, 4), "wide_bus": (8, 8), "wide_bus_wide": (32, 8)}


async def start(dut):
    for port in ("eight_bit", "reserve", "i_valid", "i_code", "i_outlier", "o__ready"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return bench.parameters()["lanes"], bench.parameters()["block"]


async def fill(dut, block, codes, flags, pattern, latency):
    """Reserve a group when there is room, and deliver its rows `latency` cycles later, as the quantizers do.

    Works on falling edges, so that `reserve` answers `room` within the cycle.
    """
    rows = iter(zip(codes.tolist(), flags.tolist(), strict=True))
    inside: list[tuple[list[int], list[bool]] | None] = [None] * latency
    reading = 0
    while reading < len(codes) or any(inside):
        await FallingEdge(dut.clk)
        first = reading % block == 0
        going = reading < len(codes) and next(pattern) and (not first or bool(dut.room.value))
        dut.reserve.value = int(going and first)
        reading += going
        inside.append(next(rows) if going else None)
        row = inside.pop(0)
        dut.i_valid.value = int(row is not None)
        if row is not None:
            dut.i_code.value, dut.i_outlier.value = bench.pack(row[0], 8), bench.pack(row[1], 1)
    await FallingEdge(dut.clk)
    dut.i_valid.value = 0


def rows(lanes, block, groups, bits, rng):
    codes = rng.integers(0, 256, (groups * block, lanes))  # 4-bit codes: the upper half means nothing
    return codes, rng.integers(0, 2, codes.shape).astype(bool), codes % 2**bits


async def through(dut, lanes, block, bits, groups, patterns, latency):
    rng = np.random.default_rng(random.getrandbits(32))
    dut.eight_bit.value = bits == 8
    codes, flags, meant = rows(lanes, block, groups, bits, rng)
    expected = [code | flag << 4 * block**2 for code, flag in block_beats(meant, flags, block, bits)]
    filling = cocotb.start_soon(fill(dut, block, codes, flags, patterns[0], latency))
    assert await bench.receive(dut, "o", len(expected), patterns[1]) == expected, f"{bits} bits"
    await filling
    await ReadOnly()
    assert not dut.o__valid.value and dut.room.value
    await RisingEdge(dut.clk)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_groups(dut):
    lanes, block = await start(dut)
    for bits, idle, stall in itertools.product((4, 8), bench.PATTERNS, bench.PATTERNS):
        await through(dut, lanes, block, bits, 7, (bench.PATTERNS[idle](3), bench.PATTERNS[stall](4)), random.choice([0, 1, 6]))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_room_is_two_groups(dut):
    lanes, block = await start(dut)
    for _ in range(2):
        await ReadOnly()
        assert dut.room.value
        await RisingEdge(dut.clk)
        dut.reserve.value = 1
        await RisingEdge(dut.clk)
        dut.reserve.value = 0
    await ReadOnly()
    assert not dut.room.value and not dut.o__valid.value
    await RisingEdge(dut.clk)
    dut.i_valid.value = 1
    for _ in range(2 * block):
        await RisingEdge(dut.clk)
    dut.i_valid.value = 0
    await bench.receive(dut, "o", lanes // block)
    await ReadOnly()
    assert dut.room.value


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_throughput(dut):
    """With a row every cycle and every beat taken at once, a group takes max(B, lanes/B·bits/4) cycles."""
    lanes, block = await start(dut)
    for bits in (4, 8):
        started = get_sim_time("ns")
        await through(dut, lanes, block, bits, 40, (bench.always(), bench.always()), 0)
        cycles = (get_sim_time("ns") - started) / PERIOD
        assert cycles <= 40 * max(block, lanes // block * bits // 4) + 2 * block + 2 * lanes


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    lanes, block = await start(dut)
    for number in range(1, 2 * block + 2):
        dut.reserve.value, dut.i_valid.value, dut.eight_bit.value, dut.o__ready.value = 1, 1, number % 2, number % 3 == 0
        await RisingEdge(dut.clk)
        dut.reserve.value = 0
        for _ in range(number):
            await RisingEdge(dut.clk)
        dut.i_valid.value = 0
        await bench.reset(dut)
    await through(dut, lanes, block, 8, 3, (bench.always(), bench.always()), 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_block_store(shape):
    from nibblecore.hdl.ltoaq.output.block_store import BlockStore

    lanes, block = SHAPES[shape]
    bench.run(BlockStore(lanes, block), __file__, f"block_store_{shape}", parameters={"lanes": lanes, "block": block})


def test_golden_beats_by_hand():
    """Two groups of two blocks, B = 2: every code is its own row and column."""
    codes = np.array([[16 * row + col for col in range(4)] for row in range(4)])
    flags = codes == 0x31
    assert block_beats(codes % 16, flags, 2, 4) == [(0x1010, 0), (0x3232, 0), (0x1010, 0b1000), (0x3232, 0)]
    assert block_beats(codes, flags, 2, 8) == [
        (0x1000, 0),
        (0x1101, 0),
        (0x1202, 0),
        (0x1303, 0),
        (0x3020, 0),
        (0x3121, 0b10),
        (0x3222, 0),
        (0x3323, 0),
    ]
