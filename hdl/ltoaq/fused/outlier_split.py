"""Splits a word into base and residual, so that outliers cost products but no shifts inside a PE."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .lane_form import LANES, LOW_LANES, Word

__all__ = ["OutlierSplit", "SplitFormat"]


class SplitFormat(data.Struct):
    """How the words of an operand are read; constant during a pass.

    ``plus`` and ``minus`` hold T and −T as nibbles for low and high lanes; with 4-bit codes both halves hold the same nibble.
    """

    signed: 1
    k: 2
    plus: data.ArrayLayout(4, 2)
    minus: data.ArrayLayout(4, 2)


class OutlierSplit(wiring.Component):
    """word = base + residual·2^k, for a word in lane form (equation 4: the OAQ tensor and the threshold of an outlier).

    Normal lanes: base is the code, residual is 0. Outlier lanes: base is ±T, residual is ±q. Both are four nibbles read
    like the codes themselves.

    Latency: none, combinational. Throughput: a word a cycle.

    Parameters
    ----------
    role : str
        ``"a"`` or ``"w"``: where the nibbles of an 8-bit code lie.

    Members
    -------
    eight_bit : In(1)
    format : In(SplitFormat)
    i : In(Word)
        In lane form, see `LaneForm`.
    base, residual : Out(16)
        Four nibbles, lane 0 least significant.
    """

    def __init__(self, role: str) -> None:
        self.role = role
        super().__init__(
            {"eight_bit": In(1), "format": In(SplitFormat), "i": In(Word), "base": Out(4 * LANES), "residual": Out(4 * LANES)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        codes, lows = self.i.codes, LOW_LANES[self.role]
        highs = [max(lane for lane in range(LANES) if lows[lane] == low) for low in lows]
        minus = self.format.minus
        plus = self.format.plus
        for lane, low in enumerate(lows):
            is_high = int(lane != low)
            code = codes[lane]
            negative = Signal(name=f"negative{lane}")
            threshold = Signal(4, name=f"threshold{lane}")
            # The sign bit alone is −0, which must not count as −8 (high nibble of −128).
            magnitude = Signal(name=f"magnitude{lane}")
            top = code[3] if is_high else Mux(self.eight_bit, codes[highs[lane]][3], code[3])
            if is_high:
                m.d.comb += magnitude.eq(code[:3].any() | (self.eight_bit & codes[low].any()) | ~self.format.signed)
            else:
                m.d.comb += magnitude.eq(code[:3].any() | self.eight_bit | ~self.format.signed)
            m.d.comb += [
                negative.eq(top & self.format.signed),
                threshold.eq(Mux(negative, minus[is_high], plus[is_high])),
                self.base.word_select(lane, 4).eq(Mux(self.i.outlier[lane], threshold, code)),
                self.residual.word_select(lane, 4)[:3].eq(code[:3] & self.i.outlier[lane].replicate(3)),
                self.residual.word_select(lane, 4)[3].eq(code[3] & magnitude & self.i.outlier[lane]),
            ]
        return m
