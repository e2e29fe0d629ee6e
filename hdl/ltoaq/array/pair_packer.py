"""Packs a word's lanes at the array's edge, so that one multiplier of 18 × 18 bits forms two products."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

__all__ = ["FIELD", "LANE_BITS", "PairPacker"]

LANE_BITS = 6
FIELD = 12
"""How far apart two lanes lie in a multiplicand: as many bits as the sum of two products takes."""


@emit_once
class PairPacker(wiring.Component):
    """Makes an inner and an outer multiplicand of the four lanes of a word of A or W, 18 bits each, signed.

        4-bit mode:  A: inner = a_1 + a_2·2^12, outer = a_0 + a_3·2^12     W: inner = w_2 + w_1·2^12, outer = w_3 + w_0·2^12
        8-bit mode:  A: inner = 0, outer = A·2^6                           W: outer = W·2^6

    so that in 4-bit mode bits 12 and up of the outer products' product hold a_0·w_0 + a_3·w_3, those of the inner ones'
    a_1·w_1 + a_2·w_2 (see `WidePe`), and in 8-bit mode the outer product is A·W·2^12 and the inner one 0. A lane above a negative one is
    decremented, which is done here once for all PEs of a row or a column.

    Lanes lie as in the words of `WidePe`. In 4-bit mode the upper one of two must not be −32 where the lower is negative; no operand is
    below −31 (`OperandDecoder`). Zeros are packed to zeros.

    Latency: none, combinational. Throughput: a word a cycle.

    Parameters
    ----------
    role : str
        ``"a"`` or ``"w"``: which of two lanes is the lower. ValueError otherwise.

    Members
    -------
    lanes : In(4 * 6)
        Lane 0 least significant.
    eight_bit : In(1)
    word : Out(30)
        Of the inner multiplicand, least significant, the lower and the upper six bits; the six between repeat the lower lane's sign. All
        of the outer one. In 8-bit mode W's inner one is anything.
    """

    WORD_BITS = 30

    def __init__(self, role: str) -> None:
        if role not in ("a", "w"):
            raise ValueError(f"role must be 'a' or 'w', not {role!r}")
        self.role = role
        super().__init__({"lanes": In(4 * LANE_BITS), "eight_bit": In(1), "word": Out(self.WORD_BITS)})

    @property
    def module_name(self) -> str:
        return f"pair_packer_{self.role}"

    @staticmethod
    def multiplicands(word: Value) -> tuple[Value, Value]:
        """The outer and the inner one of a word."""
        low, high = word[:LANE_BITS], word[LANE_BITS : 2 * LANE_BITS]
        return word[2 * LANE_BITS :].as_signed(), Cat(low, low[-1].replicate(FIELD - LANE_BITS), high).as_signed()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = [self.lanes.word_select(lane, LANE_BITS) for lane in range(4)]
        # Of A the lower lanes are 0 and 1, of W 3 and 2.
        (low, inner_low, inner_high, high) = lanes if self.role == "a" else reversed(lanes)
        packed = [Signal(LANE_BITS, name=name) for name in ("upper", "inner_upper")]
        m.d.comb += [
            upper.eq(above - below[-1]) for upper, above, below in zip(packed, (high, inner_high), (low, inner_low), strict=True)
        ]
        upper, inner_upper = packed
        four = Cat(low, low[-1].replicate(FIELD - LANE_BITS), upper)
        eight = Cat(Const(0, LANE_BITS), lanes[0][: LANE_BITS - 1], lanes[3], lanes[3][-1])
        inner = Cat(inner_low, inner_upper)
        if self.role == "a":
            inner = Mux(self.eight_bit, 0, inner)
        m.d.comb += self.word.eq(Cat(inner, Mux(self.eight_bit, eight, four)))
        return m
