"""What the lines of a small buffer read as, whatever else goes on."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.buffers.qbc import Qbc, element_layout, line_layout
from nibblecore.hdl.cambriconq.buffers.tag import Tag

LINES, COLS = 4, 2
LINE, ELEMENT = line_layout(LINES, COLS), element_layout(LINES, COLS)


class QbcSpec(wiring.Component):
    """A buffer of four lines of two values under any traffic, with values and exponents of few bits."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__(
            {
                "write_valid": In(1),
                "write": In(LINE),
                "element_valid": In(1),
                "element": In(ELEMENT),
                "read_enable": In(1),
                "read_line": In(range(LINES)),
                "clear": In(1),
                "flush": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.qbc = qbc = Qbc(LINES, COLS, 1)
        m.d.comb += [
            qbc.write.valid.eq(self.write_valid),
            qbc.write.payload.eq(self.write),
            qbc.element.valid.eq(self.element_valid),
            qbc.element.payload.eq(self.element),
            qbc.read_enable.eq(self.read_enable),
            qbc.read_line.eq(self.read_line),
            qbc.clear.eq(self.clear),
            qbc.flush.eq(self.flush),
        ]
        writes, accepts, reading, shown = Signal(), Signal(), Signal(), Signal(range(LINES))
        m.d.comb += [writes.eq(self.write_valid & qbc.write.ready), accepts.eq(self.element_valid & qbc.element.ready)]
        m.d.sync += [reading.eq(self.read_enable & ~self.clear), shown.eq(self.read_line)]
        m.d.comb += [
            Assume(~(writes & self.read_enable & (self.write.line == self.read_line))),
            Assume((self.element.value[4:] == 0) & (self.element.tag.e[1:] == 0) & (self.write.tag.e[1:] == 0)),
        ]
        self.check(m, qbc, writes, accepts, reading, shown)
        return m

    def check(self, m: Module, qbc: Qbc, writes: Value, accepts: Value, reading: Value, shown: Value) -> None:
        raise NotImplementedError


class ReadSpec(QbcSpec):
    """A line reads as it was written, until an element of a slot that holds it is accepted, or ``clear`` comes.

    With `fault`, some tags of lines are taken for others.
    """

    def check(self, m: Module, qbc: Qbc, writes: Value, accepts: Value, reading: Value, shown: Value) -> None:
        line, known, held = AnyConst(range(LINES)), Signal(), Signal(LINE)
        if self.fault:
            m.d.comb += qbc.write.payload.tag.size.eq(Mux(self.write.tag.size == 3, 2, self.write.tag.size))
        distance = Signal(range(LINES))
        m.d.comb += distance.eq(line - self.element.line)
        # In one cycle an element goes before a line, and that before `clear`.
        with m.If(accepts & (distance <= self.element.slot)):
            m.d.sync += known.eq(0)
        with m.If(writes & (self.write.line == line)):
            m.d.sync += [known.eq(1), held.eq(self.write)]
        with m.If(self.clear):
            m.d.sync += known.eq(0)
        checked = Signal()
        expected = Signal(LINE)
        m.d.sync += [checked.eq(known & self.read_enable & (self.read_line == line) & ~self.clear), expected.eq(held)]
        with m.If(checked):
            m.d.comb += [
                Assert(qbc.read_valid),
                Assert(qbc.read_data == expected.data),
                Assert(qbc.read_tag == expected.tag),
                Cover(expected.tag.size == 3),
            ]


class TagsSpec(QbcSpec):
    """With elements alone, in slots of two lines, the lines of a vector carry one tag, and those beyond it none.

    With `fault`, lines are written all the same.
    """

    def check(self, m: Module, qbc: Qbc, writes: Value, accepts: Value, reading: Value, shown: Value) -> None:
        m.d.comb += [Assume(~writes | self.fault), Assume(~self.element.line[0] & (self.element.slot == 1))]
        slot, known, valid, tag = AnyConst(1), Signal(), Signal(), Signal(Tag)
        first = Signal()
        m.d.comb += first.eq(reading & (shown == Cat(Const(0, 1), slot)))
        with m.If(first):
            m.d.sync += [known.eq(1), valid.eq(qbc.read_valid), tag.eq(qbc.read_tag)]
        # Only what was read in one state of the buffer belongs together.
        changed, was_changed = Signal(), Signal()
        m.d.comb += changed.eq(accepts | self.clear)
        m.d.sync += was_changed.eq(changed)
        with m.If(changed | was_changed):
            m.d.sync += known.eq(0)
        with m.If(known & reading & (shown[1] == slot) & ~was_changed):
            belongs = Signal()
            m.d.comb += [
                belongs.eq(valid & (shown[0] <= tag.size)),
                Assert(qbc.read_valid == belongs),
                Cover(belongs & (shown[0] == 1)),
                Cover(valid & ~belongs),
            ]
            with m.If(belongs):
                m.d.comb += Assert(qbc.read_tag == tag)


class ValueSpec(QbcSpec):
    """An element reads as it was written, on every way to the memory and back, until it is written again.

    All elements are of 8 bits and one exponent, in slots of two lines. With `fault`, some go to another index.
    """

    def check(self, m: Module, qbc: Qbc, writes: Value, accepts: Value, reading: Value, shown: Value) -> None:
        slot, index, known, held = AnyConst(1), AnyConst(range(COLS)), Signal(), Signal(8)
        element = self.element
        m.d.comb += [
            Assume(~writes),
            Assume(~element.line[0] & (element.slot == 1)),
            Assume((element.tag.size == 1) & (element.tag.e == 0)),
            qbc.element.payload.index.eq(element.index ^ (self.fault & (element.value == 5))),
        ]
        with m.If(accepts & (element.line[1] == slot) & (element.index == index)):
            m.d.sync += [known.eq(1), held.eq(element.value)]
        with m.If(self.clear):
            m.d.sync += known.eq(0)
        checked, expected = Signal(), Signal(8)
        m.d.sync += [checked.eq(known & self.read_enable & (self.read_line[1] == slot) & ~self.clear), expected.eq(held)]
        with m.If(checked):
            m.d.comb += [
                Assert(qbc.read_valid),
                Assert(qbc.read_data.word_select(index, 4) == expected.word_select(shown[0], 4)),
                Cover((expected == 9) & qbc.clean),
            ]


PROOFS = [
    Proof(
        name="cambriconq.buffers.qbc.read",
        spec=ReadSpec,
        fault=lambda: ReadSpec(fault=True),
        reason="unbounded; four lines of two values stand for all, since places are only compared and values pass side by side; "
        "values of 4 bits, exponents of 1, and generations of 1, so that every clear sweeps",
    ),
    Proof(
        name="cambriconq.buffers.qbc.tags",
        spec=TagsSpec,
        fault=lambda: TagsSpec(fault=True),
        reason="unbounded; two vectors, so that one drives the other out of the Selected Line; sizes as above",
    ),
    Proof(
        name="cambriconq.buffers.qbc.value",
        spec=ValueSpec,
        fault=lambda: ValueSpec(fault=True),
        reason="unbounded; one format, so that no value changes by itself: requantization is proved alone; sizes as above",
    ),
]
