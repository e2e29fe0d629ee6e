"""Cubics in fixed point: the tables of all unary functions, and the one chain of multipliers that evaluates them."""

from collections.abc import Callable, Sequence
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, localcontext
from enum import IntEnum

from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

__all__ = ["ARGUMENT_BITS", "P_BITS", "Group", "SfuCubic", "coefficients"]

SEGMENT_BITS = 5
_SEGMENTS = 2**SEGMENT_BITS
U_BITS = 22
ARGUMENT_BITS = SEGMENT_BITS + U_BITS

P_BITS = 28
_UNITS = (-27, -28, -27, -27)
"""Exponents of the units of c0..c3, and of the sums that begin with them."""
_TOTALS = (unsigned(P_BITS), signed(25), signed(18))
"""Shapes of those sums."""


class Group(IntEnum):
    """What is tabulated, each in 32 segments of 1/32. Arguments of the first two are signed."""

    EXP = 0
    """e^x."""
    LOG = 1
    """log(1 + x) / x."""
    RECIPROCAL = 2
    """1 / (1 + x)."""
    TANH = 3
    """tanh(x) / x."""
    TANH_FROM_1 = 4
    """tanh(1 + x) / (1 + x)."""
    TANH_FROM_2 = 5
    """tanh(2(1 + x)) / (1 + x); likewise the next two with 4 and 8."""
    TANH_FROM_4 = 6
    TANH_FROM_8 = 7


def _tanh(x: Decimal) -> Decimal:
    return 1 - 2 / (1 + (2 * x).exp())


_FUNCTIONS: dict[Group, tuple[Callable[[Decimal], Decimal], range]] = {
    # Segments that no argument falls into are left out; so are those where tanh has become 1. The last of exp is reached only where
    # the result overflows.
    Group.EXP: (lambda x: x.exp(), range(-12, 13)),
    Group.LOG: (lambda x: (1 + x).ln() / x, range(-8, 16)),
    Group.RECIPROCAL: (lambda x: 1 / (1 + x), range(32)),
    Group.TANH: (lambda x: _tanh(x) / x, range(32)),
    Group.TANH_FROM_1: (lambda x: _tanh(1 + x) / (1 + x), range(32)),
    Group.TANH_FROM_2: (lambda x: _tanh(2 * (1 + x)) / (1 + x), range(32)),
    Group.TANH_FROM_4: (lambda x: _tanh(4 * (1 + x)) / (1 + x), range(32)),
    Group.TANH_FROM_8: (lambda x: _tanh(8 * (1 + x)) / (1 + x), range(5)),
}

ONE = 2 ** (SEGMENT_BITS + 3) - 1
"""Address of a segment that no function uses; it holds the constant 1."""


def coefficients() -> list[tuple[int, int, int, int]]:
    """c0..c3 at each address, 32 · group + segment: the cubic in u, −½..½ over the segment, in the units of `_UNITS`.

    It passes through the function at the segment's four Chebyshev nodes. c0 to c2 are rounded up, which on average makes up for the
    cut products that are added to them; c3 is rounded to nearest.
    """
    rows = [(0, 0, 0, 0)] * (_SEGMENTS * len(Group))
    rows[ONE] = (2 ** -_UNITS[0], 0, 0, 0)
    with localcontext() as context:
        context.prec = 40
        outer, inner = ((2 + sign * Decimal(2).sqrt()).sqrt() / 4 for sign in (1, -1))
        for group, (function, segments) in _FUNCTIONS.items():
            for segment in segments:
                values = {u: function((segment + Decimal("0.5") + u) / _SEGMENTS) for u in (outer, -outer, inner, -inner)}
                # The even part is c0 + c2·u², the odd part u·(c1 + c3·u²).
                even = [(values[u] + values[-u]) / 2 for u in (outer, inner)]
                odd = [(values[u] - values[-u]) / (2 * u) for u in (outer, inner)]
                c2, c3 = ((part[0] - part[1]) / (outer**2 - inner**2) for part in (even, odd))
                exact = [
                    c / Decimal(2) ** unit
                    for c, unit in zip((even[0] - c2 * outer**2, odd[0] - c3 * outer**2, c2, c3), _UNITS, strict=True)
                ]
                up = [int(c.to_integral_value(ROUND_FLOOR)) + 1 for c in exact[:3]]
                nearest = int(exact[3].to_integral_value(ROUND_HALF_EVEN))
                rows[group % len(Group) * _SEGMENTS + segment % _SEGMENTS] = (up[0], up[1], up[2], nearest)
    return rows


def _select(table: Sequence[int], address: Value, shape: Shape) -> Value:
    """A table of constants as a tree of multiplexers, which logic synthesis makes small."""
    if len(set(table)) == 1:
        return Const(table[0], shape)
    half = len(table) // 2
    return Mux(address[-1], _select(table[half:], address[:-1], shape), _select(table[:half], address[:-1], shape))


@emit_once
class SfuCubic(wiring.Component):
    """``p`` = c0 + u·(c1 + u·(c2 + u·c3)) in units of 2^−27, c0..c3 those of ``address``; products are cut.

    u is ``u``, read as an unsigned fraction, less a half. Each product takes only the upper bits of u that its result can tell apart.

    A coefficient is looked up a cycle before its addition, so that the address travels down the chain and not the coefficients.

    Latency: `LATENCY` = 4 cycles. Throughput: one cubic a cycle.

    Members
    -------
    address : In(8)
        32 · group + segment.
    u : In(22)
        A fraction in units of 2^−22.
    p : Out(28)
        Unsigned, 0..2; of legal addresses and arguments.
    """

    LATENCY = 4
    # Bits of u that enter the products with c3, with c2 and what is added to it, and with c1.
    _TAKEN = (12, 18, U_BITS)

    def __init__(self) -> None:
        super().__init__({"address": In(SEGMENT_BITS + 3), "u": In(U_BITS), "p": Out(P_BITS)})

    @property
    def module_name(self) -> str:
        return "sfu_cubic"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        columns = list(zip(*coefficients(), strict=True))

        def look_up(number: int, address: Value) -> Signal:
            """Coefficient `number`, a cycle later."""
            column = columns[number]
            bits = max(abs(value) for value in column).bit_length()
            shape = signed(bits + 1) if min(column) < 0 else unsigned(bits)
            value = Signal(shape, name=f"c{number}", reset_less=True)
            m.d.sync += value.eq(_select(column, address, shape))
            return value

        # Stage 0: two coefficients.
        total, coefficient = look_up(3, self.address), look_up(2, self.address)
        u, address = Signal(signed(U_BITS), name="stage1_u", reset_less=True), Signal.like(self.address, name="stage1_address")
        m.d.sync += [u.eq(Cat(self.u[:-1], ~self.u[-1])), address.eq(self.address)]

        # Stages 1 to 3: a product and a sum each.
        for number, taken in zip((2, 1, 0), self._TAKEN, strict=True):
            following = Signal(_TOTALS[number], name=f"total{number}", reset_less=True)
            cut = taken + _UNITS[number] - _UNITS[number + 1]
            m.d.sync += following.eq(coefficient + ((total * u[U_BITS - taken :].as_signed()) >> cut))
            total = following
            if number:
                coefficient = look_up(number - 1, address)
                stage_u, stage_address = (
                    Signal.like(value, name=f"stage{4 - number}_{name}", reset_less=True)
                    for name, value in (("u", u), ("address", address))
                )
                m.d.sync += [stage_u.eq(u), stage_address.eq(address)]
                u, address = stage_u, stage_address
        m.d.comb += self.p.eq(total)
        return m
