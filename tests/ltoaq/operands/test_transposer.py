import itertools
import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.sim.golden.ltoaq.operands.transposer import beats_of, words_of

MODES = list(itertools.product((4, 8), (False, True)))


def blocks(b, bits, count):
    rng = np.random.default_rng(random.getrandbits(32))
    return rng.integers(0, 2**bits, (count, b, b)), rng.integers(0, 2, (count, b, b)).astype(bool)


def beats(codes, flags, bits):
    b = codes.shape[1]
    return [
        code | flag << 4 * b * b
        for block, mark in zip(codes, flags, strict=True)
        for code, flag in beats_of(block.reshape(1, b, 1, b), mark.reshape(1, b, 1, b), bits)
    ]


def words(codes, flags, bits, transposed):
    return [word for block, mark in zip(codes, flags, strict=True) for word in words_of(block, mark, bits, transposed)]


async def start(dut):
    for port in ("eight_bit", "transposed", "i__valid", "i__payload", "o__ready"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return bench.parameters()["block"]


async def through(dut, bits, transposed, codes, flags, patterns):
    dut.eight_bit.value, dut.transposed.value = bits == 8, transposed
    sender = cocotb.start_soon(bench.send(dut, "i", beats(codes, flags, bits), patterns[0]))
    expected = words(codes, flags, bits, transposed)
    assert await bench.receive(dut, "o", len(expected), patterns[1]) == expected, f"{bits} bits, transposed {transposed}"
    await sender


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_blocks(dut):
    b = await start(dut)
    for (bits, transposed), idle, stall in itertools.product(MODES, bench.PATTERNS, bench.PATTERNS):
        codes, flags = blocks(b, bits, 6)
        await through(dut, bits, transposed, codes, flags, (bench.PATTERNS[idle](1), bench.PATTERNS[stall](2)))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_throughput(dut):
    b = await start(dut)
    for bits, transposed in MODES:
        codes, flags = blocks(b, bits, 10)
        dut.eight_bit.value, dut.transposed.value, dut.o__ready.value = bits == 8, transposed, 1
        sender = cocotb.start_soon(bench.send(dut, "i", beats(codes, flags, bits)))
        cycles = 0
        while not sender.done():
            await RisingEdge(dut.clk)
            cycles += 1
        await ReadOnly()
        least = {4: 10, 8: 30 if transposed else 20}[bits]
        assert least <= cycles <= least + 2
        await RisingEdge(dut.clk)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_between_the_beats_of_a_block(dut):
    b = await start(dut)
    codes, flags = blocks(b, 8, 4)
    dut.eight_bit.value, dut.transposed.value = 1, 1
    for half_done in (0, 1):
        dut.i__valid.value, dut.i__payload.value, dut.o__ready.value = 1, beats(codes, flags, 8)[0], half_done
        for _ in range(1 + half_done):
            await RisingEdge(dut.clk)
        dut.i__valid.value = 0
        await bench.reset(dut)
    await through(dut, 8, True, codes, flags, (bench.always(), bench.always()))


@pytest.mark.parametrize("block", [4, 8])
def test_transposer(block):
    from nibblecore.hdl.ltoaq.operands.transposer import Transposer

    bench.run(Transposer(block), __file__, f"transposer{block}", parameters={"block": block})


@pytest.mark.parametrize("block", [4, 8])
def test_golden_places_elements_as_the_formats_say(block):
    """Element by element, with the lane numbers of docs/formats.md and of the buffer word."""
    for bits, transposed in MODES:
        codes, flags = blocks(block, bits, 1)
        shape = (1, block, 1, block)
        stored = beats_of(codes.reshape(shape), flags.reshape(shape), bits)
        read = words_of(codes[0], flags[0], bits, transposed)
        wide = block * 4 // bits
        for r, c in itertools.product(range(block), repeat=2):
            code, flag = stored[c // wide]
            lane = r * wide + c % wide
            assert (code >> bits * lane & 2**bits - 1, flag >> lane & 1) == (codes[0, r, c], flags[0, r, c])
            row, k = (c, r) if transposed else (r, c)
            word = read[k // wide] >> 5 * block * row & 2 ** (5 * block) - 1
            assert word >> bits * (k % wide) & 2**bits - 1 == codes[0, r, c]
            assert word >> 4 * block + k % wide & 1 == flags[0, r, c]
