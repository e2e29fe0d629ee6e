"""The decoder at the edge of the wide array: OAQ codes to plain integers."""

from functools import reduce
from operator import or_

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

from .operand_setup import OperandSettings

__all__ = ["OperandDecoder"]

_LANES = 4
_COPIES = {"a": (0, 1, 0, 1), "w": (0, 0, 1, 1)}
"""The lane each lane repeats in 8-bit mode: A lies as low, high, low, high and W as low, low, high, high."""


@emit_once
class OperandDecoder(wiring.Component):
    """Decodes four 4-bit codes, or one 8-bit code, into the lanes of one row or column of the wide array.

    A normal code is its own value; an outlier is ±(T + q·2^k), which must not exceed 31 (4-bit codes) or 1023
    (8-bit codes): `ResidualClip` sees to that. A larger one comes out as anything within its lanes. In 4-bit mode
    lane i is the value of code i, six bits of two's complement. In 8-bit mode a value is high·2⁵ + low, with five unsigned bits of
    ``low`` and six signed ones of ``high``; every lane holds one of the two, placed so that lane-wise products of A and W
    are all four partial products. Codes 15:8 and flags 3:1 mean nothing in 8-bit mode.

    There is one decoder for every four lanes of a row or a column, so everything that depends on the tensor alone comes in as
    `OperandSettings`. A negative outlier is the ones' complement of (T − 1) + q·2^k, which saves its negation; the positive one
    adds 1 by the carry.

    (Section IV-A of the paper, whose decoder feeds fused clusters instead; equation 4.)

    Latency: none, combinational. Throughput: four 4-bit codes or one of 8 bits a cycle.

    Parameters
    ----------
    role : str
        ``"a"`` or ``"w"``: how 8-bit halves lie on the lanes. ValueError otherwise.

    Members
    -------
    settings : In(OperandSettings)
    codes : In(16)
        Code 0 least significant.
    flags : In(4)
        Which codes are outliers.
    lanes : Out(4 * 6)
        Signed, lane 0 least significant.
    """

    def __init__(self, role: str) -> None:
        if role not in _COPIES:
            raise ValueError(f"role must be 'a' or 'w', not {role!r}")
        self.role = role
        super().__init__({"settings": In(OperandSettings), "codes": In(16), "flags": In(4), "lanes": Out(6 * _LANES)})

    @property
    def module_name(self) -> str:
        return f"operand_decoder_{self.role}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        settings, codes = self.settings, self.codes
        eight = settings.eight_bit
        nibbles = [codes.word_select(i, 4) for i in range(_LANES)]
        flags = [self.flags[i] for i in range(_LANES)]
        flags[1] = Mux(eight, self.flags[0], self.flags[1])
        negative, top_bit = (Signal(_LANES, name=name) for name in ("negative", "top_bit"))
        for i, nibble in enumerate(nibbles):
            sign = Mux(eight, nibbles[1][3], nibble[3]) if i == 0 else nibble[3]
            m.d.comb += [
                negative[i].eq(settings.signed & sign),
                top_bit[i].eq(nibble[3] & (settings.low_top_bit if i == 0 else ~settings.signed)),
            ]
        q = [Cat(nibble[:3], top) for nibble, top in zip(nibbles, top_bit, strict=True)]

        # Sums of lane 0 carry into lane 1 in 8-bit mode.
        sums, carry = [], Const(0, 1)
        for i in range(_LANES):
            shifted = self._shift(m, i, q[i])
            addend = settings.high_addend if i == 1 else settings.low_addend[: 5 if i == 0 else 4]
            carry_in = Mux(eight, carry, ~negative[i]) if i == 1 else ~negative[i]
            total, carry = self._add(m, i, shifted, addend, carry_in)
            sums.append(total)

        normal = [Cat(nibble, sign) for nibble, sign in zip(nibbles, negative, strict=True)]
        normal[0] = Cat(nibbles[0], Mux(eight, nibbles[1][0], negative[0]))
        normal[1] = Cat(Mux(eight, Cat(codes[5:8], negative[1]), nibbles[1]), negative[1])
        lanes = [Signal(6, name=f"lane{i}") for i in range(_LANES)]
        for i, lane in enumerate(lanes):
            value = Mux(flags[i], sums[i] ^ negative[i].replicate(5), normal[i])
            m.d.comb += lane.eq(Cat(value, negative[i] & ~eight if i == 0 else negative[i]))
        m.d.comb += self.lanes.eq(
            Cat(
                lane if copy == i else Mux(eight, lanes[copy], lane)
                for i, (lane, copy) in enumerate(zip(lanes, _COPIES[self.role], strict=True))
            )
        )
        return m

    def _shift(self, m: Module, lane: int, q: Value) -> Signal:
        """q·2^k; bits above the fifth are 0 where the contract is kept."""
        settings, lowest = self.settings, 1 if lane == 1 else 0
        by = settings.high_shift if lane == 1 else settings.low_shift
        shifted = Signal(5, name=f"shifted{lane}")
        for place in range(5):
            terms = [by[n] & q[place - n + lowest] for n in range(len(by)) if 0 <= place - n + lowest < 4]
            if lane == 0 and place == 4:
                terms.append(settings.bit4_into_low & self.codes[4])
            if lane == 1 and place == 0:
                terms += [settings.low_into_high[0] & self.codes[3], settings.low_into_high[1] & self.codes[2]]
            if lane == 1 and place == 1:
                terms.append(settings.low_into_high[1] & self.codes[3])
            m.d.comb += shifted[place].eq(reduce(or_, terms))
        return shifted

    @staticmethod
    def _add(m: Module, lane: int, a: Value, b: Value, carry_in: Value) -> tuple[Signal, Value]:
        """Five-bit sum and carry, rippling: these adders are too short for anything else."""
        total, carry = Signal(5, name=f"sum{lane}"), Signal(6, name=f"carry{lane}")
        m.d.comb += carry[0].eq(carry_in)
        for i in range(5):
            if i < len(b):
                half = Signal(name=f"half{lane}_{i}")
                m.d.comb += [half.eq(a[i] ^ b[i]), total[i].eq(half ^ carry[i]), carry[i + 1].eq((a[i] & b[i]) | (half & carry[i]))]
            else:
                m.d.comb += [total[i].eq(a[i] ^ carry[i]), carry[i + 1].eq(a[i] & carry[i])]
        return total, carry[5]
