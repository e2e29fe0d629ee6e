"""The wide PE against its contract: passing through, word sums, accumulation, overflow, drain."""

from functools import partial
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
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
        _accumulates(m, pe, self.eight_bit, products, boundary, self.drain_in, 32)
        return m


class PairedPe(WidePe):
    """Takes what its multipliers give from outside, so that the solver has none."""

    def __init__(self) -> None:
        super().__init__(4, paired=True)
        self.outer, self.inner = Signal(signed(34)), Signal(signed(36))

    def _products(self, a: Signal, w: Signal) -> tuple[Value, Value]:
        return self.outer, self.inner


class LosesTheBorrow(PairedPe):
    """Reads the inner sum of products as it lies, below which a negative product has borrowed."""

    def _paired_sum(self, m: Module, a: Signal, w: Signal) -> tuple[Signal, Value]:
        return super()._paired_sum(m, a, w)[0], Const(0, 1)


class PairedSpec(wiring.Component):
    """The paired PE does with products of lanes what the other one does; every input is free, ``rst`` too.

    Its multipliers give what products of the multiplicands are by the contract of `PairPacker`: a product of sums is a sum of products.
    """

    def __init__(self, block: type[PairedPe] = PairedPe) -> None:
        self.block = block
        products = {f"product{lane}_{other}": In(signed(12)) for lane in range(4) for other in (lane, 3 - lane)}
        super().__init__({"a": In(30), "w": In(30), "boundary": In(1), "eight_bit": In(1), "drain_in": In(33), **products})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.pe = pe = self.block()
        a, w, boundary = Signal.like(self.a, reset_less=True), Signal.like(self.w, reset_less=True), Signal()
        m.d.sync += [a.eq(self.a), w.eq(self.w), boundary.eq(self.boundary)]
        products = [getattr(self, f"product{lane}_{lane}") for lane in range(4)]
        lowest, inner_lowest, inner_highest, highest = (getattr(self, f"product{lane}_{3 - lane}") for lane in range(4))
        operands = products[0] + 32 * (products[1] + products[2]) + 1024 * products[3]
        outer = lowest + 4096 * (products[0] + products[3]) + (highest << 24)
        inner = inner_lowest + 4096 * (products[1] + products[2]) + (inner_highest << 24)
        m.d.comb += [
            pe.a.eq(self.a),
            pe.w.eq(self.w),
            pe.boundary.eq(self.boundary),
            pe.eight_bit.eq(self.eight_bit),
            pe.drain_in.eq(self.drain_in),
            pe.outer.eq(Mux(self.eight_bit, operands << 12, outer)),
            pe.inner.eq(Mux(self.eight_bit, 0, inner)),
            Assert(pe.a_next == a),
            Assert(pe.w_next == w),
            Assert(pe.boundary_next == boundary),
        ]
        for lane in range(4):
            for other in (lane, 3 - lane):
                product = getattr(self, f"product{lane}_{other}")
                in_four = (product >= -31 * 31) & (product <= 31 * 31)
                in_eight = (
                    (product >= -31 * 32) & (product <= 32 * 32) & ((product >= 0) & (product <= 31 * 31) if lane == 0 else 1)
                )
                m.d.comb += Assume(Mux(self.eight_bit, in_eight, in_four))
        _accumulates(m, pe, self.eight_bit, products, boundary, self.drain_in, 31)
        return m


def _accumulates(
    m: Module, pe: WidePe, eight_bit: Value, products: list[Signal], boundary: Signal, drain_in: Value, most: int
) -> None:
    """Accumulator, overflow and drain follow the sums of the products; lanes reach −`most`."""
    # Products of one weight are summed first, as in the block: a solver is slow to find that sums in another order are equal.
    low, high = (sum(products[4 + i :: 4], products[i]) for i in (0, 3))
    middle = sum(products[5::4] + products[6::4], products[1] + products[2])
    word_sum = Signal(signed(25))
    m.d.comb += word_sum.eq(Mux(eight_bit, low + 32 * middle + 1024 * high, low + high + middle))

    accumulator, overflow = Signal(signed(32), reset_less=True), Signal(reset_less=True)
    exact = Signal(signed(40))
    m.d.comb += exact.eq(Mux(boundary, 0, accumulator) + word_sum)
    m.d.sync += [accumulator.eq(exact), overflow.eq(Mux(boundary, 0, overflow) | (exact > 2**31 - 1) | (exact < -(2**31)))]
    result = Cat(accumulator, overflow)
    m.d.comb += [
        Assert(pe.accumulator == accumulator),
        Assert(pe.overflow == overflow),
        Assert(pe.drain_out == Mux(boundary, drain_in | result, drain_in)),
        Cover(boundary & (accumulator == -1023 * 256 * len(products)) & eight_bit),
        Cover(boundary & (accumulator == 2 * most**2 * len(products)) & ~eight_bit),
    ]


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
] + [
    Proof(
        name="ltoaq.array.wide_pe.paired",
        spec=PairedSpec,
        fault=partial(PairedSpec, LosesTheBorrow),
        engine="induction",
        depth=4,
        cover_depth=5,
        reason="as the others, for all products that lanes have; the multiplicands' values are proved with the packer, and the bench tests "
        "the products pair by pair",
    )
]
