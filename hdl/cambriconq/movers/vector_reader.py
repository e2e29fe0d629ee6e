"""Reads tagged vectors out of a buffer, line by line: the buffer side of VSTORE."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.qbc import line_read
from nibblecore.hdl.cambriconq.buffers.tag import Tag
from nibblecore.hdl.cambriconq.quantize.quantize_unit import line_layout

__all__ = ["VectorReader"]

_DEPTH = 3
"""Lines under way: one in the buffer's read cycle, one on offer, one whose place is free again but not yet known to be."""


class VectorReader(wiring.Component):
    """Slots of a tagged buffer as a stream of lines, once it is known that every slot holds a vector.

    All lines are read first and looked at: one that no vector wrote, or whose tag is not that of its slot's first, ends it with ``no_tag``
    before any line is delivered. Then they are read again; a line is requested once there is room for it. No output depends
    on ``o``'s ready within a cycle.

    Latency: the first read the cycle after ``start``, the first of n lines on offer n + 4 cycles after it.
    Throughput: a line a cycle in either pass.

    Parameters
    ----------
    cols : int
        M.
    lines : int
        Lines of the buffer, a power of two.

    Members
    -------
    start : In(1)
        Not from one start until its ``done``.
    vectors : In(16)
        At least 1.
    slot : In(3)
        Lines of a vector, 1..4.
    at : In(log2(lines))
        First line; the last is still in the buffer. All constant from ``start`` until ``done``.
    done : Out(1)
        One cycle: the cycle after the last line was taken, or after a line that is wrong was seen.
    no_tag : Out(1)
        With ``done``: some slot holds no vector; no line was delivered.
    port : In(line_read(cols, log2(lines)))
        To the buffer.
    o : Out(stream of `line_layout`)
    """

    def __init__(self, cols: int, lines: int) -> None:
        self.cols, self.lines = cols, lines
        self.address_bits = (lines - 1).bit_length()
        super().__init__(
            {
                "start": In(1),
                "vectors": In(16),
                "slot": In(3),
                "at": In(self.address_bits),
                "done": Out(1),
                "no_tag": Out(1),
                "port": In(line_read(cols, self.address_bits)),
                "o": Out(stream.Signature(line_layout(cols))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port, o = self.port, self.o
        address = Signal(self.address_bits)
        plane = Signal(2)
        left = Signal(16)
        last_plane = Signal()
        reads = Signal()
        rewind = Signal()
        m.d.comb += [port.enable.eq(reads), port.address.eq(address), last_plane.eq(plane == self.slot - 1)]
        with m.If(reads):
            m.d.sync += [address.eq(address + 1), plane.eq(Mux(last_plane, 0, plane + 1)), left.eq(left - last_plane)]
        with m.If(rewind):
            m.d.sync += [address.eq(self.at), plane.eq(0), left.eq(self.vectors)]

        # What the port shows in this cycle.
        arrived, begins, last_of_vector, last = (Signal(name=name) for name in ("arrived", "begins", "last_of_vector", "last"))
        # of the slot's lines before
        tag = Signal(Tag)
        wrong = Signal()
        m.d.sync += [arrived.eq(reads), begins.eq(plane == 0), last_of_vector.eq(last_plane), last.eq(last_plane & (left == 1))]
        m.d.comb += wrong.eq(arrived & (~port.written | (~begins & (port.tag.as_value() != tag.as_value()))))
        with m.If(arrived):
            m.d.sync += tag.eq(port.tag)

        m.submodules.lines = lines = SyncFIFO(width=o.payload.shape().size, depth=_DEPTH)
        room = Signal(range(_DEPTH + 1), init=_DEPTH)
        delivers = Signal()
        taken = Signal()
        m.d.comb += [
            lines.w_en.eq(arrived & delivers),
            lines.w_data.eq(Cat(port.line, port.tag, last_of_vector, last)),
            o.valid.eq(lines.r_rdy),
            o.payload.eq(lines.r_data),
            lines.r_en.eq(o.ready),
            taken.eq(o.valid & o.ready),
        ]
        m.d.sync += [room.eq(room - (reads & delivers) + taken), self.done.eq(0)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += rewind.eq(1)
                with m.If(self.start):
                    m.d.sync += self.no_tag.eq(0)
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += reads.eq(left != 0)
                with m.If(wrong):
                    m.d.sync += [self.done.eq(1), self.no_tag.eq(1)]
                    m.next = "IDLE"
                with m.Elif(arrived & last):
                    m.d.comb += rewind.eq(1)
                    m.next = "DELIVER"
            with m.State("DELIVER"):
                m.d.comb += [delivers.eq(1), reads.eq((left != 0) & (room != 0))]
                with m.If(taken & o.payload.last):
                    m.d.sync += self.done.eq(1)
                    m.next = "IDLE"
        return m
