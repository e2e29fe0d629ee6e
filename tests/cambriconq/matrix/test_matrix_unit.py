import random

import bench
import cocotb
import numpy as np
import pytest
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.matrix.matrix_job import MatrixJob
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.machine import Machine, Tag
from structs import join

LINES, WORDS = 512, 1024
CONFIGS = {
    (rows, cols): CambriconqConfig(
        name=f"rows{rows}_cols{cols}",
        rows=rows,
        cols=cols,
        nbin_bytes=LINES * cols // 2,
        sb_bytes=LINES * cols // 2,
        nbout_bytes=4 * WORDS,
    )
    for rows, cols in ((8, 16), (16, 8))
}
PLAIN = {"a_col": 0, "out_width": 1, "stride": 1, "kernel_rows": 1, "kernel_cols": 1}
ERRORS = {"out_of_range": 1, "no_tag": 2, "tag_mismatch": 4}


class Buffers:
    """NBin, SB and NBout around the unit, all with a cycle of latency, holding what the golden machine's held at first."""

    def __init__(self, dut, machine):
        self.dut, self.machine = dut, machine
        self.nbout = machine.nbout.view(np.uint32).copy()
        self.lanes = machine.config.nbout_lanes
        self.used, self.writes = [], 0

    async def run(self):
        dut, lanes = self.dut, self.lanes
        while True:
            await ReadOnly()
            sides = zip(("nbin", "sb"), self.machine.buffers, strict=True)
            reads = [
                (name, buffer, int(getattr(dut, f"{name}__address").value))
                for name, buffer in sides
                if getattr(dut, f"{name}__enable").value
            ]
            row = int(dut.read_row.value) if dut.read_enable.value else None
            enable, target, data = int(dut.write_enable.value), int(dut.write_row.value), int(dut.write_data.value)
            self.used.append(int(dut.working.value))
            assert dut.busy.value or not (enable or self.used[-1]), "at work while not busy"
            await RisingEdge(dut.clk)
            for name, buffer, line in reads:
                tag = buffer.tags[line]
                getattr(dut, f"{name}__line").value = bench.pack(buffer.lines[line], 4)
                getattr(dut, f"{name}__tag").value = tag.pack() if tag else random.getrandbits(10)
                getattr(dut, f"{name}__written").value = int(tag is not None)
            # A row that was read earlier means nothing.
            dut.read_data.value = random.getrandbits(32 * lanes)
            if row is not None:
                if enable and row == target:
                    raise AssertionError("a row is read while it is written")
                dut.read_data.value = bench.pack(self.nbout[row * lanes : (row + 1) * lanes], 32)
            for lane in range(lanes):
                if enable >> lane & 1:
                    self.nbout[target * lanes + lane] = data >> 32 * lane & 0xFFFFFFFF
                    self.writes += 1


def machine_with_vectors(config, rng, *, exponents=(-20, 20)):
    machine = Machine(config, np.zeros(64, np.uint8), lambda number, x: x)
    machine.nbout[:] = rng.normal(size=WORDS).astype(np.float32)
    return machine


def fill(machine, rng, side, start, row_lines, rows, slot, vectors, e=None):
    """Random vectors in rows, the tags of a row equal; extremes among the values."""
    cols = machine.config.cols
    for row in range(rows):
        tag = Tag(int(rng.integers(-20, 20)) if e is None else e, 4 * slot)
        for v in range(vectors):
            high = 2 ** (4 * slot - 1)
            values = rng.integers(-high, high, cols)
            if rng.random() < 0.2:
                values[:] = rng.choice([-high, high - 1])
            machine.buffers[side].store(start + row * row_lines + v * slot, values, tag, slot)


async def begin(dut):
    for port in ("start", "job", "nbin__line", "nbin__tag", "nbin__written", "sb__line", "sb__tag", "sb__written", "read_data"):
        getattr(dut, port).value = 0
    await bench.start(dut)
    config = CONFIGS[tuple(bench.parameters()["shape"])]
    return config, np.random.default_rng(random.getrandbits(32))


