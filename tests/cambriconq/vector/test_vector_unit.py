import random
from typing import Any

import bench
import cocotb
import numpy as np
import pytest
from amaranth.lib import data
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.program.isa import Opcode, Unary
from nibblecore.hdl.cambriconq.vector.sfu import Operation
from nibblecore.hdl.cambriconq.vector.vector_job import VectorJob
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.machine import Machine
from nibblecore.sim.golden.cambriconq.vector.sfu import function
from structs import join

WORDS = 512
OPERATIONS: dict[Opcode, Any] = {
    Opcode.VADD: Operation.ADD,
    Opcode.VSUB: Operation.SUB,
    Opcode.VMUL: Operation.MUL,
    Opcode.VMAX: Operation.MAX,
    Opcode.VSTEP: Operation.STEP,
    Opcode.VFMUL: Operation.MUL,
    Opcode.VFUN: Operation.FUNCTION,
    Opcode.HADD: Operation.ADD,
    Opcode.HMUL: Operation.MUL,
    Opcode.HMAX: Operation.MAX,
}


class Nbout:
    """The buffer's words, read with a cycle of latency; counts what is written."""

    def __init__(self, dut, words, lanes):
        self.dut, self.words, self.lanes, self.writes = dut, words.copy(), lanes, 0

    async def run(self):
        dut, lanes = self.dut, self.lanes
        while True:
            await ReadOnly()
            row = int(dut.read_row.value) if dut.read_enable.value else None
            enable, target, data = int(dut.write_enable.value), int(dut.write_row.value), int(dut.write_data.value)
            await RisingEdge(dut.clk)
            # A row that was read earlier means nothing.
            shown = random.getrandbits(32 * lanes) if row is None else bench.pack(self.words[row * lanes : (row + 1) * lanes], 32)
            dut.read_data.value = shown
            for lane in range(lanes):
                if enable >> lane & 1:
                    self.words[target * lanes + lane] = data >> 32 * lane & 0xFFFFFFFF
                    self.writes += 1


def machine(lanes, rng):
    config = CambriconqConfig(name="bench", rows=4 * lanes, cols=8, nbin_bytes=64, sb_bytes=64, nbout_bytes=4 * WORDS)
    golden = Machine(config, np.zeros(64, np.uint8), function)
    golden.nbout[:] = rng.normal(0, 2, WORDS).astype(np.float32)
    special = np.array([0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 1, 0x80000001, 0x3F800000], np.uint32).view(np.float32)
    golden.nbout[rng.integers(0, WORDS, 40)] = rng.choice(special, 40)
    return golden


