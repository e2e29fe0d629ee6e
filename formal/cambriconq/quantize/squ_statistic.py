"""The statistic unit gives the largest finite magnitude of each block."""

from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.quantize.squ_statistic import SquStatistic

__all__ = ["PROOFS"]

_LANES = 2


class SquStatisticSpec(wiring.Component):
    """Any stream of beats. With `fault`, the unit does not see the end of a block after an idle cycle."""

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__({"i_valid": In(1), "i_last": In(1), "i": In(32 * _LANES)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.statistic = statistic = SquStatistic(_LANES)
        idle = Signal()
        m.d.comb += [
            statistic.i_valid.eq(self.i_valid),
            statistic.i.eq(self.i),
            statistic.i_last.eq(self.i_last & ~(idle if self.fault else 0)),
        ]
        m.d.sync += idle.eq(~self.i_valid)
        largest = Signal(31)
        value: Value = largest
        for lane in range(_LANES):
            x = self.i.word_select(lane, 32)
            joined = Signal(31, name=f"joined{lane}")
            m.d.comb += joined.eq(Mux(~x[23:31].all() & (x[:31] > value), x[:31], value))
            value = joined
        ends = Signal()
        m.d.comb += ends.eq(self.i_valid & self.i_last)
        with m.If(self.i_valid):
            m.d.sync += largest.eq(Mux(self.i_last, 0, value))
        expected_valid: Value = ends
        expected: Value = value
        for stage in range(statistic.latency):
            next_valid, following = Signal(name=f"expected_valid{stage}"), Signal(31, name=f"expected{stage}")
            m.d.sync += [next_valid.eq(expected_valid), following.eq(expected)]
            expected_valid, expected = next_valid, following
        m.d.comb += [
            Assert(statistic.o_valid == expected_valid),
            Assert(~expected_valid | (statistic.theta == expected)),
            Assert(~statistic.nan | self.i_valid),
            Cover(expected_valid & (expected == 0x7F7FFFFF)),
            Cover(expected_valid & ends & (expected == 0)),
        ]
        return m


PROOFS = [
    Proof(
        name="cambriconq.quantize.squ_statistic.largest",
        spec=SquStatisticSpec,
        fault=lambda: SquStatisticSpec(fault=True),
        engine="bmc",
        depth=6,
        cover_depth=8,
        reason="from reset, six cycles with ends of blocks and resets anywhere among them; the only feedback is the maximum so far",
    )
]
