import random
from collections import deque
from dataclasses import replace

import bench
import cocotb
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.config import TINY, LtoaqConfig
from nibblecore.hdl.ltoaq.array.feeder import read_layout
from nibblecore.hdl.ltoaq.command.job import OperandFormat
from nibblecore.sim.golden.ltoaq.array.feeder import feed
from nibblecore.sim.golden.ltoaq.operands.residual_clip import clip_residuals
from structs import join

WIDE_BUS = LtoaqConfig(name="wide_bus", rows=8, cols=16, tile=16, bus_bytes=32, bank_words=256)
EIGHT_LANES = replace(WIDE_BUS, name="eight_lanes", lanes=8)
CONFIGS = {config.name: config for config in (TINY, WIDE_BUS, EIGHT_LANES)}


async def start(dut):
    for port in ("eight_bit", "format", "read", "read_data"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    config, role = CONFIGS[bench.parameters()["config"]], bench.parameters()["role"]
    return config, role, config.rows if role == "a" else config.output_cols


def random_word(config, form):
    """A buffer word of any codes and flags, but of residuals that the loader lets through."""
    bits, elements = form["bits"], config.block * 4 // form["bits"]
    codes = [random.getrandbits(bits) for _ in range(elements)]
    flags = [random.getrandbits(1) for _ in range(elements)]
    clipped = clip_residuals(codes, flags, bits, form["signed"], form["threshold"], form["k"], config.value_max(bits))
    unused = random.getrandbits(config.block - elements) if elements < config.block else 0
    return bench.pack(clipped, bits) | bench.pack(flags, 1) << 4 * config.block | unused << 4 * config.block + elements


async def edge(dut, config, role, banks, form, pattern, cycles=60):
    """Random reads through one format: read i of a cycle reaches bank i that many cycles later, and its lanes two cycles after that."""
    width, address_bits = 5 * config.block, (config.bank_words - 1).bit_length()
    layout = read_layout(address_bits)
    words = config.block * 4 // form["bits"] // config.word_elements(form["bits"])
    dut.eight_bit.value = form["bits"] == 8
    dut.format.value = join(OperandFormat, {name: form[name] for name in ("signed", "k", "threshold")})
    dut.read.value = 0
    memory: dict[tuple[int, int], int] = {}
    idle = {"valid": 0, "boundary": 0, "select": 0, "address": 0}
    history = deque([idle] * (banks + 3), maxlen=banks + 3)  # reads, the newest first
    shown = [0] * banks
    for _ in range(banks + 4):
        await RisingEdge(dut.clk)
    for cycle in range(cycles + banks + 4):
        read = dict(idle)
        if cycle < cycles:
            read = {
                "valid": int(next(pattern)),
                "boundary": random.getrandbits(1),
                "select": random.randrange(words),
                "address": random.randrange(config.bank_words),
            }
        history.appendleft(read)
        dut.read.value = join(layout, read)
        dut.read_data.value = bench.pack(shown, width)
        await ReadOnly()
        enables, addresses = int(dut.read_enable.value), bench.unpack(int(dut.read_address.value), address_bits, banks)
        lanes, boundaries = bench.unpack(int(dut.lanes.value), 6 * config.lanes, banks), int(dut.boundary.value)
        for bank in range(banks):
            now, before = history[bank], history[bank + 2]
            assert enables >> bank & 1 == now["valid"]
            if now["valid"]:
                assert addresses[bank] == now["address"]
            expected = 0
            if before["valid"]:
                expected = feed(memory[bank, before["address"]], before["select"], role=role, config=config, **form)
            assert lanes[bank] == expected, f"bank {bank}, {form}, {before}"
            assert boundaries >> bank & 1 == before["boundary"]
        await RisingEdge(dut.clk)
        for bank in range(banks):
            now = history[bank]
            if now["valid"]:
                shown[bank] = memory.setdefault((bank, now["address"]), random_word(config, form))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_every_format(dut):
    config, role, banks = await start(dut)
    names = list(bench.PATTERNS)
    turn = 0
    for bits in (4, 8):
        for signed in (False, True):
            for k in range(4):
                limit = 2 ** (bits - signed) - 1
                form = {"bits": bits, "signed": signed, "k": k, "threshold": random.choice([1, limit, random.randint(1, limit)])}
                await edge(dut, config, role, banks, form, bench.PATTERNS[names[turn % 4]](turn))
                turn += 1


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config, role, banks = await start(dut)
    for cycles in (1, 2, banks):
        dut.read.value = join(read_layout((config.bank_words - 1).bit_length()), {"valid": 1, "boundary": 1})
        dut.read_data.value = 2 ** (5 * config.block * banks) - 1
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        dut.read.value = 0
        await bench.reset(dut)
        await ReadOnly()
        assert not int(dut.boundary.value) and not int(dut.lanes.value) and not int(dut.read_enable.value)
        await RisingEdge(dut.clk)
    await edge(dut, config, role, banks, {"bits": 4, "signed": True, "k": 1, "threshold": 7}, bench.always(), cycles=20)


@pytest.mark.parametrize("role", ["a", "w"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_feeder(config, role):
    from nibblecore.hdl.ltoaq.array.feeder import Feeder

    bench.run(Feeder(role, config), __file__, f"feeder_{role}", parameters={"config": config.name, "role": role})


def test_golden_lanes_by_hand():
    """TINY's buffer words: four nibbles and four flags, or two bytes and two flags."""
    word = 0x8F21 | 0b0101 << 16
    # 1 is an outlier of T + 1·2 = 7, 2 is 2, F is −(T + 7·2), 8 is −8.
    assert bench.unpack(feed(word, 0, 4, True, 5, 1, "a", TINY), 6, 4, signed=True) == [7, 2, -19, -8]
    # 0x21 is an outlier: 5 + 33 = 38 = 1·32 + 6; 0x8F is −113 = −4·32 + 15.
    assert bench.unpack(feed(word, 0, 8, True, 5, 0, "w", TINY), 6, 4, signed=True) == [6, 6, 1, 1]
    assert bench.unpack(feed(word, 1, 8, True, 5, 0, "a", TINY), 6, 4, signed=True) == [15, -4, 15, -4]


def test_golden_eight_lanes_by_hand():
    """Four bytes and four flags: words of eight lanes hold two bytes."""
    word = 0x8F21 << 16 | 0b0100 << 32
    lanes = bench.unpack(feed(word, 1, 8, True, 5, 0, "a", EIGHT_LANES), 6, 8, signed=True)
    assert lanes == [6, 1, 6, 1, 15, -4, 15, -4]
    assert feed(word, 0, 8, True, 5, 0, "a", EIGHT_LANES) == 0
    nibbles = bench.unpack(feed(0x8F21 << 16, 0, 4, True, 5, 0, "w", EIGHT_LANES), 6, 8, signed=True)
    assert nibbles == [0, 0, 0, 0, 1, 2, -1, -8]