def instruction(rng, opcode, rows, cols, *, in_place=False, group=1):
    """Places that do not overlap, with gaps, broadcasts of operands and transposed patterns.

    Of a `group`, elements that are taken together as far as one place does not prevent it: nine of ten places do not.
    """

    def place(first, broadcast):
        if group > 1 and rng.random() < 0.9:
            first = first + group * int(rng.integers(1, 3)) - first % group
            if opcode.name.startswith("H"):
                pitch = group * (-(-rows // group) + int(rng.integers(0, 2)))
                return first, 1, pitch
            pitch = group * (-(-cols // group) + int(rng.integers(0, 2)))
            row, col = rng.choice([(0, 1), (1, 0), (0, 0), (pitch, 1)] if broadcast else [(pitch, 1)])
            return first + (0 if col else int(rng.integers(0, 4))), int(row), int(col)
        row, col = rng.choice([(cols, 1), (1, rows), (cols + 1, 1)])
        if broadcast:
            row, col = rng.choice([(0, 1), (1, 0), (0, 0), (row, col)])
        return first + int(rng.integers(0, 20)), int(row), int(col)

    fields = {"rows": rows, "cols": cols}
    source = "src" if opcode.name.startswith("H") else "a"
    for name, first, broadcast in (("dest", 340, False), (source, 0, True), ("b", 170, True)):
        if name == "b" and opcode not in (Opcode.VADD, Opcode.VSUB, Opcode.VMUL, Opcode.VMAX, Opcode.VSTEP):
            continue
        at, row, col = place(first, broadcast)
        fields |= {name: at, f"{name}_row": row, f"{name}_col": col}
    if in_place:  # results of reductions stand where their rows begin
        fields |= {f"{source}{part}": fields[f"dest{part}"] for part in ("", "_row", "_col")}
    if opcode.name.startswith("H"):
        del fields["dest_col"]
    if opcode == Opcode.VFUN:
        fields["function"] = int(rng.integers(0, len(Unary)))
    if opcode == Opcode.VFMUL:
        fields["value"] = int(rng.normal(0, 3, 1).astype(np.float32).view(np.uint32)[0])
    return fields


def job(opcode, fields):
    source = "src" if opcode.name.startswith("H") else "a"
    values = {
        "operation": OPERATIONS[opcode].value,
        "function": fields.get("function", 0),
        "horizontal": source == "src",
        "immediate": opcode == Opcode.VFMUL,
        "value": fields.get("value", 0),
    }
    word, offset = join(VectorJob, values), 0
    layout = dict(data.Layout.cast(VectorJob))
    for name, field in layout.items():
        offset = field.offset
        if name == "size":
            word |= (fields["rows"] | fields["cols"] << 16) << offset
        if name in ("dest", "a", "b"):
            source_name = source if name == "a" else name
            for part, suffix in enumerate(("", "_row", "_col")):
                # Where an operand is not used its place may be anything.
                unused = name == "b" and "b" not in fields
                value = random.getrandbits(32) if unused else fields.get(f"{source_name}{suffix}", 0)
                word |= value << offset + 32 * part
    return word


async def begin(dut):
    dut.start.value = dut.job.value = dut.read_data.value = 0
    await bench.start(dut)
    return bench.parameters()["lanes"], np.random.default_rng(random.getrandbits(32))


async def run(dut, opcode, fields):
    dut.job.value, dut.start.value = job(opcode, fields), 1
    await RisingEdge(dut.clk)
    dut.start.value = 0
    for cycles in range(1, 20000):
        await ReadOnly()
        if dut.done.value:
            await RisingEdge(dut.clk)
            return cycles
        await RisingEdge(dut.clk)
    raise AssertionError("hangs")


async def execute(dut, golden, lanes, opcode, fields):
    nbout = Nbout(dut, golden.nbout.view(np.uint32), lanes)
    around = cocotb.start_soon(nbout.run())
    cycles = await run(dut, opcode, fields)
    around.cancel()
    with np.errstate(all="ignore"):
        getattr(golden, f"_{opcode.name.lower()}")(**fields)
    wrong = np.flatnonzero(nbout.words != golden.nbout.view(np.uint32))
    assert not len(wrong), (
        f"{opcode.name} {fields}: word {wrong[0]} is {nbout.words[wrong[0]]:#x}, not {golden.nbout.view(np.uint32)[wrong[0]]:#x}"
    )
    return cycles


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_every_instruction(dut):
    lanes, rng = await begin(dut)
    group = bench.parameters()["group"]
    for turn in range(12 if group == 1 else 40):
        for opcode in OPERATIONS:
            rows, cols = (
                ((1, 1), (1, 9), (7, 1), (8, 12))[turn % 4] if turn < 8 else (int(rng.integers(1, 9)), int(rng.integers(1, 13)))
            )
            fields = instruction(rng, opcode, rows, cols, in_place=turn % 3 == 2, group=group)
            await execute(dut, machine(lanes, rng), lanes, opcode, fields)


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_rates(dut):
    """An element a cycle along rows, every other cycle with two operands that jump from row to row; reductions a loop of the adder for
    each column of up to four rows."""
    lanes, rng = await begin(dut)
    for opcode, rate in ((Opcode.VFMUL, 1), (Opcode.VFUN, 1), (Opcode.VADD, 1 + 1 / lanes), (Opcode.HADD, 1)):
        fields = instruction(rng, opcode, 8, 12)
        cycles = await execute(dut, machine(lanes, rng), lanes, opcode, fields)
        least = 96 if rate < 2 else 96 * rate - 8 * (rate - 1)
        assert least <= cycles <= 96 * rate + 24, f"{opcode.name}: {cycles} cycles"
    for rows, loops in ((1, 1), (3, 1), (4, 1), (5, 2), (11, 3)):
        cycles = await execute(dut, machine(lanes, rng), lanes, Opcode.HMAX, instruction(rng, Opcode.HMAX, rows, 12))
        assert loops * 4 * 11 + 1 <= cycles <= loops * 4 * 12 + 16, f"HMAX of {rows} rows: {cycles} cycles"
    fields = instruction(rng, Opcode.VADD, 8, 12)
    cols = min(12, 96 // lanes)
    far = fields | {"cols": cols} | dict.fromkeys(("a_row", "b_row"), 0) | dict.fromkeys(("a_col", "b_col"), lanes)
    cycles = await execute(dut, machine(lanes, rng), lanes, Opcode.VADD, far)
    assert 16 * cols <= cycles <= 16 * cols + 24, f"VADD from row to row: {cycles} cycles"
    far = instruction(rng, Opcode.VFMUL, 8, 12) | {"cols": cols, "a_row": 0, "a_col": lanes}
    cycles = await execute(dut, machine(lanes, rng), lanes, Opcode.VFMUL, far)
    assert 8 * cols <= cycles <= 8 * cols + 24, f"VFMUL from row to row: {cycles} cycles"


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    lanes, rng = await begin(dut)
    for cycles in (1, 3, 8, 15, 30):
        dut.job.value, dut.start.value = job(Opcode.VMUL, instruction(rng, Opcode.VMUL, 8, 8)), 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        await bench.reset(dut)
        await execute(dut, machine(lanes, rng), lanes, Opcode.HADD, instruction(rng, Opcode.HADD, 3, 5))
        await execute(dut, machine(lanes, rng), lanes, Opcode.VADD, instruction(rng, Opcode.VADD, 3, 5))


@pytest.mark.parametrize("lanes", [2, 4])
def test_vector_unit(lanes):
    from nibblecore.hdl.cambriconq.vector.vector_unit import VectorUnit

    bench.run(VectorUnit(WORDS, lanes), __file__, "vector_unit", parameters={"lanes": lanes, "group": 1})
