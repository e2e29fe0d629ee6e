"""The wide PE against its contract: passing through, word sums, accumulation, overflow, drain."""

from functools import partial
from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.array.wide_pe import WidePe

__all__ = ["PROOFS"]


class FaultyPe(WidePe):
    """Weighs 8-bit halves as nibbles, four bits apart."""

    _LOW_BITS = 4


class PeSpec(wiring.Component):
    """Every input is free, ``rst`` too; in 8-bit mode low halves are not negative."""

    def __init__(self, lanes: int, block: type[WidePe] = WidePe) -> None:
        self.lanes, self.block = lanes, block
        word = 6 * lanes
        super().__init__({"a": In(word), "w": In(word), "boundary": In(1), "eight_bit": In(1), "drain_in": In(33)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.pe = pe = self.block(self.lanes)
        a, w, boundary = Signal.like(self.a, reset_less=True), Signal.like(self.w, reset_less=True), Signal()
        m.d.sync += [a.eq(self.a), w.eq(self.w), boundary.eq(self.boundary)]
        m.d.comb += [
            pe.a.eq(self.a),
            pe.w.eq(self.w),
            pe.boundary.eq(self.boundary),
            pe.eight_bit.eq(self.eight_bit),
            pe.drain_in.eq(self.drain_in),
            Assert(pe.a_next == a),
            Assert(pe.w_next == w),
            Assert(pe.boundary_next == boundary),
        ]

        # The products of what the block itself holds, so that the solver has no multipliers to compare.
        products = []
        for lane in range(self.lanes):
            product = Signal(signed(12), name=f"product{lane}")
            m.d.comb += product.eq(pe.a_next.word_select(lane, 6).as_signed() * pe.w_next.word_select(lane, 6).as_signed())
            products.append(product)
        # No product of two halves of 5 bits is larger; a solver that does not multiply has to be told.
        for first, product in enumerate(products[::4]):
            a_group, w_group = (word.word_select(first, 24) for word in (pe.a_next, pe.w_next))
            low_signs = Cat(a_group[5], a_group[17], w_group[5], w_group[11])
            m.d.comb += Assume(~self.eight_bit | (~low_signs.any() & (product >= 0) & (product <= 31 * 31)))
        # Products of one weight are summed first, as in the block: a solver is slow to find that sums in another order are equal.
        low, high = (sum(products[4 + i :: 4], products[i]) for i in (0, 3))
        middle = sum(products[5::4] + products[6::4], products[1] + products[2])
        word_sum = Signal(signed(25))
        m.d.comb += word_sum.eq(Mux(self.eight_bit, low + 32 * middle + 1024 * high, low + high + middle))

        accumulator, overflow = Signal(signed(32), reset_less=True), Signal(reset_less=True)
        exact = Signal(signed(40))
        m.d.comb += exact.eq(Mux(boundary, 0, accumulator) + word_sum)
        m.d.sync += [accumulator.eq(exact), overflow.eq(Mux(boundary, 0, overflow) | (exact > 2**31 - 1) | (exact < -(2**31)))]
        result = Cat(accumulator, overflow)
        m.d.comb += [
            Assert(pe.accumulator == accumulator),
            Assert(pe.overflow == overflow),
            Assert(pe.drain_out == Mux(boundary, self.drain_in | result, self.drain_in)),
            Cover(boundary & (accumulator == -1023 * 256 * self.lanes) & self.eight_bit),
            Cover(boundary & (accumulator == 2 * 1024 * self.lanes) & ~self.eight_bit),
        ]
        return m


PROOFS = [
    Proof(
        name=f"ltoaq.array.wide_pe.contract_{lanes}",
        spec=partial(PeSpec, lanes),
        fault=partial(PeSpec, lanes, FaultyPe),
        engine="induction",
        depth=4,
        cover_depth=5,
        reason="block and reference hold the same state, so one step carries over to the next; products are those of the block, "
        "which the bench tests pair by pair",
    )
    for lanes in (4, 8)
]
