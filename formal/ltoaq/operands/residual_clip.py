"""A clipped residual is the largest that stays within the range, and everything else passes unchanged."""

from functools import partial

from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.command.job import OperandFormat
from nibblecore.hdl.ltoaq.operands.residual_clip import ResidualClip
from nibblecore.hdl.ltoaq.operands.transposer import beat_layout

_BLOCK = 2


class ResidualClipSpec(wiring.Component):
    """Beats of four 4-bit codes or two 8-bit ones against the definition by T + q·2^k alone.

    With `fault`, the lower nibbles of 8-bit codes do not count.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"eight_bit": In(1), "format": In(OperandFormat), "i": In(beat_layout(_BLOCK))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.clip = clip = ResidualClip(_BLOCK)
        form = self.format
        code_max = Mux(self.eight_bit, Mux(form.signed, 127, 255), Mux(form.signed, 7, 15))
        m.d.comb += [
            Assume((form.threshold >= 1) & (form.threshold <= code_max)),
            clip.eight_bit.eq(self.eight_bit),
            clip.format.eq(form),
            clip.i.eq(self.i),
            Assert(clip.o.flags == self.i.flags),
        ]
        if self.fault:
            m.d.comb += clip.i.codes[:3].eq(self.i.codes[:3] & (~self.eight_bit).replicate(3))
        changed = []
        for bits, value_max in ((4, 31), (8, 1023)):
            for lane in range(4 * _BLOCK**2 // bits):
                given, got = (beat.codes.word_select(lane, bits) for beat in (self.i, clip.o))
                right = self._right(m, f"q{bits}_{lane}", given, got, self.i.flags[lane], value_max)
                m.d.comb += Assert(right | (self.eight_bit != (bits == 8)))
                changed.append((given != got) & (self.eight_bit == (bits == 8)) & (form.k == 3) & form.signed)
        m.d.comb += [Cover(changed[0]), Cover(changed[-1])]
        return m

    def _right(self, m: Module, name: str, given: Value, got: Value, outlier: Value, value_max: int) -> Value:
        q, clipped = Signal(8, name=name), Signal(8, name=f"{name}_clipped")
        form = self.format
        m.d.comb += [q.eq(Mux(form.signed, given[:-1], given)), clipped.eq(Mux(form.signed, got[:-1], got))]
        inside = form.threshold + (q << form.k) <= value_max
        largest = (form.threshold + (clipped << form.k) <= value_max) & (form.threshold + ((clipped + 1) << form.k) > value_max)
        return Mux(~outlier | inside, got == given, largest & (~form.signed | (got[-1] == given[-1])))


PROOFS = [
    Proof(
        name="ltoaq.operands.residual_clip.largest",
        spec=ResidualClipSpec,
        fault=partial(ResidualClipSpec, fault=True),
        engine="bmc",
        depth=1,
        cover_depth=1,
        reason="combinational, so one cycle is everything; T outside 1..Qmax is excluded",
    )
]
