"""Writes tagged vectors to memory, line by line: the memory side of VSTORE and QSTORE."""

from amaranth import Cat, Const, Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout, write_layout
from nibblecore.hdl.cambriconq.quantize.quantize_unit import line_layout

from .vector_loader import TAG_BYTES, tag_layout

__all__ = ["VectorStorer"]


class VectorStorer(wiring.Component):
    """A stream of lines into memory, and the tags of their vectors beside them; between it and the bus is an `AxiWriter`.

    Each vector is written whole, its lines and then its tag, the two bytes of it and no other; so of places that overlap, lines or
    tags, the later stays: writes of one AXI ID reach a place in their order.

    A command is given once its vector is known to come: the first when a line is offered, the others when a vector ends that is not
    the last. So a ``start`` that no line follows counts for nothing and may be followed by another.

    Latency: the first command in the cycle in which a line is offered, the cycle after ``start`` at the earliest; a beat in the cycle in
    which its line is offered.
    Throughput: slot lines in slot + 1 cycles while the writer takes a beat a cycle.

    Parameters
    ----------
    cols : int
        M, a power of two, at least 8. A line is a beat of M/2 bytes.

    Members
    -------
    start : In(1)
        Not from when the first line is on offer until ``done``, unless the line waits for this start.
    slot : In(3)
        Lines of a vector, 1..4.
    at : In(32)
        Byte address of the lines, a multiple of a line's.
    tags : In(32)
        Byte address of the tags, 2 bytes a vector, even. All constant from ``start`` until ``done``.
    done : Out(1)
        One cycle: every write, up to that of the last vector's tag, has been answered.
    i : In(stream of `line_layout`)
        Whole vectors.
    command : Out(stream of `command_layout`)
        To the writer.
    data : Out(stream of `write_layout`)
        Beats are not to be taken before their command, which an `AxiWriter` never does.
    writer_idle : In(1)
        ``idle`` of the writer.
    """

    def __init__(self, cols: int) -> None:
        if cols < 8 or cols & (cols - 1):
            raise ValueError(f"cols must be a power of two, at least 8, not {cols}")
        self.cols = cols
        self.line_bytes = cols // 2
        super().__init__(
            {
                "start": In(1),
                "slot": In(3),
                "at": In(32),
                "tags": In(32),
                "done": Out(1),
                "i": In(stream.Signature(line_layout(cols))),
                "command": Out(stream.Signature(command_layout())),
                "data": Out(stream.Signature(write_layout(self.line_bytes))),
                "writer_idle": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line, beat, words = self.i.payload, self.data.payload, self.line_bytes // TAG_BYTES
        # for the first line; a vector ends, and another comes
        waits = Signal()
        follows = Signal()
        lane = Signal(range(words))
        word = Signal(tag_layout())
        last = Signal()
        self._ask(m, (waits & self.i.valid) | follows)
        m.d.sync += self.done.eq(0)
        with m.FSM(name="giving"):
            with m.State("IDLE"), m.If(self.start):
                m.next = "LINES"
            with m.State("LINES"):
                m.d.comb += [
                    self.data.valid.eq(self.i.valid),
                    self.i.ready.eq(self.data.ready),
                    beat.data.eq(line.line),
                    beat.strobe.eq(-1),
                ]
                with m.If(self.i.valid):
                    m.d.sync += waits.eq(0)
                with m.If(self.i.valid & self.i.ready & line.last_of_vector):
                    m.d.comb += follows.eq(~line.last)
                    m.d.sync += [word.tag.eq(line.tag), last.eq(line.last)]
                    m.next = "TAG"
            with m.State("TAG"):
                m.d.comb += [
                    self.data.valid.eq(1),
                    beat.data.eq(word.as_value().replicate(words)),
                    beat.strobe.word_select(lane, TAG_BYTES).eq(-1),
                ]
                with m.If(self.data.ready):
                    m.d.sync += lane.eq(lane + 1)
                    m.next = "LINES"
                    with m.If(last):
                        m.next = "ANSWERS"
            with m.State("ANSWERS"), m.If(self.writer_idle):
                m.d.sync += self.done.eq(1)
                m.next = "IDLE"
        with m.If(self.start):
            m.d.sync += [waits.eq(1), lane.eq(self.tags >> 1)]
        return m

    def _ask(self, m: Module, vector_comes: Value) -> None:
        """Commands: a vector's lines, its tag, the next one's lines, and so on."""
        beat_bits = self.line_bytes.bit_length() - 1
        tag_address = Signal(32)
        line_address = Signal(32)
        pending = Signal()
        due = Signal()
        command = self.command
        m.d.comb += due.eq(pending | vector_comes)
        m.d.sync += pending.eq(due)
        with m.FSM(name="asking"):
            with m.State("LINES"):
                m.d.comb += [command.valid.eq(due), command.payload.address.eq(line_address), command.payload.beats.eq(self.slot)]
                with m.If(due & command.ready):
                    m.d.sync += [pending.eq(0), line_address.eq(line_address + (self.slot << beat_bits))]
                    m.next = "TAG"
            with m.State("TAG"):
                m.d.comb += [
                    command.valid.eq(1),
                    command.payload.beats.eq(1),
                    command.payload.address.eq(Cat(Const(0, beat_bits), tag_address[beat_bits:])),
                ]
                with m.If(command.ready):
                    m.d.sync += tag_address.eq(tag_address + TAG_BYTES)
                    m.next = "LINES"
        with m.If(self.start):
            m.d.sync += [tag_address.eq(self.tags), line_address.eq(self.at)]
