import random
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import bench
import cocotb
import numpy as np
import pytest
from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from cocotb.triggers import ReadOnly, RisingEdge
from nibblecore.hdl.cambriconq.buffers.qbc import Qbc, line_layout
from nibblecore.hdl.cambriconq.buffers.tag import Tag as TagStruct
from nibblecore.hdl.cambriconq.movers.vector_turner import VectorTurner
from nibblecore.sim.golden.cambriconq.buffers.qbc import Qbc as GoldenQbc
from nibblecore.sim.golden.cambriconq.buffers.tag import Tag
from nibblecore.sim.golden.cambriconq.machine import Buffer, _Stop
from nibblecore.sim.golden.cambriconq.movers.vector_turner import LEAST_EXPONENT, turned
from places import now
from structs import join

LINES = 128
GATES = ("line", "element", "clean", "port")


class Job(NamedTuple):
    rows: int
    cols: int
    slot: int
    src: int
    src_row: int
    dest: int
    dest_row: int


class TurnerAndBuffers(wiring.Component):
    """The block between two QBCs, or with both its sides at one. What its port shows is spoilt where nothing was read. Each of `gates`
    holds a stream up while it is low; the last has other reads then, in cycles in which the block reads nothing.
    """

    def __init__(self, cols, buffers):
        self.columns, self.buffers = cols, buffers
        at = In(range(LINES))
        super().__init__(
            {
                "start": In(1),
                "rows": In(16),
                "cols": In(16),
                "slot": In(3),
                "src": at,
                "src_row": at,
                "dest": at,
                "dest_row": at,
                "done": Out(1),
                "no_tag": Out(1),
                "flush": Out(1),
                "clean": Out(1),
                "gates": In(len(GATES)),
                "write": In(stream.Signature(line_layout(LINES, cols))),
                "side": In(1),
                "read_line": In(range(LINES)),
                "read_data": Out(4 * cols),
                "read_tag": Out(TagStruct),
                "read_valid": Out(1),
                "errors": Out(6),
                "reads": Out(1),
                "address": Out(range(LINES)),
                **{f"{name}_{part}": Out(1) for name in ("line", "element") for part in ("valid", "ready")},
                "line_payload": Out(line_layout(LINES, cols)),
                "element_payload": Out(len(VectorTurner(cols, LINES).element.payload.as_value())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.turner = turner = VectorTurner(self.columns, LINES)
        qbcs = [Qbc(LINES, self.columns) for _ in range(self.buffers)]
        for number, qbc in enumerate(qbcs):
            m.submodules[f"qbc{number}"] = qbc
        source, target = qbcs[0], qbcs[-1]
        port, shown, write = turner.port, Signal(), self.write
        m.d.sync += shown.eq(port.enable)
        m.d.comb += [
            *(getattr(turner, name).eq(getattr(self, name)) for name in ("start", *Job._fields)),
            *(getattr(self, name).eq(getattr(turner, name)) for name in ("done", "no_tag", "flush")),
            self.clean.eq(target.clean),
            turner.clean.eq(target.clean & self.gates[2]),
            target.flush.eq(turner.flush),
            self.reads.eq(port.enable),
            self.address.eq(port.address),
            port.line.eq(Mux(shown, source.read_data, ~source.read_data)),
            port.written.eq(Mux(shown, source.read_valid, ~source.read_valid)),
            port.tag.eq(Mux(shown, source.read_tag.as_value(), ~source.read_tag.as_value())),
            self.line_payload.eq(turner.line.payload),
            self.element_payload.eq(turner.element.payload),
            target.element.valid.eq(turner.element.valid & self.gates[1]),
            turner.element.ready.eq(target.element.ready & self.gates[1]),
            *(qbc.element.payload.eq(turner.element.payload) for qbc in qbcs),
            self.element_valid.eq(turner.element.valid),
            self.element_ready.eq(turner.element.ready),
            self.line_valid.eq(turner.line.valid),
            self.line_ready.eq(turner.line.ready),
        ]
        # Lines of the bench to either buffer go before those of the block.
        for number, qbc in enumerate(qbcs):
            mine, turns = Signal(name=f"mine{number}"), Signal(name=f"turns{number}")
            m.d.comb += [
                mine.eq(write.valid & (self.side == number)),
                turns.eq(turner.line.valid & self.gates[0] & ~mine),
                qbc.write.valid.eq(mine | (turns if qbc is target else 0)),
                qbc.write.payload.eq(Mux(mine, write.payload, turner.line.payload)),
                self.errors[3 * number :][:3].eq(qbc.errors),
                qbc.read_enable.eq((qbc is source) & port.enable | (self.side == number) & ~self.gates[3]),
                qbc.read_line.eq(Mux((qbc is source) & port.enable, port.address, self.read_line)),
            ]
            with m.If(self.side == number):
                m.d.comb += [
                    write.ready.eq(qbc.write.ready),
                    self.read_data.eq(qbc.read_data),
                    self.read_tag.eq(qbc.read_tag),
                    self.read_valid.eq(qbc.read_valid),
                ]
            if qbc is target:
                m.d.comb += turner.line.ready.eq(qbc.write.ready & turns)
        return m


class Bench:
    """Contents of the buffers, as they must be, in `sides`: the source's and the destination's, perhaps the same."""

    def __init__(self, dut):
        self.dut, p = dut, bench.parameters()
        self.cols, self.buffers = p["cols"], p["buffers"]
        self.layout = line_layout(LINES, self.cols)
        self.rng = random.Random(random.getrandbits(32))
        self.quiet()

    def quiet(self):
        for name in ("start", *Job._fields, "write__valid", "write__payload", "side", "read_line", "gates"):
            getattr(self.dut, name).value = 0
        contents = [Buffer.of(LINES, self.cols) for _ in range(self.buffers)]
        self.sides = [contents[0], contents[-1]]

    async def write(self, side, line, nibbles, tag):
        """A line, taken after the sweep at the latest."""
        d = self.dut
        d.write__valid.value, d.side.value = 1, side if self.buffers == 2 else 0
        payload = {"line": line, "tag": tag.pack(), "data": bench.pack(nibbles, 4)}
        d.write__payload.value = join(self.layout, payload)
        while True:
            await ReadOnly()
            taken = bool(d.write__ready.value)
            await RisingEdge(d.clk)
            if taken:
                break
        d.write__valid.value = 0
        self.sides[side].lines[line], self.sides[side].tags[line] = nibbles, tag

    def places(self, job):
        """Where the source's vectors begin, row by row, and the lines of the destination."""
        source = [[job.src + i * job.src_row + v * job.slot for v in range(-(-job.cols // self.cols))] for i in range(job.rows)]
        new = [job.dest + j * job.dest_row + line for j in range(job.cols) for line in range(-(-job.rows // self.cols) * job.slot)]
        return source, new

    async def fill(self, job, spread, wrong=None):
        """The vectors of the source, junk in some lines of the destination and beside. `wrong` is what one line of the source has."""
        rng, (source, new) = self.rng, self.places(job)
        starts = sorted({line for row in source for line in row})
        inside = {line + plane for line in starts for plane in range(job.slot)}
        victim = rng.choice((min(inside), max(inside), rng.choice(sorted(inside)))) if wrong else None
        for side in (0, 1)[: self.buffers]:
            for line in rng.sample(range(LINES), LINES // 3) + [line for line in new if rng.random() < 0.5]:
                if side != 0 or line not in inside:
                    await self.write(side, line, [rng.randrange(16) for _ in range(self.cols)], random_tag(rng, 200, 4))
        base = rng.randint(-128, 127 - spread)
        for line in starts:
            tag = random_tag(rng, spread, job.slot, base)
            least = 4 * job.slot if rng.random() < 0.7 else 4 * rng.randint(1, job.slot)
            values = [
                rng.choice((rng.randrange(1 << least) - (1 << least - 1), 1 - (1 << least - 1), -1 << least - 1, 0))
                for _ in range(self.cols)
            ]
            for plane in range(job.slot):
                is_wrong = line + plane == victim
                if is_wrong and wrong == "none":
                    continue
                flipped = Tag.unpack(tag.pack() ^ 1 << rng.randrange(10)) if is_wrong else tag
                await self.write(0, line + plane, [value >> 4 * plane & 15 for value in values], flipped)

    async def clear(self):
        self.quiet()
        await bench.reset(self.dut)

    async def begin(self, job):
        for name, value in zip(Job._fields, job, strict=True):
            getattr(self.dut, name).value = value
        self.dut.start.value = 1
        await RisingEdge(self.dut.clk)
        self.dut.start.value = 0

    async def run(self, job, patterns):
        """Until `done`; then all lines of both buffers are as they must be. Cycles to `done`; elements and new vectors."""
        d, (source, _) = self.dut, self.places(job)
        readable = {line + plane for row in source for line in row for plane in range(job.slot)}
        try:
            vectors = turned(self.sides[0], job.rows, job.cols, job.slot, job.src, job.src_row, self.cols)
        except _Stop:
            vectors = None
        for j, row in enumerate(vectors or []):
            for u, (values, tag) in enumerate(row):
                self.sides[1].store(job.dest + j * job.dest_row + u * job.slot, values, tag, job.slot)
        await self.begin(job)
        begun = self.begun = now()
        done: list[int] = []
        self.moved: dict[str, list[int]] = {"line": [], "element": []}
        waiting = dict.fromkeys(self.moved)
        while not done or now() < done[0] + 3:
            d.gates.value = sum(int(next(pattern)) << place for place, pattern in enumerate(patterns))
            await ReadOnly()
            assert not d.reads.value or int(d.address.value) in readable, job
            for name, moved in self.moved.items():
                valid, payload = bool(getattr(d, f"{name}_valid").value), int(getattr(d, f"{name}_payload").value)
                assert waiting[name] in (None, (valid, payload)), f"{name}: withdrawn or changed before it was taken"
                moves = valid and bool(getattr(d, f"{name}_ready").value)
                moved += [now()] * moves
                waiting[name] = (valid, payload) if valid and not moves else None
            if d.done.value:
                done.append(now())
                assert bool(d.no_tag.value) == (vectors is None), job
                assert vectors is None or d.clean.value
            assert now() < begun + 3000 + 60 * job.rows * job.cols * job.slot, f"{job} does not end"
            await RisingEdge(d.clk)
        assert len(done) == 1 and not int(d.errors.value), job
        elements = job.rows * job.cols if vectors else 0
        lines = sum(len(row) for row in vectors or []) * job.slot
        assert (len(self.moved["element"]), len(self.moved["line"])) == (elements, lines), job
        await self.check(job)
        return done[0] - begun

    async def check(self, job):
        d = self.dut
        d.gates.value = 0
        for side in (0, 1)[: self.buffers]:
            d.side.value = side
            for line in range(LINES + 1):
                d.read_line.value = min(line, LINES - 1)
                await ReadOnly()
                if line:
                    self.check_line(job, side, line - 1)
                await RisingEdge(d.clk)

    def check_line(self, job, side, line):
        d, wanted = self.dut, self.sides[side]
        tag = wanted.tags[line]
        assert bool(d.read_valid.value) == (tag is not None), f"{job}: side {side}, line {line}, should have {tag}"
        if tag is not None:
            found = Tag.unpack(int(d.read_tag.value)), bench.unpack(int(d.read_data.value), 4, self.cols)
            assert found == (tag, wanted.lines[line].tolist()), f"{job}: side {side}, line {line}: {found}, should have {tag}"


def random_tag(rng, spread, slot, base=-100):
    return Tag(min(base + rng.randint(0, spread), 127), 4 * rng.randint(1, slot))


def jobs(rng, cols, buffers, count, least=1):
    """Shapes of one value, of whole vectors and of any size, close together and spread, to both ends of the buffers."""
    found = 0
    while found < count:
        slot = rng.randint(1, 4)
        rows, across = (rng.choice((least, cols, cols + 1, 2 * cols, rng.randint(least, 3 * cols))) for _ in range(2))
        src_size, dest_size = -(-across // cols) * slot, -(-rows // cols) * slot
        src_row = rng.choice((src_size, src_size, src_size + rng.randint(0, 5), slot * rng.randint(0, 3)))
        dest_row = rng.choice((dest_size, dest_size, dest_size + rng.randint(0, 5), rng.randint(0, 3)))
        src_extent, dest_extent = src_size + (rows - 1) * src_row, dest_size + (across - 1) * dest_row
        if max(src_extent, dest_extent) > LINES:
            continue
        if buffers == 2:
            src, dest = (rng.choice((0, LINES - extent, rng.randint(0, LINES - extent))) for extent in (src_extent, dest_extent))
        elif src_extent + dest_extent > LINES:
            continue
        else:
            first = src_extent if rng.random() < 0.5 else dest_extent
            at, behind = 0, rng.randint(first, LINES - src_extent - dest_extent + first)
            src, dest = (at, behind) if first == src_extent else (behind, at)
        found += 1
        yield Job(rows, across, slot, src, src_row, dest, dest_row)


async def start(dut):
    b = Bench(dut)
    await bench.start(dut)
    return b


def always():
    return [bench.always() for _ in GATES]


@cocotb.test(timeout_time=50, timeout_unit="ms")
@cocotb.parametrize(spread=[0, 2, 20])
async def bench_matrices(dut, spread):
    """Tags all alike, a few steps apart, many; nothing held up but by the QBCs themselves."""
    b = await start(dut)
    for job in jobs(b.rng, b.cols, b.buffers, 14):
        await b.clear()
        await b.fill(job, spread)
        await b.run(job, always())


@cocotb.test(timeout_time=50, timeout_unit="ms")
@cocotb.parametrize(pattern=list(bench.PATTERNS))
async def bench_stalls(dut, pattern):
    b = await start(dut)
    for job in jobs(b.rng, b.cols, b.buffers, 6):
        await b.clear()
        await b.fill(job, 4)
        await b.run(job, [bench.PATTERNS[pattern](b.rng.getrandbits(32)) for _ in GATES])


@cocotb.test(timeout_time=50, timeout_unit="ms")
async def bench_not_a_vector(dut):
    """A line that was not written, or another bit of a tag, among the first, the last or any line; then a job that ends well."""
    b = await start(dut)
    for turn, job in enumerate(jobs(b.rng, b.cols, b.buffers, 30)):
        wrong = ("none", "tag")[turn % 2]
        await b.clear()
        await b.fill(job, 4, wrong if job.slot > 1 or wrong == "none" else None)
        await b.run(job, always())
        if turn % 5 == 0:
            await b.fill(job, 4)
            await b.run(job, always())


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_cycles(dut):
    """Slot cycles a value, and what a new vector takes beside."""
    b = await start(dut)
    for slot in (1, 2, 3, 4):
        for rows, dest_row in ((b.cols, slot), (b.cols, 8), (1, slot)):
            job = Job(rows, b.cols, slot, 0, slot, 64, dest_row)
            await b.clear()
            await b.fill(job, 0)
            cycles = await b.run(job, always())
            starts = b.moved["line"][::slot]
            beside = [later - earlier - slot * job.rows for earlier, later in pairwise(starts)]
            dut._log.info(
                f"{rows} rows, slot {slot}, dest_row {dest_row}: beside the values {beside} cycles, {b.begun + cycles - starts[-1]}"
            )
            assert starts[0] - b.begun == slot * job.rows + 1
            assert max(beside) <= (8 if rows > 1 else 2 * slot + 7)


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def bench_reset_in_the_middle(dut):
    b = await start(dut)
    for job in jobs(b.rng, b.cols, b.buffers, 12, least=b.cols):
        await b.clear()
        await b.fill(job, 3)
        dut.gates.value = 15
        await b.begin(job)
        for _ in range(b.rng.randint(1, 3 * job.rows * job.slot)):
            await RisingEdge(dut.clk)
        await b.clear()
        again = next(jobs(b.rng, b.cols, b.buffers, 1))
        await b.fill(again, 3)
        await b.run(again, always())


def build(cols, buffers):
    bench.run(
        TurnerAndBuffers(cols, buffers), __file__, f"vector_turner_{cols}_{buffers}", parameters={"cols": cols, "buffers": buffers}
    )


def test_from_one_buffer_to_another():
    build(8, 2)


def test_within_a_buffer():
    build(4, 1)


def random_matrix(rng, rows, cols, slot, columns, spread):
    """A buffer with a matrix of vectors at line 2, and its row distance."""
    across = -(-cols // columns)
    buffer = Buffer.of(2 + rows * across * slot, columns)
    for line in range(2, len(buffer.tags), slot):
        limit = 2 ** (4 * slot - 1) - 1
        values = np.array([rng.choice((limit, -limit, rng.randint(-limit, limit))) for _ in range(columns)])
        buffer.store(line, values, Tag(rng.randint(-3, -3 + spread), 4 * slot), slot)
    return buffer, across * slot


def shapes(rng, columns):
    for slot in (1, 2, 3, 4):
        for rows, cols in (
            (1, 1),
            (columns, columns),
            (columns + 1, 2),
            (3, 2 * columns + 3),
            (rng.randint(1, 30), rng.randint(1, 30)),
        ):
            yield rows, cols, slot


@pytest.mark.parametrize("columns", [4, 16])
def test_golden_transposes(columns):
    """With one tag the integers are those of the matrix; with several each is within a step of its value, unless it was clipped."""
    rng = random.Random(columns)
    for spread in (0, 3):
        for rows, cols, slot in shapes(rng, columns):
            buffer, row = random_matrix(rng, rows, cols, slot, columns, spread)
            found = turned(buffer, rows, cols, slot, 2, row, columns)
            assert len(found) == cols and all(len(vectors) == -(-rows // columns) for vectors in found)
            for j, vectors in enumerate(found):
                for i in range(len(vectors) * columns):
                    values, tag = vectors[i // columns]
                    assert tag.bits == 4 * slot
                    if i >= rows:
                        assert values[i % columns] == 0
                        continue
                    source, source_tag = buffer.vector(2 + i * row + j // columns * slot, slot)
                    if spread == 0:
                        assert values[i % columns] == source[j % columns] and tag == source_tag
                    assert tag.exponent >= source_tag.exponent
                    exact = int(source[j % columns]) * Fraction(2) ** (source_tag.exponent - tag.exponent)
                    assert abs(int(values[i % columns]) - exact) < 1


@pytest.mark.parametrize("columns", [4, 16])
def test_golden_is_elements_written_one_by_one(columns):
    rng = random.Random(columns)
    for rows, cols, slot in shapes(rng, columns):
        buffer, row = random_matrix(rng, rows, cols, slot, columns, 8)
        found = turned(buffer, rows, cols, slot, 2, row, columns)
        for j, vectors in enumerate(found):
            for u, (values, tag) in enumerate(vectors):
                qbc = GoldenQbc(4, columns)
                for plane in range(slot):
                    qbc.write(plane, [0] * columns, Tag(LEAST_EXPONENT, 4 * slot))
                for index, i in enumerate(range(u * columns, min(rows, (u + 1) * columns))):
                    source, source_tag = buffer.vector(2 + i * row + j // columns * slot, slot)
                    element = (index, Tag(source_tag.exponent, 4 * slot), int(source[j % columns]))
                    assert qbc.write_element(0, slot, *element) is None
                assert qbc.tags == [tag] * slot + [None] * (4 - slot)
                assert qbc.vector(0, tag).tolist() == values.tolist()


def test_golden_passes_errors_on():
    buffer, row = random_matrix(random.Random(1), 5, 5, 2, 4, 0)
    buffer.tags[9] = None
    with pytest.raises(_Stop):
        turned(buffer, 5, 5, 2, 2, row, 4)
