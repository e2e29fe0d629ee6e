"""Brings the words of an operand into the form the fused clusters compute on, once at the array's edge."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["LANES", "LOW_LANES", "LaneForm", "Word"]

LANES = 4
LOW_LANES = {"a": (0, 0, 2, 2), "w": (0, 1, 0, 1)}
"""For each lane, the lane that holds the low nibble of its 8-bit code (itself in the low lanes), by operand."""


class Word(data.Struct):
    """Four nibbles and whether each belongs to an outlier, lane 0 least significant."""

    codes: data.ArrayLayout(4, LANES)
    outlier: LANES


class LaneForm(wiring.Component):
    """A word of OAQ codes (see docs/formats.md) into lane form.

    Lane form: 8-bit codes are spread as `NibbleMac` wants them, A as (A_L, A_H, A_L, A_H), W as (W_L, W_L, W_H, W_H), with the
    one flag on all four lanes. A signed outlier's code is the two's complement of ±q; −8 (−128 for 8 bits) stands for −0.

    Here and not in the clusters, because an array has far fewer edges than clusters.

    Latency: none, combinational. Throughput: a word a cycle.

    Parameters
    ----------
    role : str
        ``"a"`` or ``"w"``.

    Members
    -------
    eight_bit, is_signed : In(1)
    i : In(Word)
        Four 4-bit codes and their flags; in 8-bit mode one code in lanes 0 (low nibble) and 1, its flag in ``outlier[0]``, and
        the rest is ignored.
    o : Out(Word)
        In lane form.
    """

    def __init__(self, role: str) -> None:
        self.role = role
        super().__init__({"eight_bit": In(1), "is_signed": In(1), "i": In(Word), "o": Out(Word)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        codes, outlier = self.i.codes, self.i.outlier
        converted = [Signal(4, name=f"converted{lane}") for lane in range(LANES)]
        for lane, code in enumerate(converted):
            negated = Signal(4, name=f"negated{lane}")
            m.d.comb += [
                negated.eq(Mux(codes[lane][:3] == 0, 8, -codes[lane][:3])),
                code.eq(Mux(outlier[lane] & self.is_signed & codes[lane][3], negated, codes[lane])),
            ]
        magnitude = Signal(7)
        byte = Signal(8)
        m.d.comb += [
            magnitude.eq(Cat(codes[0], codes[1])),
            byte.eq(Mux(outlier[0] & self.is_signed & codes[1][3], Mux(magnitude == 0, 0x80, -magnitude), Cat(codes[0], codes[1]))),
        ]
        for lane, low in enumerate(LOW_LANES[self.role]):
            nibble = byte[:4] if lane == low else byte[4:]
            m.d.comb += [
                self.o.codes[lane].eq(Mux(self.eight_bit, nibble, converted[lane])),
                self.o.outlier[lane].eq(Mux(self.eight_bit, outlier[0], outlier[lane])),
            ]
        return m
