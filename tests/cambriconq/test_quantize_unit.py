import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import RisingEdge
from nibblecore.hdl.cambriconq.isa import Constant
from nibblecore.hdl.cambriconq.job import Element
from nibblecore.hdl.cambriconq.quantize_unit import line_layout
from nibblecore.hdl.cambriconq.squ_setup import SquSettings
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.machine import Machine
from structs import join, split

LINES = 4096


def machine(cols, words):
    config = CambriconqConfig(name="bench", rows=8, cols=cols, nbin_bytes=LINES * cols // 2, sb_bytes=64, nbout_bytes=4 * words)
    return Machine(config, np.zeros(64, np.uint8), lambda number, x: x)


def settings(rng, golden, slot):
    """Random candidates that fit the slot, set in the golden machine; returns them as the unit takes them."""
    count, metric = rng.randint(1, 4), rng.randrange(3)
    bypass, exponent = rng.random() < 0.2, rng.randrange(256)
    golden._croset(Constant.SQU, count - 1 | metric << 2 | bypass << 4 | (exponent if bypass else 0) << 8)
    word = 0
    for number in range(4):
        size = rng.randrange(slot)
        offset, clip = rng.choice((0, 0, 1, 15)), rng.randint(1, 2 ** (4 * size + 3) - 1)
        golden._croset(Constant.SQU_CANDIDATE0 + number, size | offset << 4 | clip << 16)
        word |= (size | offset << 2 | clip << 6) << 21 * number
    return word | join(
        SquSettings, {"count": count - 1, "metric": metric, "bypass": bypass, "exponent": exponent if bypass else 0}
    ), count


def numbers(rng, rows, cols):
    generator = np.random.default_rng(rng.getrandbits(32))
    values = (generator.normal(size=(rows, cols)) * 2.0 ** generator.integers(-20, 20, (rows, 1))).astype(np.float32)
    if rng.random() < 0.3:
        values[rng.randrange(rows), rng.randrange(cols)] = rng.choice((np.inf, -np.inf, np.nan, 0.0, 1e-42))
    if rng.random() < 0.2:
        values[rng.randrange(rows)] = 0
    return values


async def shape(dut, rng, cols_of_array, rows, cols, slot, patterns):
    golden = machine(cols_of_array, 1 << 14)
    word, _ = settings(rng, golden, slot)
    values = numbers(rng, rows, cols)
    golden.nbout[: rows * cols] = values.ravel()
    golden._qmove(side=0, slot=slot, rows=rows, cols=cols, dest=0, src=0, src_row=cols, src_col=1)
    vectors = rows * -(-cols // cols_of_array)
    dut.settings.value, dut.slot.value = word, slot
    words = values.view(np.uint32)
    elements = [join(Element, {"word": int(words[i, j]), "last_of_row": j == cols - 1, "last": i == rows - 1 and j == cols - 1})
                for i in range(rows) for j in range(cols)]  # fmt: skip
    sender = cocotb.start_soon(bench.send(dut, "i", elements, patterns[0]))
    taken = await bench.receive(dut, "o", vectors * slot, patterns[1])
    await sender
    layout = line_layout(cols_of_array)
    for number, seen in enumerate(split(layout, word) for word in taken):
        wanted = golden.buffers[0].tags[number]
        place = f"{rows}×{cols}, slot {slot}, line {number} of {len(taken)}"
        assert seen["tag"] == wanted.pack(), place
        assert bench.unpack(seen["line"], 4, cols_of_array) == golden.buffers[0].lines[number].tolist(), place
        assert seen["last_of_vector"] == (number % slot == slot - 1), place
        assert seen["last"] == (number == len(taken) - 1), place
    return golden


async def start(dut):
    for port in ("settings", "slot", "clear", "i__valid", "i__payload", "o__ready"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    return bench.parameters()["cols"], random.Random(random.getrandbits(32))


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_rows(dut):
    cols, rng = await start(dut)
    names = list(bench.PATTERNS)
    shapes = [(1, 1), (1, cols), (3, cols + 1), (2, 3 * cols), (5, 2 * cols - 1), (1, 1024 + cols), (2, 1030), (40, 3)]
    for turn, (rows, columns) in enumerate(shapes + [(rng.randint(1, 6), rng.randint(1, 5 * cols)) for _ in range(12)]):
        patterns = [bench.PATTERNS[names[i]](rng.getrandbits(32)) for i in (turn % 4 if columns < 1000 else 0, turn // 4 % 4)]
        golden = await shape(dut, rng, cols, rows, columns, rng.randint(1, 4), patterns)
        assert bool(dut.nan_seen.value) == golden.nan_seen and bool(dut.infinity_seen.value) == golden.infinity_seen
        dut.clear.value = 1
        await RisingEdge(dut.clk)
        dut.clear.value = 0
        await RisingEdge(dut.clk)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_a_value_every_cycle(dut):
    """With one candidate rows of at least the SQU's shortest block go through without a bubble."""
    cols, rng = await start(dut)
    width = -(-64 // cols) * cols
    values = numbers(rng, 20, width)
    dut.settings.value, dut.slot.value = 1 | 127 << 6, 2
    words = values.view(np.uint32)
    elements = [
        join(Element, {"word": int(w), "last_of_row": j == width - 1, "last": 0}) for row in words for j, w in enumerate(row)
    ]
    cycles = 0

    async def count():
        nonlocal cycles
        while True:
            await RisingEdge(dut.clk)
            cycles += 1

    counter = cocotb.start_soon(count())
    taker = cocotb.start_soon(bench.receive(dut, "o", 20 * width // cols * 2))
    await bench.send(dut, "i", elements)
    counter.cancel()
    await taker
    assert cycles <= 20 * width + 40, f"{cycles} cycles for {20 * width} values"


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    cols, rng = await start(dut)
    for cycles in (1, 10, cols + 20, 2 * cols + 31):
        dut.settings.value, dut.slot.value = 1 | 127 << 6, 2
        sender = cocotb.start_soon(bench.send(dut, "i", [join(Element, {"word": 0x3F800000})] * 500))
        dut.o__ready.value = 1
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        sender.cancel()
        dut.i__valid.value = 0
        await bench.reset(dut)
        await shape(dut, rng, cols, 2, cols + 3, 2, [bench.always(), bench.always()])


@pytest.mark.parametrize("cols", [8, 16])
def test_quantize_unit(cols):
    from nibblecore.hdl.cambriconq.quantize_unit import QuantizeUnit

    bench.run(QuantizeUnit(cols), __file__, "quantize_unit", parameters={"cols": cols})
