"""Vector instructions: operands from NBout through the SFU and back."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.nbout import row_bits
from nibblecore.hdl.cambriconq.movers.gather import Gather
from nibblecore.hdl.cambriconq.movers.scatter import Scatter

from .sfu import ROWS, Operation, Sfu
from .vector_job import VectorJob
from .vector_lanes import VectorLanes, read_in_turn

__all__ = ["VectorUnit"]

_PORT = ("read_enable", "read_row", "write_enable", "write_row")


class VectorUnit(wiring.Component):
    """Gathers a and b, computes, scatters the results; what `VectorLanes` takes, several elements at a time.

    An element is read before the result of the one `Sfu.FUNCTION_LATENCY` places ahead is written at the latest: dest may be a or b
    themselves, element by element, of reductions the rows' first elements, but must not overlap them otherwise. The functional
    model reads everything first.

    Latency: the first row of NBout is asked for the cycle after ``start``; the first element meets the SFU 3 cycles after ``start``, 4 with
    two operands. Its result is written `Sfu.LATENCY` = 6 cycles later, of functions `Sfu.FUNCTION_LATENCY` = 15, that of a reduction as
    long after the last element of its row. ``done`` the cycle after the last result is written.
    Throughput: of those that are taken one by one an element a cycle; with two operands one in as many cycles as they read rows for it, since
    they share NBout's read port: two where both jump from row to row, (lanes + 1) / lanes along rows; reductions an element a cycle
    where `ROWS` rows are left, which go side by side, else one every `Sfu.LOOP` cycles of each row.

    Parameters
    ----------
    words, lanes : int
        Of NBout.
    group : int
        Elements that are taken together where they lie so: a power of two up to ``lanes``, 1 for none.

    Members
    -------
    job : In(VectorJob)
        Constant from ``start`` until ``done``.
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

    def __init__(self, words: int, lanes: int, group: int = 1) -> None:
        bits = row_bits(words, lanes)
        self.words, self.lanes, self.group = words, lanes, group
        super().__init__(
            {
                "job": In(VectorJob),
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
        m.submodules.single = single = _OneByOne(self.words, self.lanes)
        word = single.write_word.replicate(self.lanes)
        m.d.comb += [single.job.eq(self.job), single.start.eq(self.start), single.read_data.eq(self.read_data)]
        if self.group == 1:
            m.d.comb += [getattr(self, name).eq(getattr(single, name)) for name in ("done", *_PORT)]
            m.d.comb += self.write_data.eq(word)
            return m
        m.submodules.lanes = lanes = VectorLanes(self.words, self.lanes, self.group)
        m.d.comb += [
            single.start.eq(self.start & ~lanes.takes),
            lanes.job.eq(self.job),
            lanes.start.eq(self.start & lanes.takes),
            lanes.read_data.eq(self.read_data),
            self.done.eq(lanes.done | single.done),
            self.write_data.eq(Mux(lanes.takes, lanes.write_data, word)),
            *(getattr(self, name).eq(Mux(lanes.takes, getattr(lanes, name), getattr(single, name))) for name in _PORT),
        ]
        return m


class _OneByOne(wiring.Component):
    """Any job, an element at a time.

    Latency: as of `VectorUnit`. Throughput: the same, where nothing is taken together.

    Parameters
    ----------
    words, lanes : int
        Of NBout.

    Members
    -------
    job : In(VectorJob)
    start : In(1)
    done : Out(1)
    read_enable : Out(1)
    read_row : Out(log2(words / lanes))
    read_data : In(32 * lanes)
    write_enable : Out(lanes)
    write_row : Out(log2(words / lanes))
        As of `VectorUnit`.
    write_word : Out(32)
        For every lane that is enabled.
    """

    def __init__(self, words: int, lanes: int) -> None:
        bits = row_bits(words, lanes)
        self.words, self.lanes = words, lanes
        super().__init__(
            {
                "job": In(VectorJob),
                "start": In(1),
                "done": Out(1),
                "read_enable": Out(1),
                "read_row": Out(bits),
                "read_data": In(32 * lanes),
                "write_enable": Out(lanes),
                "write_row": Out(bits),
                "write_word": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job = self.job
        address_bits = (self.words - 1).bit_length()
        m.submodules.a = a = Gather(self.lanes, address_bits, rows=ROWS)
        m.submodules.b = b = Gather(self.lanes, address_bits)
        m.submodules.sfu = sfu = Sfu()
        m.submodules.dest = dest = Scatter(self.lanes, address_bits)
        binary = Signal()
        m.d.comb += [
            binary.eq((job.operation != Operation.FUNCTION) & ~job.horizontal & ~job.immediate),
            a.start.eq(self.start),
            a.shape.eq(job.size),
            a.place.eq(job.a),
            b.start.eq(self.start & binary),
            b.shape.eq(job.size),
            b.place.eq(job.b),
            dest.start.eq(self.start),
            dest.shape.rows.eq(job.size.rows),
            dest.shape.cols.eq(Mux(job.horizontal, 1, job.size.cols)),
            dest.place.eq(job.dest),
            self.done.eq(dest.done),
            self.write_enable.eq(dest.write_enable),
            self.write_row.eq(dest.write_row),
            self.write_word.eq(dest.write_data[:32]),
        ]
        read_in_turn(m, self, a, b)

        element = sfu.i.payload
        taken = Signal()
        m.d.comb += [
            sfu.i.valid.eq(a.o.valid & (b.o.valid | ~binary)),
            taken.eq(sfu.i.valid & sfu.i.ready),
            a.o.ready.eq(taken),
            b.o.ready.eq(taken & binary),
            element.operation.eq(job.operation),
            element.function.eq(job.function),
            element.horizontal.eq(job.horizontal),
            a.together.eq(job.horizontal),
            element.row.eq(a.o.payload.row),
            element.first.eq(a.o.payload.first_of_row),
            element.last.eq(a.o.payload.last_of_row),
            element.a.eq(a.o.payload.words),
            element.b.eq(Mux(job.immediate, job.value, b.o.payload.words)),
        ]
        m.d.comb += [
            dest.i.payload.words.eq(sfu.o.payload),
            dest.i.payload.mask.eq(1),
            dest.i.valid.eq(sfu.o.valid),
            sfu.o.ready.eq(dest.i.ready),
        ]
        return m
