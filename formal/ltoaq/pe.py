"""The wide PE against its contract: passing through, word sums, accumulation, overflow, drain."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.pe import WidePe

__all__ = ["PROOFS"]


class FaultyPe(WidePe):
    """Weighs 8-bit halves as nibbles, four bits apart."""

    _LOW_BITS = 4


class PeSpec(wiring.Component):
    """Every input is free, ``rst`` too; in 8-bit mode low halves are not negative."""

    def __init__(self, block: type[WidePe] = WidePe) -> None:
        self.block = block
        super().__init__({"a": In(24), "w": In(24), "boundary": In(1), "eight_bit": In(1), "drain_in": In(33)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.pe = pe = self.block()
        a, w, boundary = Signal(24, reset_less=True), Signal(24, reset_less=True), Signal()
        m.d.sync += [a.eq(self.a), w.eq(self.w), boundary.eq(self.boundary)]
        m.d.comb += [
            pe.a.eq(self.a), pe.w.eq(self.w), pe.boundary.eq(self.boundary), pe.eight_bit.eq(self.eight_bit),
            pe.drain_in.eq(self.drain_in),
            Assert(pe.a_next == a), Assert(pe.w_next == w), Assert(pe.boundary_next == boundary),
        ]  # fmt: skip

        # The products of what the block itself holds, so that the solver has no multipliers to compare.
        products = []
        for lane in range(4):
            product = Signal(signed(12), name=f"product{lane}")
            m.d.comb += product.eq(pe.a_next.word_select(lane, 6).as_signed() * pe.w_next.word_select(lane, 6).as_signed())
            products.append(product)
        p0, p1, p2, p3 = products
        low_signs = Cat(pe.a_next[5], pe.a_next[17], pe.w_next[5], pe.w_next[11])
        # No product of two halves of 5 bits is larger; a solver that does not multiply has to be told.
        m.d.comb += [Assume(~(self.eight_bit & low_signs.any())), Assume(~self.eight_bit | ((p0 >= 0) & (p0 <= 31 * 31)))]
        word_sum = Signal(signed(24))
        m.d.comb += word_sum.eq(Mux(self.eight_bit, p0 + 32 * (p1 + p2) + 1024 * p3, p0 + p1 + p2 + p3))

        accumulator, overflow = Signal(signed(32), reset_less=True), Signal(reset_less=True)
        exact = Signal(signed(40))
        m.d.comb += exact.eq(Mux(boundary, 0, accumulator) + word_sum)
        m.d.sync += [accumulator.eq(exact), overflow.eq(Mux(boundary, 0, overflow) | (exact > 2**31 - 1) | (exact < -(2**31)))]
        result = Cat(accumulator, overflow)
        m.d.comb += [
            Assert(pe.accumulator == accumulator), Assert(pe.overflow == overflow),
            Assert(pe.drain_out == Mux(boundary, self.drain_in | result, self.drain_in)),
            Cover(boundary & (accumulator == -1023 * 1024)),
            Cover(boundary & (accumulator == 8 * 1024) & ~self.eight_bit),
        ]  # fmt: skip
        return m


PROOFS = [
    Proof(
        name="ltoaq.pe.contract", spec=PeSpec, fault=lambda: PeSpec(FaultyPe), engine="induction", depth=4, cover_depth=5,
        reason="block and reference hold the same state, so one step carries over to the next; products are those of the block, "
               "which the bench tests pair by pair",
    ),
]  # fmt: skip
