"""The nibble MAC equals plain multiplication in both modes, for every sign setting."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.arith.nibble_mac import NibbleMac

__all__ = ["PROOFS"]


class FaultyNibbleMac(NibbleMac):
    """Takes W's second low nibble for a signed one."""

    _W_LOW = (True, False, False, False)


class EightBitSpec(wiring.Component):
    """8-bit operands, laid out as the contract says.

    The product is A·W (`whole`, a hard problem for a solver), or equation (5), corrected, over nibble products that the solver
    sees on both sides.
    """

    def __init__(self, block: type[NibbleMac] = NibbleMac, *, whole: bool = False) -> None:
        self.block, self.whole = block, whole
        super().__init__({"a": In(8), "w": In(8), "a_signed": In(1), "w_signed": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.mac = mac = self.block()
        expected = Signal(signed(17))
        m.d.comb += [
            mac.eight_bit.eq(1),
            mac.a_signed.eq(self.a_signed),
            mac.w_signed.eq(self.w_signed),
            mac.a.eq(Cat(self.a, self.a)),
            mac.w.eq(Cat(self.w[:4], self.w[:4], self.w[4:], self.w[4:])),
            Assert(mac.product == expected),
            Cover(mac.product == 255 * -128),
        ]
        a_sign, w_sign = self.a[7] & self.a_signed, self.w[7] & self.w_signed
        if self.whole:
            m.d.comb += expected.eq(Cat(self.a, a_sign).as_signed() * Cat(self.w, w_sign).as_signed())
            return m
        a, w = self.a, self.w
        operands = {"al": Cat(a[:4], 0), "ah": Cat(a[4:], a_sign), "wl": Cat(w[:4], 0), "wh": Cat(w[4:], w_sign)}
        al, ah, wl, wh = (Signal(signed(5), name=name) for name in operands)
        for signal, value in zip((al, ah, wl, wh), operands.values(), strict=True):
            m.d.comb += signal.eq(value)
        m.d.comb += expected.eq(((ah * wh) << 8) + ((ah * wl) << 4) + ((al * wh) << 4) + al * wl)
        return m


class FourBitSpec(wiring.Component):
    """Four lanes of 4-bit operands: the product is the sum over the lanes."""

    def __init__(self, block: type[NibbleMac] = NibbleMac) -> None:
        self.block = block
        super().__init__({"a": In(16), "w": In(16), "a_signed": In(1), "w_signed": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.mac = mac = self.block()
        m.d.comb += [mac.a.eq(self.a), mac.w.eq(self.w), mac.a_signed.eq(self.a_signed), mac.w_signed.eq(self.w_signed)]
        products = []
        for lane in range(4):
            a, w = self.a.word_select(lane, 4), self.w.word_select(lane, 4)
            products.append(Mux(self.a_signed, a.as_signed(), a) * Mux(self.w_signed, w.as_signed(), w))
        m.d.comb += [Assert(mac.product == sum(products)), Cover(mac.product == 900), Cover(mac.product == -480)]
        return m


class UnsignedNibbleMac(NibbleMac):
    """Takes A for unsigned wherever W's last lane is large."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.inner = inner = NibbleMac()
        m.d.comb += [
            inner.a.eq(self.a),
            inner.w.eq(self.w),
            inner.eight_bit.eq(self.eight_bit),
            self.product.eq(inner.product),
            inner.a_signed.eq(self.a_signed & ~self.w[15]),
            inner.w_signed.eq(self.w_signed),
        ]
        return m


PROOFS = [
    Proof(
        name="arith.nibble_mac.eight_bit",
        spec=EightBitSpec,
        fault=lambda: EightBitSpec(FaultyNibbleMac),
        engine="bmc",
        depth=1,
        cover_depth=1,
        reason="combinational: one step is every input",
    ),
    Proof(
        name="arith.nibble_mac.four_bit",
        spec=FourBitSpec,
        fault=lambda: FourBitSpec(UnsignedNibbleMac),
        engine="bmc",
        depth=1,
        cover_depth=1,
        reason="combinational: one step is every input",
    ),
    Proof(
        name="arith.nibble_mac.whole_product",
        spec=lambda: EightBitSpec(whole=True),
        fault=lambda: EightBitSpec(FaultyNibbleMac, whole=True),
        engine="bmc",
        depth=1,
        cover_depth=1,
        slow=True,
        timeout=3600,
        reason="combinational: one step is every input; minutes, and the bench runs through every pair",
    ),
]
