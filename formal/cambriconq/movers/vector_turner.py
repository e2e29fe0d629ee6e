"""Every value of a matrix goes to its place in the transposed one, once and in order; nothing is written where a slot holds no vector."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.bus.channel import assert_holds
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.movers.vector_turner import VectorTurner

__all__ = ["PROOFS"]

_COLS, _LINES, _MOST, _SLOTS = 2, 8, 3, 2


class VectorTurnerSpec(wiring.Component):
    """Up to 3 × 3 values in vectors of two, of one line or two, at any distances; any tags of two, written or not. A nibble is made of its
    line's number and its place in it; what was not read shows as its complement.
    """

    def __init__(self, block: type[VectorTurner] = VectorTurner) -> None:
        self.block = block
        super().__init__({"start": In(1), "line_ready": In(1), "element_ready": In(1), "clean": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.turner = turner = self.block(_COLS, _LINES)
        port, line, element = turner.port, turner.line, turner.element
        rows, cols, slot = (Signal(2, name=name) for name in ("rows", "cols", "slot"))
        src, src_row, dest, dest_row = (Signal(3, name=name) for name in ("src", "src_row", "dest", "dest_row"))
        tags, written = (
            Array(Signal(name=f"tag{n}") for n in range(_LINES)),
            Array(Signal(name=f"written{n}") for n in range(_LINES)),
        )
        m.d.comb += [
            *(signal.eq(AnyConst(len(signal))) for signal in (rows, cols, slot, src_row, dest_row, *tags, *written)),
            Assume((rows != 0) & (cols != 0) & (slot != 0) & (slot <= _SLOTS)),
            src.eq(3),
            dest.eq(6),
            turner.rows.eq(rows),
            turner.cols.eq(cols),
            turner.slot.eq(slot),
            turner.src.eq(src),
            turner.src_row.eq(src_row),
            turner.dest.eq(dest),
            turner.dest_row.eq(dest_row),
            turner.start.eq(self.start),
            turner.clean.eq(self.clean),
            line.ready.eq(self.line_ready),
            element.ready.eq(self.element_ready),
        ]

        read, row = Signal(), Signal(3)
        shown = Signal(4 * _COLS + 11)
        m.d.sync += [read.eq(port.enable), row.eq(port.address)]
        m.d.comb += [
            shown.eq(Cat(*(_nibble(row, place) for place in range(_COLS)), tags[row].replicate(10), written[row])),
            Cat(port.line, port.tag, port.written).eq(Mux(read, shown, ~shown)),
        ]

        # What the source holds.
        inside, faults = Signal(), []
        for i in range(_MOST):
            for v in range(-(-_MOST // _COLS)):
                for plane in range(_SLOTS):
                    at, first, used = (
                        Signal(bits, name=f"{name}{i}{v}{plane}") for name, bits in (("at", 3), ("first", 3), ("used", 1))
                    )
                    m.d.comb += [
                        used.eq((rows > i) & (cols > v * _COLS) & (slot > plane)),
                        first.eq(src + i * src_row + v * slot),
                        at.eq(first + plane),
                    ]
                    faults.append(used & (~written[at] | (tags[at] != tags[first])))
                    with m.If(used & (port.address == at)):
                        m.d.comb += inside.eq(1)
        wrong = Signal()
        m.d.comb += wrong.eq(Cat(faults).any())

        # The value that comes next, and the lines of its vector that have been zeroed.
        running, i, j, zeroed, over = Signal(), Signal(2), Signal(2), Signal(2), Signal()
        at, target, value = Signal(3), Signal(3), Signal(8)
        moves, ends = Signal(), Signal()
        m.d.comb += [
            at.eq(src + i * src_row + j[1] * slot),
            target.eq(dest + j * dest_row + i[1] * slot),
            moves.eq(element.valid & element.ready),
            value.eq(Mux(slot == 1, _nibble(at, j[0]).as_signed(), Cat(_nibble(at, j[0]), _nibble((at + 1)[:3], j[0])))),
            ends.eq(moves & (i == rows - 1) & (j == cols - 1)),
        ]
        with m.If(line.valid & line.ready):
            m.d.sync += zeroed.eq(zeroed + 1)
        with m.If(moves):
            m.d.sync += [i.eq(Mux(i == rows - 1, 0, i + 1)), j.eq(j + (i == rows - 1)), over.eq(ends)]
            with m.If(i[0] | (i == rows - 1)):
                m.d.sync += zeroed.eq(0)
        with m.If(self.start):
            m.d.sync += [running.eq(1), i.eq(0), j.eq(0), zeroed.eq(0), over.eq(0)]
        with m.Elif(turner.done):
            m.d.sync += running.eq(0)
        cleaned = Signal()
        m.d.sync += cleaned.eq(turner.flush & self.clean)
        assert_holds(m, "line", line.valid, line.ready, line.payload)
        assert_holds(m, "element", element.valid, element.ready, element.payload)
        m.d.comb += [
            Assume(~self.start | ~running | turner.done),
            Assert(~port.enable | (running & inside)),
            Assert(~(line.valid | element.valid) | (running & ~wrong & ~over)),
            Assert(~line.valid | (zeroed != slot)),
            Assert(~element.valid | (zeroed == slot)),
            Assert(~turner.flush | over),
            Assert(~turner.done | (turner.no_tag == wrong)),
            Assert(~turner.done | wrong | cleaned),
            Assert(~cleaned | turner.done),
            Cover(turner.done & wrong & written[src] & (rows == 2)),
            Cover(ends & (rows == 3)),
            Cover(ends & (cols == 3) & (slot == 2)),
        ]
        with m.If(line.valid):
            m.d.comb += [
                Assert(line.payload.line == (target + zeroed)[:3]),
                Assert(line.payload.tag.e == -128),
                Assert(line.payload.tag.size == slot - 1),
                Assert(line.payload.data == 0),
                Assert(~i[0]),
            ]
        with m.If(element.valid):
            found = element.payload
            m.d.comb += [
                Assert(found.line == target),
                Assert(found.slot == slot - 1),
                Assert(found.index == i[0]),
                Assert(found.tag.e.as_unsigned() == tags[at].replicate(8)),
                Assert(found.tag.size == slot - 1),
                Assert(found.value == value.as_signed()),
            ]
        return m


def _nibble(line: Any, place: Any) -> Value:
    """What line number `line` holds at a place; negative at half of the lines."""
    return Cat(line[0] ^ Value.cast(place)[0], line[:3])


class SignlessTurner(VectorTurner):
    """Extends values by zeros."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.element.payload.value[8:].eq(0)
        return m


PROOFS = [
    Proof(
        name="cambriconq.movers.vector_turner.values",
        spec=VectorTurnerSpec,
        fault=lambda: VectorTurnerSpec(SignlessTurner),
        engine="bmc",
        depth=11,
        cover_depth=24,
        reason="11 cycles are one value or two from start to end with a stall, or three in one, two or three new vectors; the first "
        "lines are fixed, as all lines count modulo the buffer",
    )
]
