import random
from itertools import pairwise, product

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.program.isa import Constant
from nibblecore.hdl.cambriconq.quantize.quantize_unit import QuantizeUnit, line_layout
from nibblecore.hdl.cambriconq.quantize.squ import Squ
from nibblecore.hdl.cambriconq.quantize.squ_setup import SquSettings
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.machine import Machine
from nibblecore.sim.golden.cambriconq.movers.gather import elements
from nibblecore.sim.golden.cambriconq.movers.walk import Pattern
from places import now, offered
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


def sent(rng, values, wide):
    """Rows of values as the unit takes them."""
    (rows, cols), words = values.shape, bench.parameters()["words"]
    together = elements(values.view(np.uint32), Pattern(rows, cols, 0, cols, 1), words if wide else 1)
    return [offered(element, words, rng) for element in together]


def modes():
    return (False, True) if bench.parameters()["words"] > 1 else (False,)


def choose(dut, wide):
    if bench.parameters()["words"] > 1:
        dut.wide.value = wide


async def shape(dut, rng, rows, cols, slot, patterns, wide):
    lanes = bench.parameters()["cols"]
    golden = machine(lanes, 1 << 14)
    word, _ = settings(rng, golden, slot)
    values = numbers(rng, rows, cols)
    golden.nbout[: rows * cols] = values.ravel()
    golden._qmove(side=0, slot=slot, rows=rows, cols=cols, dest=0, src=0, src_row=cols, src_col=1)
    vectors = rows * -(-cols // lanes)
    dut.settings.value, dut.slot.value = word, slot
    choose(dut, wide)
    sender = cocotb.start_soon(bench.send(dut, "i", sent(rng, values, wide), patterns[0]))
    taken = await bench.receive(dut, "o", vectors * slot, patterns[1])
    await sender
    layout = line_layout(lanes)
    for number, seen in enumerate(split(layout, word) for word in taken):
        wanted = golden.buffers[0].tags[number]
        place = f"{rows}×{cols}, slot {slot}, wide {wide}, line {number} of {len(taken)}"
        assert seen["tag"] == wanted.pack(), place
        assert bench.unpack(seen["line"], 4, lanes) == golden.buffers[0].lines[number].tolist(), place
        assert seen["last_of_vector"] == (number % slot == slot - 1), place
        assert seen["last"] == (number == len(taken) - 1), place
    assert bool(dut.nan_seen.value) == golden.nan_seen and bool(dut.infinity_seen.value) == golden.infinity_seen
    dut.clear.value = 1
    await RisingEdge(dut.clk)
    dut.clear.value = 0
    await RisingEdge(dut.clk)


async def start(dut):
    for port in ("settings", "slot", "clear", "i__valid", "i__payload", "o__ready"):
        getattr(dut, port).value = 0
    choose(dut, False)
    await bench.start(dut)
    return bench.parameters()["cols"], bench.parameters()["words"], random.Random(random.getrandbits(32))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_rows(dut):
    """Shapes of all kinds, the modes mixed."""
    cols, _, rng = await start(dut)
    names = list(bench.PATTERNS)
    shapes = [(1, 1), (1, cols), (3, cols + 1), (2, 3 * cols), (5, 2 * cols - 1), (1, 1024 + cols), (2, 1030), (40, 3)]
    for turn, (rows, columns) in enumerate(shapes + [(rng.randint(1, 6), rng.randint(1, 5 * cols)) for _ in range(12)]):
        for wide in modes():
            patterns = [bench.PATTERNS[names[i]](rng.getrandbits(32)) for i in (turn % 4 if columns < 1000 else 0, turn // 4 % 4)]
            await shape(dut, rng, rows, columns, rng.randint(1, 4), patterns, wide)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_groups(dut):
    """Rows of every length up to three groups; then shorter and shorter ones, in which nothing is left of the ones before."""
    _, words, rng = await start(dut)
    names = list(bench.PATTERNS)
    for columns in [*range(1, 3 * words + 1), *range(words, 0, -1)]:
        for wide in modes():
            patterns = [bench.PATTERNS[names[i]](rng.getrandbits(32)) for i in (columns % 4, columns // 4 % 4)]
            await shape(dut, rng, 3, columns, rng.randint(1, 4), patterns, wide)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_throughput(dut):
    """Rows of at least the SQU's shortest block follow each other without a bubble, as fast as words come in or candidates are tried."""
    cols, words, rng = await start(dut)
    width, rows = -(-Squ(words).bubble_free_beats * words // cols) * cols, 8
    # Of slots whose lines leave as fast as a vector's values come.
    slots = [slot for slot in (1, 2, 4) if slot * words <= cols]
    for wide, candidates, slot, columns in product(modes(), (1, 3), slots, (width, width + 1)):
        candidate = (slot - 1) | (2 ** (4 * slot - 1) - 1) << 6
        settings_word = sum(candidate << 21 * number for number in range(candidates))
        dut.settings.value, dut.slot.value = settings_word | join(SquSettings, {"count": candidates - 1}), slot
        choose(dut, wide)
        vectors = -(-columns // cols)
        beats = vectors * cols // words
        # Padding begins in the beat of the row's last word.
        offered = beats if wide else columns + beats - -(-columns // words)
        period = max(offered, beats * candidates)
        sender = cocotb.start_soon(bench.send(dut, "i", sent(rng, numbers(rng, rows, columns), wide)))
        dut.o__ready.value, lines = 1, 0
        row_ends: list[int] = []
        while len(row_ends) < rows:
            await ReadOnly()
            lines += int(dut.o__valid.value)
            if dut.o__valid.value and lines % (vectors * slot) == 0:
                row_ends.append(now())
            await RisingEdge(dut.clk)
        await sender
        dut.o__ready.value = 0
        seen = [later - earlier for earlier, later in pairwise(row_ends[2:])]
        assert set(seen) == {period}, f"{columns} values, wide {wide}, {candidates} candidates, slot {slot}: {seen} not {period}"


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    cols, words, rng = await start(dut)
    for wide, cycles in product(modes(), (1, 10, cols + 20, 2 * cols + 31)):
        dut.settings.value, dut.slot.value = 1 | 127 << 6, 2
        choose(dut, wide)
        sender = cocotb.start_soon(bench.send(dut, "i", sent(rng, np.ones((1, 500 * words), np.float32), wide)))
        dut.o__ready.value = 1
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        sender.cancel()
        dut.i__valid.value = 0
        await bench.reset(dut)
        await shape(dut, rng, 2, cols + 3, 2, [bench.always(), bench.always()], rng.choice(modes()))


@pytest.mark.parametrize("cols, words", [(16, 4), (16, 2), (8, 1), (8, 8), (64, 8)])
def test_quantize_unit(cols, words):
    bench.run(QuantizeUnit(cols, words), __file__, "quantize_unit", parameters={"cols": cols, "words": words})


def test_words_fit_a_vector():
    with pytest.raises(ValueError, match="16 words do not fit a vector of 8 values"):
        QuantizeUnit(8, 16)
