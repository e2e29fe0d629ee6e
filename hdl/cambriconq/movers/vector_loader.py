"""Reads tagged vectors out of memory, line by line: the memory side of VLOAD."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout
from nibblecore.hdl.cambriconq.buffers.tag import Tag
from nibblecore.hdl.cambriconq.quantize.quantize_unit import line_layout

__all__ = ["TAG_BYTES", "VectorLoader", "tag_layout"]

TAG_BYTES = 2


def tag_layout() -> data.StructLayout:
    """A tag in memory: bits that are not the tag's must be 0."""
    return data.StructLayout({"tag": Tag, "zero": 8 * TAG_BYTES - Tag.as_shape().size})


class VectorLoader(wiring.Component):
    """Vectors of ``slot`` lines each from memory as a stream of lines; between it and the bus is an `AxiReader`.

    All tags are read first and looked at: bits beyond the tag's, or more bits than 4 a line of the slot, end it with ``bad_tag`` before
    any line. Then comes, vector by vector, the beat that holds its tag and its lines. Commands are given as fast as the reader takes
    them, and the reader bounds how many are under way.

    Latency: the first command the cycle after ``start``; a line in the cycle in which its beat is offered.
    Throughput: a beat of tags a cycle; then slot lines in slot + 1 cycles while the reader delivers a beat a cycle.

    Parameters
    ----------
    cols : int
        M, a power of two, at least 8. A line is a beat of M/2 bytes.

    Members
    -------
    start : In(1)
        Not from one start until its ``done``.
    vectors : In(16)
        At least 1.
    slot : In(3)
        Lines of a vector, 1..4.
    at : In(32)
        Byte address of the lines, a multiple of a line's.
    tags : In(32)
        Byte address of the tags, 2 bytes a vector, even. All constant from ``start`` until ``done``.
    done : Out(1)
        One cycle: the cycle after the last line was taken, or the last beat of tags if one does not fit.
    bad_tag : Out(1)
        With ``done``: some tag does not fit; no line was delivered.
    command : Out(stream of `command_layout`)
        To the reader.
    data : In(stream of 4·M bits)
        The commands' beats, in order.
    o : Out(stream of `line_layout`)
    """

    def __init__(self, cols: int) -> None:
        if cols < 8 or cols & (cols - 1):
            raise ValueError(f"cols must be a power of two, at least 8, not {cols}")
        self.cols = cols
        self.line_bytes = cols // 2
        super().__init__(
            {
                "start": In(1),
                "vectors": In(16),
                "slot": In(3),
                "at": In(32),
                "tags": In(32),
                "done": Out(1),
                "bad_tag": Out(1),
                "command": Out(stream.Signature(command_layout())),
                "data": In(stream.Signature(4 * cols)),
                "o": Out(stream.Signature(line_layout(cols))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat_bits = self.line_bytes.bit_length() - 1
        tags_in_beat = self.line_bytes // TAG_BYTES
        first_place = self.tags[1:beat_bits]  # of the first tag in its beat, in tags
        last_place = Signal(17)  # one beyond the last tag
        checked = Signal()  # all tags, and all fit
        m.d.comb += last_place.eq(first_place + self.vectors)
        self._ask(m, (last_place + (tags_in_beat - 1)) >> (beat_bits - 1), checked, beat_bits)
        self._take(m, first_place, last_place, checked)
        return m

    def _ask(self, m: Module, tag_beats: Value, checked: Value, beat_bits: int) -> None:
        """Commands: all tags; then a vector's tag, its lines, and so on."""
        tag_address, line_address, left = (
            Signal(bits, name=name) for name, bits in (("tag_address", 32), ("line_address", 32), ("vectors_to_ask", 16))
        )
        command = self.command
        beat_of_tag = Cat(Const(0, beat_bits), tag_address[beat_bits:])
        with m.FSM(name="asking"):
            with m.State("IDLE"):
                m.d.sync += [tag_address.eq(self.tags), line_address.eq(self.at), left.eq(self.vectors)]
                with m.If(self.start):
                    m.next = "ALL_TAGS"
                with m.Elif(checked):
                    m.next = "TAG"
            with m.State("ALL_TAGS"):
                m.d.comb += [command.valid.eq(1), command.payload.address.eq(beat_of_tag), command.payload.beats.eq(tag_beats)]
                with m.If(command.ready):
                    m.next = "IDLE"
            with m.State("TAG"):
                m.d.comb += [command.valid.eq(1), command.payload.address.eq(beat_of_tag), command.payload.beats.eq(1)]
                with m.If(command.ready):
                    m.d.sync += [tag_address.eq(tag_address + TAG_BYTES), left.eq(left - 1)]
                    m.next = "LINES"
            with m.State("LINES"):
                m.d.comb += [command.valid.eq(1), command.payload.address.eq(line_address), command.payload.beats.eq(self.slot)]
                with m.If(command.ready):
                    m.d.sync += line_address.eq(line_address + (self.slot << beat_bits))
                    m.next = "TAG"
                    with m.If(left == 0):
                        m.next = "IDLE"

    def _take(self, m: Module, first_place: Value, last_place: Value, checked: Signal) -> None:
        """Beats: tags to look at; then a vector's tag, its lines, and so on."""
        words = data.ArrayLayout(tag_layout(), self.line_bytes // TAG_BYTES)(self.data.payload)
        # the words from the first tag on; where the tags end, from this beat on
        since = Signal(len(words))
        end = Signal(17)
        lane = Signal(range(len(words)))
        plane = Signal(2)
        left = Signal(16)
        tag = Signal(Tag)
        misfits = Signal(len(words))
        bad = Signal()
        out = self.o.payload
        for number in range(len(words)):
            word = words[number]
            m.d.comb += misfits[number].eq(since[number] & (number < end) & ((word.zero != 0) | (word.tag.size >= self.slot)))
        m.d.comb += [
            bad.eq(self.bad_tag | misfits.any()),
            out.line.eq(self.data.payload),
            out.tag.eq(tag),
            out.last_of_vector.eq(plane == self.slot - 1),
            out.last.eq(out.last_of_vector & (left == 1)),
        ]
        m.d.sync += self.done.eq(0)
        with m.FSM(name="taking"):
            with m.State("IDLE"):
                m.d.sync += [
                    since.eq(Const(-1, len(words)) << first_place),
                    end.eq(last_place),
                    lane.eq(first_place),
                    plane.eq(0),
                    left.eq(self.vectors),
                ]
                with m.If(self.start):
                    m.d.sync += self.bad_tag.eq(0)
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += self.data.ready.eq(1)
                with m.If(self.data.valid):
                    m.d.sync += [since.eq(-1), end.eq(end - len(words)), self.bad_tag.eq(bad)]
                    with m.If(end <= len(words)):
                        m.d.comb += checked.eq(~bad)
                        m.d.sync += self.done.eq(bad)
                        m.next = "IDLE"
                        with m.If(~bad):
                            m.next = "TAG"
            with m.State("TAG"):
                m.d.comb += self.data.ready.eq(1)
                with m.If(self.data.valid):
                    m.d.sync += [tag.eq(words[lane].tag), lane.eq(lane + 1)]
                    m.next = "LINES"
            with m.State("LINES"):
                m.d.comb += [self.o.valid.eq(self.data.valid), self.data.ready.eq(self.o.ready)]
                with m.If(self.data.valid & self.o.ready):
                    m.d.sync += plane.eq(Mux(out.last_of_vector, 0, plane + 1))
                    with m.If(out.last_of_vector):
                        m.d.sync += left.eq(left - 1)
                        m.next = "TAG"
                    with m.If(out.last):
                        m.d.sync += self.done.eq(1)
                        m.next = "IDLE"
