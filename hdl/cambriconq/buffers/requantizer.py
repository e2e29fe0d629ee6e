"""Shifts a quantized value to a larger exponent."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

__all__ = ["SHIFT_BITS", "Requantizer"]

SHIFT_BITS = 5
"""Of a difference of exponents; 16 stands for all that are larger, too."""


@emit_once
class Requantizer(wiring.Component):
    """``o`` = ``i`` / 2^``shift``, rounded half away from zero and clipped to ±Qmax of ``size`` (Section IV-B2).

    −2^15, which no format has, counts as −(2^15 − 1). A shift of 16 or more leaves 0.

    Half away from zero is the floor plus the bit below it, for a negative number only if a bit below that is set as well. Whether the sum
    has to be clipped is read from the floor, beside the addition: it lies at or beyond Qmax, seen from zero.

    Latency: none, combinational. Throughput: a value a cycle.

    Members
    -------
    i : In(signed(16))
    shift : In(5)
    size : In(2)
        bits / 4 − 1 of the format of ``o``.
    o : Out(signed(16))
    """

    def __init__(self) -> None:
        super().__init__({"i": In(signed(16)), "shift": In(SHIFT_BITS), "size": In(2), "o": Out(signed(16))})

    @property
    def module_name(self) -> str:
        return "requantizer"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sign, sticky = self.i[-1], Const(0, 1)
        # One place more, below: the bit that rounds.
        value = Cat(Const(0, 1), self.i).as_signed()
        for place in reversed(range(SHIFT_BITS - 1)):
            step = 2**place
            shifted, seen = Signal(signed(17), name=f"shifted{step}"), Signal(name=f"sticky{step}")
            m.d.comb += [
                shifted.eq(Mux(self.shift[place], value >> step, value)),
                seen.eq(sticky | self.shift[place] & value[:step].any()),
            ]
            value, sticky = shifted, seen
        floor = Signal(signed(16))
        up = Signal()
        m.d.comb += [floor.eq(value[1:]), up.eq(value[0] & (~sign | sticky))]

        # Distance of the floor from 0 or −1; Qmax has 3, 7, 11 or 15 bits.
        distance = Signal(15)
        in_range = Signal(15)
        within = Signal()
        beyond = Signal()
        m.d.comb += [
            distance.eq(floor[:15] ^ sign.replicate(15)),
            in_range.eq(Cat(Const(7, 3), *((self.size > place).replicate(4) for place in range(3)))),
            beyond.eq((distance & ~in_range).any()),
            within.eq((~distance & in_range).any()),
        ]
        clips = Signal()
        rounded = Signal(16)
        limit = Signal(16)
        m.d.comb += [
            clips.eq(beyond | ~within & (up ^ sign)),
            rounded.eq(floor + up),
            limit.eq(Cat(Const(1, 1), in_range[1:] ^ sign.replicate(14), sign)),
            self.o.eq(Mux(self.shift[-1], 0, Mux(clips, limit, rounded))),
        ]
        return m
