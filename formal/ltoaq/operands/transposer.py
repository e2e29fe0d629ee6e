"""Any one element of a block leaves the transposer in the word and the place where it belongs."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.operands.transposer import Transposer, word_bits

BLOCK = 4


class ElementSpec(wiring.Component):
    """Follows the element in row `row`, column `col` of every block, in all modes, with stalls on both sides.

    With `fault`, the transposer is told a cycle late that a beat was taken.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"codes": In(64), "flags": In(16), "valid": In(1), "ready": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.transposer = transposer = Transposer(BLOCK)
        eight_bit, transposed, row, col = AnyConst(1), AnyConst(1), AnyConst(2), AnyConst(2)
        beat = Cat(self.codes, self.flags)
        late = Signal()
        m.d.sync += late.eq(self.ready)
        m.d.comb += [
            transposer.eight_bit.eq(eight_bit),
            transposer.transposed.eq(transposed),
            transposer.i.payload.codes.eq(self.codes),
            transposer.i.payload.flags.eq(self.flags),
            transposer.i.valid.eq(self.valid),
            transposer.o.ready.eq(late if self.fault else self.ready),
        ]
        # The sender holds a beat until it is taken.
        waiting, before = Signal(), Signal(80)
        m.d.sync += [waiting.eq(self.valid & ~transposer.i.ready), before.eq(beat)]
        m.d.comb += Assume(~waiting | (self.valid & (beat == before)))

        taken, given = Signal(), Signal()
        half_in, half_out, complete = Signal(), Signal(), Signal()
        m.d.comb += [taken.eq(self.valid & transposer.i.ready), given.eq(transposer.o.valid & self.ready)]
        m.d.sync += [half_in.eq(half_in ^ (taken & eight_bit)), half_out.eq(half_out ^ (given & eight_bit))]

        # The element as it comes in, now or in the first beat.
        lane, now, first = Signal(4), Signal(9), Signal(9)
        m.d.comb += [
            lane.eq(Mux(eight_bit, row * 2 + col[0], row * 4 + col)),
            now.eq(
                Cat(
                    Mux(eight_bit, self.codes.word_select(lane[:3], 8), self.codes.word_select(lane, 4)),
                    self.flags.bit_select(lane, 1),
                )
            ),
        ]
        with m.If(taken & ~half_in):
            m.d.sync += first.eq(now)
        # And where it goes out: word of the beat, element of the word, beat of the block.
        word, place, element = Signal(2), Signal(2), Signal(9)
        out = transposer.o.payload.word_select(word, word_bits(BLOCK))
        m.d.comb += [
            word.eq(Mux(transposed, col, row)),
            place.eq(Mux(transposed, row, col)),
            element.eq(
                Mux(
                    eight_bit,
                    Cat(out.word_select(place[0], 8), out[16:].bit_select(place[0], 1)),
                    Cat(out.word_select(place, 4), Signal(4, name="no_code"), out[16:].bit_select(place, 1)),
                )
            ),
        ]
        came_first = eight_bit & (col[1] == 0) & (half_in == 1)
        with m.If(transposer.o.valid & (~eight_bit | (half_out == place[1]))):
            m.d.comb += Assert(element == Mux(came_first, first, now))
            m.d.comb += Cover(eight_bit & transposed & (element == 0x1A5))
        m.d.comb += complete.eq(transposed & eight_bit & transposer.o.valid)
        m.d.comb += Assert(~complete | half_in)
        return m


PROOFS = [
    Proof(
        name="ltoaq.operands.transposer.element",
        spec=ElementSpec,
        fault=lambda: ElementSpec(fault=True),
        cover_depth=6,
        reason="control with data that is only moved; B = 4",
    )
]
