"""The shift-adder of a row: sums of nibble products, most significant first, become sums of whole products."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.emit.emit import emit_once

__all__ = ["RESULT_BITS", "Accumulator", "Step"]

RESULT_BITS = 38
"""Bits of a result: 64 products of two 16-bit operands reach 2^36."""


class Step(data.Struct):
    """What an accumulator does with a sum; travels through the array beside the data."""

    first: 1
    """Begins a pass: what was summed before is dropped."""
    shift: 1
    """The sums before weigh 16 times this one."""
    last: 1
    """Ends the pass: the result is passed on."""


@emit_once
class Accumulator(wiring.Component):
    """``total`` ← (first ? 0 : total · 16^shift) + sum, and after ``last`` the result (paper, Section IV-D).

    The nibble pairs of a pass come in descending order of their weight, so that the sum shifts and the pairs do not; the order is
    in docs/blocks/cambriconq/matrix/accumulator.md. The totals of legal passes stay within 38 bits signed; beyond, they wrap. A cycle without
    ``i_valid`` changes nothing, and nothing else in the inputs counts then.

    The upper bits are added a cycle after the lower ones, so that no carry runs through 38 bits in one.

    Latency: `LATENCY` = 2 cycles from the sum with ``last`` to the result. Throughput: a sum a cycle; the first of a pass may follow the
    last of the one before at once. A reset takes back the results under way; a pass it cuts is begun anew.

    Parameters
    ----------
    sum_bits : int
        Bits of a signed sum, 2 to 20.

    Members
    -------
    i_valid : In(1)
        There is a sum.
    i_sum : In(signed(sum_bits))
    i_step : In(Step)
        What to do with it.
    o_valid : Out(1)
        ``o`` is new in this cycle.
    o : Out(signed(38))
        The result; holds until the next.
    """

    LATENCY = 2
    # Bits of an operand that go through the array at once; the proof's faulty block has another.
    _NIBBLE = 4
    _LOW_BITS = 20

    def __init__(self, sum_bits: int) -> None:
        if not 2 <= sum_bits <= self._LOW_BITS:
            raise ValueError(f"sum_bits must be 2 to {self._LOW_BITS}, not {sum_bits}")
        self.sum_bits = sum_bits
        super().__init__(
            {"i_valid": In(1), "i_sum": In(signed(sum_bits)), "i_step": In(Step), "o_valid": Out(1), "o": Out(signed(RESULT_BITS))}
        )
        # Attributes so that the proof can see the total, which shows only after ``last``.
        self.low = Signal(self._LOW_BITS, reset_less=True)
        self.high = Signal(RESULT_BITS - self._LOW_BITS, reset_less=True)

    @property
    def module_name(self) -> str:
        return f"accumulator_{self.sum_bits}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Stage 0: the lower bits, and what the upper ones need of them.
        first = Signal()
        shift = Signal()
        negative = Signal()
        low_total = Signal(self._LOW_BITS + 1)
        low = self.low
        low_kept = Signal(self._LOW_BITS)
        addend = Signal(self.sum_bits)
        m.d.comb += [
            first.eq(self.i_valid & self.i_step.first),
            shift.eq(self.i_valid & self.i_step.shift),
            low_kept.eq(Mux(first, 0, Mux(shift, low << self._NIBBLE, low))),
            # Adding 0 to what is kept costs less than a multiplexer that holds the register.
            addend.eq(Mux(self.i_valid, self.i_sum, 0)),
            negative.eq(addend[-1]),
            low_total.eq(low_kept + Cat(addend, negative.replicate(self._LOW_BITS - self.sum_bits))),
        ]
        stage1_first = Signal(reset_less=True)
        stage1_shift = Signal(reset_less=True)
        stage1_last = Signal()
        stage1_carry = Signal(reset_less=True)
        stage1_negative = Signal(reset_less=True)
        stage1_out = Signal(self._NIBBLE, reset_less=True)
        m.d.sync += [
            low.eq(low_total),
            stage1_first.eq(first),
            stage1_shift.eq(shift),
            stage1_last.eq(self.i_valid & self.i_step.last),
            stage1_carry.eq(low_total[-1]),
            stage1_negative.eq(negative),
            stage1_out.eq(low[-self._NIBBLE :]),
        ]

        # Stage 1: the upper bits, and the result while `low` still belongs to it.
        high_bits = len(self.high)
        high = self.high
        high_kept = Signal(high_bits)
        high_total = Signal(high_bits)
        m.d.comb += [
            high_kept.eq(Mux(stage1_first, 0, Mux(stage1_shift, Cat(stage1_out, high), high))),
            high_total.eq(high_kept + stage1_negative.replicate(high_bits) + stage1_carry),
        ]
        result = Signal(RESULT_BITS, reset_less=True)
        done = Signal()
        m.d.sync += [high.eq(high_total), done.eq(stage1_last)]
        with m.If(stage1_last):
            m.d.sync += result.eq(Cat(low, high_total))
        m.d.comb += [self.o.eq(result), self.o_valid.eq(done)]
        return m
