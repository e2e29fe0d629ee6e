"""The statistic unit: the largest magnitude of a block, found as the block streams by."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .squ_tree import register_tree, tree_latency

__all__ = ["SquStatistic"]


class SquStatistic(wiring.Component):
    """θ = max |x| over the finite values of a block (Section IV-B1, Stat. Unit).

    Magnitudes of binary32 numbers order as their bit patterns without the sign do, so θ is found by integer comparison. NaNs and
    infinities do not enter θ; ``nan`` and ``infinity`` report them in the cycle in which they are at ``i``.

    Latency: `latency` = 1 + ⌈log2(``lanes``) / 3⌉ cycles from the last beat of a block to ``o_valid``. Throughput: one beat a cycle, no pause
    between blocks.

    Parameters
    ----------
    lanes : int
        Values in a beat, a power of two.

    Members
    -------
    i_valid : In(1)
        There is a beat.
    i_last : In(1)
        It ends its block.
    i : In(32 * lanes)
        Binary32, lane 0 least significant.
    nan, infinity : Out(1)
        Some value of the beat is one; combinational.
    o_valid : Out(1)
        One cycle for each block.
    theta : Out(31)
        With ``o_valid``: bit pattern of θ, of which the sign is left out; 0 if no value is finite.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(
            {
                "i_valid": In(1),
                "i_last": In(1),
                "i": In(32 * lanes),
                "nan": Out(1),
                "infinity": Out(1),
                "o_valid": Out(1),
                "theta": Out(31),
            }
        )

    @property
    def latency(self) -> int:
        return tree_latency(self.lanes) + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        special = Signal(self.lanes)
        fractional = Signal(self.lanes)
        magnitudes = []
        for lane in range(self.lanes):
            x = self.i.word_select(lane, 32)
            magnitude = Signal(31, name=f"magnitude{lane}")
            m.d.comb += [
                special[lane].eq(x[23:31].all()),
                fractional[lane].eq(x[:23].any()),
                magnitude.eq(Mux(special[lane], 0, x[:31])),
            ]
            magnitudes.append(magnitude)
        m.d.comb += [
            self.nan.eq(self.i_valid & (special & fractional).any()),
            self.infinity.eq(self.i_valid & (special & ~fractional).any()),
        ]

        largest = register_tree(m, magnitudes, _maximum, "largest")
        valid: Value = self.i_valid
        last: Value = self.i_last
        for stage in range(1, self.latency):
            next_valid, next_last = Signal(name=f"stage{stage}_valid"), Signal(name=f"stage{stage}_last", reset_less=True)
            m.d.sync += [next_valid.eq(valid), next_last.eq(last)]
            valid, last = next_valid, next_last
        first = Signal(init=1)
        m.d.sync += self.o_valid.eq(valid & last)
        with m.If(valid):
            m.d.sync += [first.eq(last), self.theta.eq(Mux(first, largest, _maximum(largest, self.theta)))]
        return m


def _maximum(a: Value, b: Value) -> Value:
    return Mux(a < b, b, a)