async def run(dut, fields, limit=20000):
    """Start and wait; returns the number of cycles."""
    lanes = CONFIGS[tuple(bench.parameters()["shape"])].nbout_lanes
    dut.job.value = join(MatrixJob, fields | {"dest": fields["dest"] // lanes, "dest_row": fields["dest_row"] // lanes})
    dut.start.value = 1
    await RisingEdge(dut.clk)
    dut.start.value = 0
    await ReadOnly()
    cycles = 1
    while dut.busy.value:
        await RisingEdge(dut.clk)
        await ReadOnly()
        cycles += 1
        assert cycles < limit, "hangs"
    await RisingEdge(dut.clk)
    return cycles


async def product(dut, machine, fields, conv=False):
    buffers = Buffers(dut, machine)
    around = cocotb.start_soon(buffers.run())
    cycles = await run(dut, PLAIN | fields)
    assert not around.done(), around.result()
    around.cancel()
    assert not int(dut.error.value)
    (machine._conv if conv else machine._mm)(**fields)
    expected = machine.nbout.view(np.uint32)
    wrong = np.flatnonzero(buffers.nbout != expected)
    assert not len(wrong), f"word {wrong[0]}: {buffers.nbout[wrong[0]]:#x}, not {expected[wrong[0]]:#x}; {fields}"
    return cycles, buffers


def matrix(rows, cols, vectors, a_slot, w_slot, group, *, lanes, accumulate=0, dest=0, a=0, w=0):
    pitch = -(-cols // lanes) * lanes
    return {
        "accumulate": accumulate,
        "group": group,
        "rows": rows,
        "cols": cols,
        "dest": dest * lanes,
        "dest_row": pitch,
        "a": a,
        "a_row": vectors * a_slot,
        "a_slot": a_slot,
        "w": w,
        "w_row": vectors * w_slot,
        "w_slot": w_slot,
        "vectors": vectors,
    }


WIDTHS = [(a, w, g) for a in range(1, 5) for w in range(1, 5) for g in (1, 2, 4) if g * w <= 4]


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_every_width(dut):
    config, rng = await begin(dut)
    for number, (a_slot, w_slot, group) in enumerate(WIDTHS):
        vectors = (1, 3, group, 5)[number % 4]
        rows, cols = int(rng.integers(1, 8)), int(rng.integers(1, 20))
        machine = machine_with_vectors(config, rng)
        fill(machine, rng, 0, 3, vectors * a_slot, rows, a_slot, vectors)
        fill(machine, rng, 1, 5, vectors * w_slot, cols, w_slot, vectors)
        fields = matrix(
            rows, cols, vectors, a_slot, w_slot, group, lanes=config.nbout_lanes, accumulate=number & 1, dest=number % 7, a=3, w=5
        )
        await product(dut, machine, fields)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_one_row_adds_up_in_order(dut):
    """The shortest tiles: each adds to what the one before has just written."""
    config, rng = await begin(dut)
    for slot, group in ((1, 1), (1, 4), (2, 2), (4, 1)):
        for accumulate in (0, 1):
            machine = machine_with_vectors(config, rng)
            fill(machine, rng, 0, 0, 13 * slot, 1, slot, 13, e=3)
            fill(machine, rng, 1, 0, 13 * slot, 1, slot, 13)
            await product(dut, machine, matrix(1, 1, 13, slot, slot, group, lanes=config.nbout_lanes, accumulate=accumulate))


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_busy_until_the_last_result(dut):
    """The shortest products, with the number of passes and lines that the last may have: `busy` falls once, behind the last write."""
    config, rng = await begin(dut)
    for a_slot, w_slot, vectors in ((1, 1, 1), (1, 1, 2), (2, 1, 1), (1, 2, 1), (2, 2, 1)):
        for rows, cols in ((1, 1), (1, config.rows), (1, config.rows + 1), (2, 1)):
            machine = machine_with_vectors(config, rng)
            fill(machine, rng, 0, 0, vectors * a_slot, rows, a_slot, vectors)
            fill(machine, rng, 1, 0, vectors * w_slot, cols, w_slot, vectors)
            buffers = Buffers(dut, machine)
            around = cocotb.start_soon(buffers.run())
            await run(dut, PLAIN | matrix(rows, cols, vectors, a_slot, w_slot, 1, lanes=config.nbout_lanes))
            written = buffers.writes
            for _ in range(40):
                await RisingEdge(dut.clk)
                await ReadOnly()
                assert not dut.busy.value and buffers.writes == written >= rows * cols, (a_slot, w_slot, vectors, rows, cols)
            await RisingEdge(dut.clk)
            around.cancel()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_convolution(dut):
    config, rng = await begin(dut)
    for kernel, stride, vectors, group in (((3, 3), 1, 1, 1), ((2, 3), 2, 2, 2), ((1, 2), 1, 1, 1)):
        height, width = 6, 7
        pixel = vectors * 2
        machine = machine_with_vectors(config, rng)
        fill(machine, rng, 0, 1, pixel, height * width, 2, vectors, e=-4)
        depth = kernel[0] * kernel[1] * vectors
        fill(machine, rng, 1, 2, depth * 2, 3, 2, depth)
        out = (height - kernel[0]) // stride + 1, (width - kernel[1]) // stride + 1
        fields = matrix(out[0] * out[1], 3, vectors, 2, 2, group, lanes=config.nbout_lanes, a=1, w=2) | {
            "a_row": width * pixel,
            "a_col": pixel,
            "w_row": depth * 2,
            "out_width": out[1],
            "stride": stride,
            "kernel_rows": kernel[0],
            "kernel_cols": kernel[1],
        }
        await product(dut, machine, fields, conv=True)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def bench_a_line_every_cycle(dut):
    """Once the first tile is loaded the array takes a line every cycle, through passes and tiles."""
    config, rng = await begin(dut)
    for slot, group, rows in ((2, 2, 24), (1, 4, 40), (2, 1, 24), (4, 1, 16)):
        vectors, cols = 4, 2 * config.rows
        machine = machine_with_vectors(config, rng)
        row_lines = vectors * slot
        if max(rows, cols) * row_lines > LINES or rows * cols > WORDS:
            continue
        fill(machine, rng, 0, 0, row_lines, rows, slot, vectors)
        fill(machine, rng, 1, 0, row_lines, cols, slot, vectors)
        fields = matrix(rows, cols, vectors, slot, slot, group, lanes=config.nbout_lanes)
        _, buffers = await product(dut, machine, fields)
        used = np.array(buffers.used)
        busy = used[np.flatnonzero(used)[0] : np.flatnonzero(used)[-1] + 1]
        assert busy.sum() == rows * vectors * slot * slot * cols // config.rows and busy.all()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_stops_on_bad_operands(dut):
    """Each error from each side, at the first line and later; the next product is right."""
    config, rng = await begin(dut)
    good = matrix(3, 10, 2, 2, 2, 2, lanes=config.nbout_lanes)
    for side, place in ((0, "a"), (1, "w")):
        for error, code in ERRORS.items():
            for vector in (1, 0) if error != "tag_mismatch" else (1,):
                machine = machine_with_vectors(config, rng)
                fill(machine, rng, 0, 0, 4, 3, 2, 2, e=1)
                fill(machine, rng, 1, 0, 4, 10, 2, 2, e=2)
                fields = dict(good)
                broken = 4 * 2 + 2 * vector
                if error == "out_of_range":
                    machine.buffers[side].tags[:] = [Tag(1, 8)] * LINES
                    fields[f"{place}_row"] = LINES - 2 * vector
                elif error == "no_tag":
                    machine.buffers[side].tags[broken + 1] = None
                else:
                    machine.buffers[side].tags[broken] = Tag(7, 8)
                buffers = Buffers(dut, machine)
                around = cocotb.start_soon(buffers.run())
                await run(dut, PLAIN | fields)
                assert int(dut.error.value) == code, f"{error} of {place}: {int(dut.error.value)}"
                writes = buffers.writes
                for _ in range(40):
                    await RisingEdge(dut.clk)
                assert buffers.writes == writes and int(dut.error.value) == code
                around.cancel()
                machine = machine_with_vectors(config, rng)
                fill(machine, rng, 0, 0, 4, 3, 2, 2, e=1)
                fill(machine, rng, 1, 0, 4, 10, 2, 2, e=2)
                await product(dut, machine, good)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_up_to_the_last_line_of_a_buffer(dut):
    """And one beyond, from each side."""
    config, rng = await begin(dut)
    good = matrix(3, 10, 2, 2, 2, 2, lanes=config.nbout_lanes)
    for place, lines in (("a", 3 * 4), ("w", 10 * 4)):
        for beyond in (0, 1):
            machine = machine_with_vectors(config, rng)
            for buffer in machine.buffers:
                buffer.tags[:] = [Tag(1, 8)] * LINES
            fields = good | {place: LINES - lines + beyond}
            if not beyond:
                await product(dut, machine, fields)
                continue
            buffers = Buffers(dut, machine)
            around = cocotb.start_soon(buffers.run())
            await run(dut, PLAIN | fields)
            assert int(dut.error.value) == ERRORS["out_of_range"], f"{place}: {int(dut.error.value)}"
            around.cancel()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    config, rng = await begin(dut)
    machine = machine_with_vectors(config, rng)
    fill(machine, rng, 0, 0, 4, 6, 2, 2)
    fill(machine, rng, 1, 0, 4, 10, 2, 2)
    fields = matrix(6, 10, 2, 2, 2, 1, lanes=config.nbout_lanes)
    for cycles in (1, 7, 25, 40, 61, 75):
        buffers = Buffers(dut, machine)
        around = cocotb.start_soon(buffers.run())
        dut.job.value = join(MatrixJob, PLAIN | fields | {"dest_row": fields["dest_row"] // config.nbout_lanes})
        dut.start.value = 1
        await RisingEdge(dut.clk)
        dut.start.value = 0
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        around.cancel()
        await bench.reset(dut, cycles=16)
        await product(dut, machine, fields)


@pytest.mark.parametrize("shape", list(CONFIGS), ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_matrix_unit(shape):
    from nibblecore.hdl.cambriconq.matrix.matrix_unit import MatrixUnit

    rows, cols = shape
    bench.run(MatrixUnit(rows, cols, LINES, LINES, WORDS), __file__, "matrix_unit", parameters={"shape": shape})
