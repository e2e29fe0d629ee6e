"""Vector instructions on several elements at a time."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.nbout import row_bits
from nibblecore.hdl.cambriconq.movers.gather import Gather
from nibblecore.hdl.cambriconq.movers.scatter import Scatter
from nibblecore.hdl.cambriconq.program.isa import Unary
from nibblecore.hdl.cambriconq.program.job import Place, Shape

from .sfu import ROWS, Element, Operation, Sfu
from .vector_job import VectorJob

__all__ = ["VectorLanes", "read_in_turn"]

_MINUS_ZERO = 0x80000000


def read_in_turn(m: Module, port: Any, a: Gather, b: Gather) -> None:
    """Two gathers share ``read_enable``, ``read_row`` and ``read_data`` of a unit, in turn while both want them."""
    turn = Signal()
    granted_b = Signal()
    m.d.comb += [
        granted_b.eq(b.read.valid & (turn | ~a.read.valid)),
        a.read.ready.eq(~granted_b),
        b.read.ready.eq(granted_b),
        port.read_enable.eq(a.read.valid | b.read.valid),
        port.read_row.eq(Mux(granted_b, b.read.payload, a.read.payload)),
        a.read_data.eq(port.read_data),
        b.read_data.eq(port.read_data),
    ]
    with m.If(port.read_enable):
        m.d.sync += turn.eq(~granted_b)


class VectorLanes(wiring.Component):
    """What `VectorUnit` does, for jobs whose elements lie in groups of neighbours: a lane, an SFU without functions, for each of a group.

    It takes a job, and says so, if the results are rows of groups (`Place.wide`), and each operand is, or has one element for a whole row;
    of functions COPY and ReLU. Reductions if the rows' first elements are neighbours that begin a group, the columns lie whole groups apart,
    and the results are neighbours that begin a group: rows then go side by side in the lanes.

    Latency: as of `VectorUnit`. Throughput: a group a cycle; with two operands a group in as many cycles as rows of NBout are read for it,
    since they share the port; reductions a group a cycle where `ROWS` groups of rows are left, else one every `Sfu.LOOP` cycles of each.

    Parameters
    ----------
    words, lanes : int
        Of NBout.
    group : int
        Elements taken together: a power of two, 2..lanes. ValueError otherwise.

    Members
    -------
    job : In(VectorJob)
        Constant from ``start`` until ``done``.
    takes : Out(1)
        Whether it can do ``job``: start it only then.
    start : In(1)
        Not from one start until its ``done``.
    done : Out(1)
        One cycle: all results can be read.
    read_enable : Out(1)
    read_row : Out(log2(words / lanes))
    read_data : In(32 * lanes)
    write_enable : Out(lanes)
    write_row : Out(log2(words / lanes))
    write_data : Out(32 * lanes)
        To and from `Nbout`; neither read nor write may be refused.
    """

    def __init__(self, words: int, lanes: int, group: int) -> None:
        if not 2 <= group <= lanes or group & (group - 1):
            raise ValueError(f"a group must be a power of two from 2 to {lanes} elements, not {group}")
        bits = row_bits(words, lanes)
        self.words, self.lanes, self.group = words, lanes, group
        super().__init__(
            {
                "job": In(VectorJob),
                "takes": Out(1),
                "start": In(1),
                "done": Out(1),
                "read_enable": Out(1),
                "read_row": Out(bits),
                "read_data": In(32 * lanes),
                "write_enable": Out(lanes),
                "write_row": Out(bits),
                "write_data": Out(32 * lanes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job, group = self.job, self.group
        address_bits = (self.words - 1).bit_length()
        m.submodules.a = a = Gather(self.lanes, address_bits, group, ROWS)
        m.submodules.b = b = Gather(self.lanes, address_bits, group)
        m.submodules.dest = dest = Scatter(self.lanes, address_bits, group)
        m.d.comb += self.takes.eq(self._takes())
        binary = Signal()
        m.d.comb += [
            binary.eq((job.operation != Operation.FUNCTION) & ~job.horizontal & ~job.immediate),
            a.start.eq(self.start),
            a.together.eq(job.horizontal),
            b.start.eq(self.start & binary),
            dest.start.eq(self.start),
            dest.wide.eq(1),
            dest.place.eq(job.dest),
            dest.shape.eq(job.size),
            self.done.eq(dest.done),
            self.write_enable.eq(dest.write_enable),
            self.write_row.eq(dest.write_row),
            self.write_data.eq(dest.write_data),
        ]
        with m.If(job.horizontal):
            # Results, one for each row, are one row of the destination.
            m.d.comb += [dest.place.col.eq(1), dest.shape.rows.eq(~job.size.empty), dest.shape.cols.eq(job.size.rows)]
        self._walk(m, job.a, a.shape, a.place, horizontal=job.horizontal)
        self._walk(m, job.b, b.shape, b.place)
        read_in_turn(m, self, a, b)
        self._compute(m, a, b, binary, dest)
        return m

    def _takes(self) -> Value:
        """From the job alone, so that it is known before the start."""
        job, group = self.job, self.group
        below = group.bit_length() - 1

        def begins(number: Value) -> Value:
            return number[:below] == 0

        def along(place: Place) -> Value:
            return (place.col == 0) | place.wide(job.size, group, 1)

        done_here = (job.operation != Operation.FUNCTION) | (job.function == int(Unary.COPY)) | (job.function == int(Unary.RELU))
        unary = (job.operation == Operation.FUNCTION) | job.immediate
        elements = job.dest.wide(job.size, group, 1) & along(job.a) & (unary | along(job.b))
        columns = (job.a.row == 1) & begins(job.a.at) & (begins(job.a.col) | (job.size.cols == 1))
        rows = columns & (job.dest.row == 1) & begins(job.dest.at)
        return done_here & Mux(job.horizontal, rows, elements)

    def _walk(self, m: Module, place: Place, shape: Shape, steps: Place, horizontal: Value | int = 0) -> None:
        """From group to group: along rows, or where rows are neighbours from some rows to the next."""
        below, size = self.group.bit_length() - 1, self.job.size

        def groups(count: Value) -> Value:
            return (count + (self.group - 1)) >> below

        m.d.comb += [
            steps.at.eq(place.at),
            steps.row.eq(Mux(horizontal, self.group, place.row)),
            steps.col.eq(Mux(horizontal | (place.col == 0), place.col, self.group)),
            shape.rows.eq(Mux(horizontal, groups(size.rows), size.rows)),
            shape.cols.eq(Mux(horizontal, size.cols, groups(size.cols))),
        ]

    def _compute(self, m: Module, a: Gather, b: Gather, binary: Value, dest: Scatter) -> None:
        """The lanes in step: all take and give in the same cycles."""
        job = self.job
        element = Signal(Element)
        offered = Signal()
        ready = Signal()
        given = Signal()
        m.d.comb += [
            offered.eq(a.o.valid & (b.o.valid | ~binary)),
            a.o.ready.eq(offered & ready),
            b.o.ready.eq(offered & ready & binary),
            element.operation.eq(job.operation),
            element.horizontal.eq(job.horizontal),
            element.row.eq(a.o.payload.row),
            element.first.eq(a.o.payload.first_of_row),
            element.last.eq(a.o.payload.last_of_row),
            element.b.eq(job.value),
            dest.i.valid.eq(given),
            dest.i.payload.mask.eq(-1),
        ]
        # COPY is a sum with −0, which makes a NaN the quiet one, and ReLU the greater of x and 0.
        with m.If(job.operation == Operation.FUNCTION):
            relu = job.function == int(Unary.RELU)
            m.d.comb += [element.operation.eq(Mux(relu, Operation.MAX, Operation.ADD)), element.b.eq(Mux(relu, 0, _MINUS_ZERO))]
        results = []
        for number in range(self.group):
            m.submodules[f"lane{number}"] = lane = Sfu(functions=False)
            operands = [
                Mux(place.col == 0, gather.o.payload.words[:32], gather.o.payload.words.word_select(number, 32))
                for place, gather in ((job.a, a), (job.b, b))
            ]
            m.d.comb += [
                lane.i.valid.eq(offered),
                lane.i.payload.eq(element),
                lane.i.payload.a.eq(Mux(job.horizontal, a.o.payload.words.word_select(number, 32), operands[0])),
                lane.o.ready.eq(dest.i.ready),
            ]
            with m.If(binary):
                m.d.comb += lane.i.payload.b.eq(operands[1])
            results.append(lane.o.payload)
            if number == 0:
                m.d.comb += [ready.eq(lane.i.ready), given.eq(lane.o.valid)]
        m.d.comb += dest.i.payload.words.eq(Cat(results))
