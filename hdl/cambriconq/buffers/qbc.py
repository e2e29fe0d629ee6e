"""The quantization buffer controller: a buffer whose lines know their format, and that can be written value by value."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .max_tag import MaxTag
from .qbc_filler import QbcFiller
from .selected_line import SelectedLine, edit_layout
from .tag import Tag
from .tagged_memory import TaggedMemory

__all__ = ["Qbc", "QbcErrors", "element_layout", "line_layout", "line_read"]


def line_layout(lines: int, cols: int) -> data.StructLayout:
    """A line to write, and where."""
    return data.StructLayout({"line": range(lines), "tag": Tag, "data": 4 * cols})


def element_layout(lines: int, cols: int) -> data.StructLayout:
    """A value to write to place ``index`` of the vector that begins at ``line`` and may grow to ``slot`` + 1 lines."""
    return data.StructLayout({"line": range(lines), "slot": 2, "index": range(cols), "tag": Tag, "value": signed(16)})


def line_read(cols: int, address_bits: int) -> wiring.Signature:
    """A tagged buffer's read port, from the buffer's side: line, tag and whether one was written, the cycle after ``enable``."""
    return wiring.Signature(
        {"enable": In(1), "address": In(address_bits), "line": Out(4 * cols), "tag": Out(Tag), "written": Out(1)}
    )


class QbcErrors(data.Struct):
    """Why an element write was dropped."""

    out_of_range: 1
    """Its slot ends beyond the buffer."""
    partly_overwritten: 1
    """The lines of its vector do not carry one tag."""
    no_room: 1
    """Its vector does not fit the slot, or would no longer."""


class Qbc(wiring.Component):
    """Lines of M nibbles with a tag each: written and read whole, or one value at a time (Section IV-B2).

    A vector of tag t is t.bits / 4 lines (docs/cambriconq.md). All ports work side by side.

    **Lines** are written one a cycle and read one a cycle; neither waits for anything but the sweep (below). A read sees all that was
    accepted in earlier cycles and nothing later, except that a line must not be read in the very cycle in which it is written.

    **Elements.** The vector and the value take the greater tag: the larger e, of equal ones that with more bits. Whichever had a smaller
    e is divided by 2^difference, rounded half away from zero and clipped to ±Qmax of that tag; the value is clipped in any case. Lines
    that the vector no longer needs become invalid. Where line ``line`` is invalid the vector begins as zeros with the value's tag.
    An element that is in error is taken, changes nothing and raises a flag in ``errors``, which holds until ``clear_errors``. In
    the same cycle an element goes before a line.

    The vector being edited stays in the Selected Line, newer than the memory: reads are answered from there. It is written back
    when an element of another vector comes, when ``flush`` is high, and when one of the four lines from ``line`` on is written.

    ``clear`` takes one cycle; it makes all lines invalid, also those written and those read in its cycle. Tags are kept with the
    number of the generation in which they were written. After a reset, and with each 2^``generation_bits`` − 1st ``clear``, numbers
    begin anew: for ``lines`` cycles the tags are swept, reads find every line invalid, writes wait, and ``clear`` does nothing.

    Latency: a line `LATENCY` = 1 cycle after its request; an element is seen by requests of the cycle after it was taken.
    Throughput: a line written, a line read and an element of the selected vector a cycle, with or without requantization; between it and
    the first of another vector `switch_cycles` pass. Line writes go before the write-back and line reads before the reading of a vector;
    so endless streams of either hold elements up.

    Parameters
    ----------
    lines : int
        A power of two, at least 4.
    cols : int
        Values M of a vector, a power of two, at least 2.
    generation_bits : int
        Of a generation's number, at least 1.

    Members
    -------
    write : In(stream of `line_layout`)
    element : In(stream of `element_layout`)
        Waits while another vector is written back and its own is fetched.
    read_enable : In(1)
    read_line : In(range(lines))
    read_data : Out(4 * cols)
        Of the line asked for in the cycle before, nibble 0 least significant; so are ``read_tag`` and ``read_valid``.
    read_tag : Out(Tag)
    read_valid : Out(1)
        The line holds part of a vector. Without it ``read_data`` and ``read_tag`` mean nothing.
    clear : In(1)
    flush : In(1)
        Write the Selected Line back.
    clear_errors : In(1)
        Clears ``errors``; a cause in the same cycle counts.
    clean : Out(1)
        The memory holds all there is.
    errors : Out(QbcErrors)
    """

    LATENCY = 1

    def __init__(self, lines: int, cols: int, generation_bits: int = 8) -> None:
        for name, value, least in (("lines", lines, 4), ("cols", cols, 2)):
            if value < least or value & (value - 1):
                raise ValueError(f"{name} must be a power of two, at least {least}, not {value}")
        if generation_bits < 1:
            raise ValueError(f"generation_bits must be at least 1, not {generation_bits}")
        self.lines, self.cols, self.generation_bits = lines, cols, generation_bits
        super().__init__(
            {
                "write": In(stream.Signature(line_layout(lines, cols))),
                "element": In(stream.Signature(element_layout(lines, cols))),
                "read_enable": In(1),
                "read_line": In(range(lines)),
                "read_data": Out(4 * cols),
                "read_tag": Out(Tag),
                "read_valid": Out(1),
                "clear": In(1),
                "flush": In(1),
                "clear_errors": In(1),
                "clean": Out(1),
                "errors": Out(QbcErrors),
            }
        )

    @staticmethod
    def switch_cycles(dirty: int, stored: int) -> int:
        """Cycles between the last element of a vector and the first of the next, apart from those that lines take first.

        `dirty` lines of the old vector have to be written back, `stored` lines of the new one are read (0 if it is invalid).
        """
        return dirty + max(stored, 1) + 2

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = TaggedMemory(self.lines, 4 * self.cols, self.generation_bits)
        m.submodules.selected = selected = SelectedLine(self.cols)
        m.submodules.max_tag = max_tag = MaxTag()
        m.submodules.filler = filler = QbcFiller()
        m.d.comb += [memory.clear.eq(self.clear), self.write.ready.eq(~memory.sweeping)]

        # The vector in the Selected Line: where it begins, its tag after all accepted elements, its lines that are newer than the memory's.
        line = Signal(range(self.lines))
        tag = Signal(Tag)
        fresh = Signal()
        newer = Signal(4)
        held = Signal()
        closing = Signal()
        released = Signal()
        write = self.write.payload
        writes = Signal()
        offset = Signal(range(self.lines))
        near = Signal()
        m.d.comb += [writes.eq(self.write.valid & self.write.ready), offset.eq(write.line - line), near.eq(writes & (offset < 4))]

        # An element whose vector is selected is accepted, and edits the vector in the next cycle.
        element = self.element.payload
        end = Signal(len(line) + 1)
        in_range = Signal()
        wanted = Signal()
        present = Signal()
        greater = max_tag.greater
        room = Signal()
        refused = Signal()
        accept = Signal()
        edit_valid = Signal()
        edit = Signal(edit_layout(self.cols), reset_less=True)
        touched = Signal(4)
        m.d.comb += [
            end.eq(element.line + element.slot),
            in_range.eq(~end[-1]),
            wanted.eq(self.element.valid & in_range & ~memory.sweeping),
            max_tag.vector.eq(tag),
            max_tag.value.eq(element.tag),
            max_tag.fresh.eq(fresh),
            present.eq(held & ~closing & (element.line == line)),
            refused.eq(filler.no_room | filler.partly_overwritten),
            room.eq((greater.size <= element.slot) & (fresh | (tag.size <= element.slot))),
            accept.eq(wanted & present & room),
            self.element.ready.eq(~memory.sweeping & (~in_range | present | refused)),
            touched.eq(Mux(accept, _lines_of(greater) | Mux(fresh, 0, _lines_of(tag)), 0)),
            selected.edit_enable.eq(edit_valid),
            selected.edit.eq(edit),
        ]
        m.d.sync += [
            edit_valid.eq(accept),
            edit.index.eq(element.index),
            edit.value.eq(element.value),
            edit.tag.eq(greater),
            edit.value_shift.eq(max_tag.value_shift),
            edit.vector_shift.eq(max_tag.vector_shift),
            edit.requantize.eq(max_tag.raises),
        ]
        with m.If(accept):
            m.d.sync += [tag.eq(greater), fresh.eq(0)]
        with m.If(held & (near | self.flush | wanted & (element.line != line))):
            m.d.sync += closing.eq(1)

        # Out of the Selected Line, while lines do not need the port. A line that has been written itself is not written back.
        flushes = Signal()
        place = Signal(2)
        kept = Signal(4)
        m.d.comb += [
            flushes.eq(closing & newer.any() & ~edit_valid & ~writes),
            place.eq(Mux(newer[0], 0, Mux(newer[1], 1, Mux(newer[2], 2, 3)))),
            kept.eq(~((flushes << place) | (near << offset[:2]))),
            released.eq(closing & ~(newer & kept).any()),
            memory.write_enable.eq(writes | flushes),
            memory.write_line.eq(Mux(writes, write.line, line + place)),
            memory.write_tag.eq(Mux(writes, write.tag, tag)),
            memory.write_valid.eq(writes | (place <= tag.size)),
            memory.write_data.eq(Mux(writes, write.data, selected.lines[place])),
            self.clean.eq(~newer.any()),
        ]
        m.d.sync += newer.eq((newer | touched) & kept)

        # Into it, while reads do not need the port.
        m.d.comb += [
            filler.start.eq(wanted & ~filler.busy & ~refused & (released | ~held)),
            filler.slot.eq(element.slot),
            filler.again.eq(near),
            filler.cancel.eq(self.clear),
            filler.fetch_allowed.eq(~self.read_enable),
            filler.tag.eq(tag),
            filler.stored_tag.eq(memory.read_tag),
            filler.stored_valid.eq(memory.read_valid),
            selected.load_enable.eq(filler.load_enable),
            selected.load_place.eq(filler.load_place),
            selected.load_data.eq(memory.read_data & memory.read_valid.replicate(4 * self.cols)),
        ]
        with m.If(filler.start):
            m.d.sync += line.eq(element.line)
        with m.If(filler.load_enable & (filler.load_place == 0)):
            m.d.sync += [tag.eq(memory.read_tag), fresh.eq(~memory.read_valid)]
        with m.If(released):
            m.d.sync += [held.eq(0), closing.eq(0)]
        with m.If(filler.done):
            m.d.sync += held.eq(1)
        with m.If(self.clear):
            m.d.sync += [held.eq(0), closing.eq(0), newer.eq(0), edit_valid.eq(0)]

        self._reads(m, memory, filler, selected, line, newer, edit_valid, edit.tag)
        self._errors(m, self.element.valid & ~memory.sweeping, in_range, filler, present & ~room)
        return m

    def _reads(
        self,
        m: Module,
        memory: TaggedMemory,
        filler: QbcFiller,
        selected: SelectedLine,
        line: Signal,
        newer: Signal,
        edit_valid: Signal,
        edit_tag: Tag,
    ) -> None:
        """A read is answered by whichever is newer, the memory or the Selected Line, of which the tag lags behind as its values do."""
        ahead = Signal(range(self.lines))
        tag = Signal(Tag, reset_less=True)
        place = Signal(2)
        forward = Signal()
        m.d.comb += [
            memory.read_enable.eq(self.read_enable | filler.fetch_enable),
            memory.read_line.eq(Mux(self.read_enable, self.read_line, line + filler.fetch_place)),
            ahead.eq(self.read_line - line),
            self.read_data.eq(Mux(forward, selected.lines[place], memory.read_data)),
            self.read_tag.eq(Mux(forward, tag, memory.read_tag)),
            self.read_valid.eq(Mux(forward, place <= tag.size, memory.read_valid)),
        ]
        m.d.sync += [place.eq(ahead[:2]), forward.eq(self.read_enable & (ahead < 4) & newer.bit_select(ahead[:2], 1) & ~self.clear)]
        with m.If(edit_valid):
            m.d.sync += tag.eq(edit_tag)

    def _errors(self, m: Module, valid: Value, in_range: Signal, filler: QbcFiller, no_room: Value) -> None:
        errors = Signal(QbcErrors)
        raised = Signal(QbcErrors)
        m.d.comb += [
            self.errors.eq(errors),
            raised.out_of_range.eq(valid & ~in_range),
            raised.partly_overwritten.eq(valid & in_range & filler.partly_overwritten),
            raised.no_room.eq(valid & in_range & (filler.no_room | no_room)),
        ]
        m.d.sync += errors.eq(Mux(self.clear_errors, 0, errors.as_value()) | raised.as_value())


def _lines_of(tag: Tag) -> Value:
    """A bit for each line that a vector of this tag has."""
    return Cat(Const(1, 1), *(tag.size > place for place in range(3)))
