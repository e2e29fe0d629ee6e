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
    """8-bit operands, laid out as the contract says: the product is A·W."""

    def __init__(self, block: type[NibbleMac] = NibbleMac) -> None:
        self.block = block
        super().__init__({"a": In(8), "w": In(8), "a_signed": In(1), "w_signed": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.mac = mac = self.block()
        a, w, expected = Signal(signed(9)), Signal(signed(9)), Signal(signed(17))
        m.d.comb += [
            mac.eight_bit.eq(1), mac.a_signed.eq(self.a_signed), mac.w_signed.eq(self.w_signed),
            mac.a.eq(Cat(self.a, self.a)),
            mac.w.eq(Cat(self.w[:4], self.w[:4], self.w[4:], self.w[4:])),
            a.eq(Cat(self.a, self.a_signed & self.a[7])), w.eq(Cat(self.w, self.w_signed & self.w[7])), expected.eq(a * w),
            Assert(mac.product == expected),
            Cover(mac.product == 255 * -128),
        ]  # fmt: skip
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


class UnshiftedNibbleMac(NibbleMac):
    """Reads a low nibble of A for a high one, in the mode where no lane is low."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.inner = inner = NibbleMac()
        m.d.comb += [
            inner.a.eq(self.a), inner.w.eq(self.w), inner.a_signed.eq(self.a_signed & ~self.w[15]), inner.w_signed.eq(self.w_signed),
            inner.eight_bit.eq(self.eight_bit), self.product.eq(inner.product),
        ]  # fmt: skip
        return m


PROOFS = [
    Proof(name="arith.nibble_mac.eight_bit", spec=EightBitSpec, fault=lambda: EightBitSpec(FaultyNibbleMac),
          engine="bmc", depth=1, cover_depth=1, reason="combinational: one step is every input"),
    Proof(name="arith.nibble_mac.four_bit", spec=FourBitSpec, fault=lambda: FourBitSpec(UnshiftedNibbleMac),
          engine="bmc", depth=1, cover_depth=1, reason="combinational: one step is every input"),
]  # fmt: skip
