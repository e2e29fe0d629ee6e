"""Lane form and split together: base + residual·2^k is the value of every OAQ code."""

from functools import partial
from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.fused.lane_form import LOW_LANES, LaneForm, Word
from nibblecore.hdl.ltoaq.fused.outlier_split import OutlierSplit

__all__ = ["PROOFS"]


class FaultySplit(OutlierSplit):
    """Reads −0 as −8."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.inner = inner = OutlierSplit(self.role)
        m.d.comb += [inner.eight_bit.eq(self.eight_bit), inner.format.eq(self.format), inner.i.eq(self.i), self.base.eq(inner.base)]
        for lane in range(4):
            code = self.i.codes[lane]
            residual = inner.residual.word_select(lane, 4)
            m.d.comb += self.residual.word_select(lane, 4).eq(Cat(residual[:3], code[3] & self.i.outlier[lane]))
        return m


class ValueSpec(wiring.Component):
    """Against the table of docs/formats.md, for any word, T and k."""

    def __init__(self, role: str, split: type[OutlierSplit] = OutlierSplit) -> None:
        self.role = role
        self.split = split
        super().__init__({"eight_bit": In(1), "is_signed": In(1), "threshold": In(8), "k": In(2), "word": In(Word)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.form = form = LaneForm(self.role)
        m.submodules.split = split = self.split(self.role)
        limit = Mux(self.eight_bit, Mux(self.is_signed, 127, 255), Mux(self.is_signed, 7, 15))
        minus = (-self.threshold)[:8]
        m.d.comb += [
            Assume((self.threshold >= 1) & (self.threshold <= limit)),
            form.eight_bit.eq(self.eight_bit),
            form.is_signed.eq(self.is_signed),
            form.i.eq(self.word),
            split.eight_bit.eq(self.eight_bit),
            split.i.eq(form.o),
            split.format.signed.eq(self.is_signed),
            split.format.k.eq(self.k),
        ]
        for nibbles, value in ((split.format.plus, self.threshold), (split.format.minus, minus)):
            m.d.comb += Cat(nibbles).eq(Mux(self.eight_bit, value, value[:4].replicate(2)))

        lows = LOW_LANES[self.role]
        for lane, low in enumerate(lows):
            base, residual = (word.word_select(lane, 4) for word in (split.base, split.residual))
            code, outlier = self.word.codes[lane], self.word.outlier[lane]
            four = self._value(m, f"four{lane}", code, outlier, 4)
            parts = [self._read(part) for part in (base, residual)]
            m.d.comb += Assert(self.eight_bit | (parts[0] + (parts[1] << self.k) == four))
            if lane != low:
                byte = Cat(self.word.codes[0], self.word.codes[1])
                eight = self._value(m, f"eight{lane}", byte, self.word.outlier[0], 8)
                halves = [Cat(word.word_select(low, 4), word.word_select(lane, 4)) for word in (split.base, split.residual)]
                parts = [self._read(part) for part in halves]
                m.d.comb += Assert(~self.eight_bit | (parts[0] + (parts[1] << self.k) == eight))
        m.d.comb += [
            Cover(self.eight_bit & (eight == -127 - 127 * 8)),
            Cover(~self.eight_bit & self.word.outlier[0] & (four == -7)),
        ]
        return m

    def _read(self, bits: Any) -> Any:
        return Mux(self.is_signed, bits.as_signed(), bits)

    def _value(self, m: Module, name: str, code: Any, outlier: Any, bits: int) -> Signal:
        value, magnitude = Signal(signed(13), name=name), Signal(12, name=f"{name}_magnitude")
        q = Mux(self.is_signed, code[: bits - 1], code)
        m.d.comb += magnitude.eq(self.threshold + (q << self.k))
        m.d.comb += value.eq(Mux(outlier, Mux(self.is_signed & code[bits - 1], -magnitude, magnitude), self._read(code)))
        return value


PROOFS = [
    Proof(
        name=f"ltoaq.fused.outlier_split.{role}",
        spec=partial(ValueSpec, role),
        fault=partial(ValueSpec, role, FaultySplit),
        engine="bmc",
        depth=1,
        cover_depth=1,
        reason="combinational: one step is every input",
    )
    for role in ("a", "w")
]
