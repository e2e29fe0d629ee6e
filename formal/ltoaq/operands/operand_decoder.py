"""The operand decoder equals the formula of docs/formats.md for every code and every legal format."""

from functools import partial

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.operands.operand_decoder import OperandDecoder
from nibblecore.hdl.ltoaq.operands.operand_setup import OperandSetup


class OperandSpec(wiring.Component):
    """`OperandSetup` and `OperandDecoder` against shift, add, negate, select in that order; no outlier is beyond the range.

    With `fault`, one bit of a shared constant is inverted on its way to the decoder.
    """

    def __init__(self, role: str, fault: bool = False) -> None:
        self.role, self.fault = role, fault
        super().__init__({"codes": In(16), "flags": In(4), "eight_bit": In(1), "is_signed": In(1), "threshold": In(8), "k": In(2)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.setup = setup = OperandSetup()
        m.submodules.decoder = decoder = OperandDecoder(self.role)
        m.d.comb += [
            setup.eight_bit.eq(self.eight_bit),
            setup.is_signed.eq(self.is_signed),
            setup.threshold.eq(self.threshold),
            setup.k.eq(self.k),
            decoder.settings.eq(setup.settings),
            decoder.codes.eq(self.codes),
            decoder.flags.eq(self.flags),
        ]
        if self.fault:
            m.d.comb += decoder.settings.low_into_high[1].eq(0)
        magnitude_bits = Signal(4)
        m.d.comb += magnitude_bits.eq(Mux(self.eight_bit, 8, 4) - self.is_signed)
        m.d.comb += Assume((self.threshold != 0) & (self.threshold < (1 << magnitude_bits)))

        def value(name: str, code: Value, flag: Value, value_max: int) -> Signal:
            """A code's value by the table."""
            q, magnitude = Signal(8, name=f"{name}_q"), Signal(12, name=f"{name}_magnitude")
            negative, result = Signal(name=f"{name}_negative"), Signal(signed(12), name=f"{name}_value")
            m.d.comb += [
                negative.eq(self.is_signed & code[-1]),
                q.eq(Mux(self.is_signed, code[:-1], code)),
                magnitude.eq(self.threshold + (q << self.k)),
            ]
            m.d.comb += Assume(~flag | (self.eight_bit != (value_max == 1023)) | (magnitude <= value_max))
            normal = Mux(self.is_signed, code.as_signed(), code)
            m.d.comb += result.eq(Mux(flag, Mux(negative, -magnitude, magnitude), normal))
            return result

        lanes = [decoder.lanes.word_select(i, 6) for i in range(4)]
        four = [value(f"code{i}", self.codes.word_select(i, 4), self.flags[i], 31) for i in range(4)]
        eight = value("byte", self.codes[:8], self.flags[0], 1023)
        halves = ((0, 1), (2, 3), (0, 3)) if self.role == "a" else ((0, 2), (1, 3), (0, 3))
        with m.If(self.eight_bit):
            for low, high in halves:
                m.d.comb += [Assert(~lanes[low][5]), Assert(Cat(lanes[low][:5], lanes[high]).as_signed() == eight)]
            m.d.comb += Cover((eight == -1023) & (self.k == 3))
        with m.Else():
            m.d.comb += [Assert(lane.as_signed() == one) for lane, one in zip(lanes, four, strict=True)]
            m.d.comb += Cover((four[0] == -31) & (four[1] == 31) & ~self.flags[2] & (four[2] == -8) & (four[3] == -27))
        return m


PROOFS = [
    Proof(
        name=f"ltoaq.operands.operand_decoder.value_{role}",
        spec=partial(OperandSpec, role),
        fault=partial(OperandSpec, role, fault=True),
        engine="bmc",
        depth=1,
        cover_depth=1,
        reason="combinational, so one cycle is everything; T outside 1..Qmax and outliers that `ResidualClip` would clip are excluded",
    )
    for role in ("a", "w")
]
