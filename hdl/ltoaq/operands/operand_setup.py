"""What all operand decoders of one edge share: the constants they need, derived once from the tensor's format."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["OperandSettings", "OperandSetup"]


class OperandSettings(data.Struct):
    """Constants of an `OperandDecoder`, the same for all decoders of an edge.

    The adders of lanes 0 and 1 are chained into one of 10 bits in 8-bit mode: `low_…` belongs to lane
    0 (and 2 and 3), `high_…` to lane 1. Shifts are one-hot.
    """

    eight_bit: 1
    signed: 1
    low_top_bit: 1  # bit 3 of the lowest nibble is magnitude, not sign
    low_addend: 5  # T − 1
    high_addend: 4
    low_shift: 4  # by 0, 1, 2, 3
    high_shift: 5  # by −1, 0, 1, 2, 3: an 8-bit code's high nibble starts one bit below lane 1
    bit4_into_low: 1  # 8-bit codes, k = 0: bit 4 of the code lies in the low half
    low_into_high: 2  # 8-bit codes, k = 2 and k = 3: bits of the low nibble reach the high half


class OperandSetup(wiring.Component):
    """Derives `OperandSettings` from a tensor's format.

    Unless 1 ≤ ``threshold`` ≤ Qmax the settings are of no use; lanes stay within their six bits.

    Latency: none, combinational. Throughput: a format a cycle.

    Members
    -------
    eight_bit, is_signed : In(1)
    threshold : In(8)
        T.
    k : In(2)
    settings : Out(OperandSettings)
    """

    def __init__(self) -> None:
        super().__init__({"eight_bit": In(1), "is_signed": In(1), "threshold": In(8), "k": In(2), "settings": Out(OperandSettings)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        s, eight = self.settings, self.eight_bit
        addend = Signal(8)
        m.d.comb += addend.eq(self.threshold - 1)
        by = Signal(4)
        m.d.comb += by.eq(1 << self.k)
        m.d.comb += [
            s.eight_bit.eq(eight),
            s.signed.eq(self.is_signed),
            s.low_top_bit.eq(eight | ~self.is_signed),
            s.low_addend.eq(Mux(eight, addend[:5], addend[:4])),
            s.high_addend.eq(Mux(eight, addend[5:], addend[:4])),
            s.low_shift.eq(by),
            s.high_shift.eq(Mux(eight, by, by << 1)),
            s.bit4_into_low.eq(eight & by[0]),
            s.low_into_high.eq(Mux(eight, Cat(by[2], by[3]), 0)),
        ]
        return m
