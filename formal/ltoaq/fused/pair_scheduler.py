"""The pair scheduler multiplies every pair once and never loses the held one."""

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.fused.pair_scheduler import PairScheduler

__all__ = ["PROOFS"]


class GreedyScheduler(PairScheduler):
    """Puts a normal pair aside even when one is held already."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.inner = inner = PairScheduler()
        for name in ("valid", "last", "a_outlier", "w_outlier", "stall"):
            m.d.comb += getattr(inner, name).eq(getattr(self, name))
        for name in ("focus", "split", "step", "from_hold", "alone", "issue", "consume", "complete"):
            m.d.comb += getattr(self, name).eq(getattr(inner, name))
        other = inner.focus ^ 1
        normal = ~(self.a_outlier | self.w_outlier).bit_select(other, 1)
        m.d.comb += self.hold.eq(inner.hold | (inner.issue & inner.split & ~inner.consume & normal & ~inner.step))
        return m


class ForgetfulScheduler(PairScheduler):
    """Takes a pair with outliers in both operands for one with outliers in A."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.inner = inner = PairScheduler()
        for name in ("valid", "last", "a_outlier", "stall"):
            m.d.comb += getattr(inner, name).eq(getattr(self, name))
        m.d.comb += inner.w_outlier.eq(self.w_outlier & ~self.a_outlier)
        for name in ("focus", "split", "step", "from_hold", "alone", "issue", "hold", "consume", "complete"):
            m.d.comb += getattr(self, name).eq(getattr(inner, name))
        return m


class SlotSpec(wiring.Component):
    """A shadow of what has been multiplied, kept from the outputs alone.

    Normal pairs go to one PE or into the hold register, once; pairs with outliers to both PEs, once or twice in the order of
    their steps; what was held comes out once. A PE is idle only in the last products of a pass.
    """

    def __init__(self, scheduler: type[PairScheduler] = PairScheduler) -> None:
        self.scheduler = scheduler
        super().__init__({"valid": In(1), "last": In(1), "a_outlier": In(2), "w_outlier": In(2), "stall": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.scheduler = scheduler = self.scheduler()
        beat = Cat(self.last, self.a_outlier, self.w_outlier)
        for name in ("valid", "last", "a_outlier", "w_outlier", "stall"):
            m.d.comb += getattr(scheduler, name).eq(getattr(self, name))

        # As from a FIFO: a beat stays until consumed.
        waiting, kept = Signal(), Signal(5)
        m.d.sync += [waiting.eq(self.valid & ~scheduler.consume), kept.eq(beat)]
        m.d.comb += Assume(~waiting | (self.valid & (beat == kept)))

        issue = scheduler.issue
        m.d.comb += [
            Assert(~issue | self.valid),
            Assert(~(issue & scheduler.complete & self.stall)),
            Assert(~scheduler.consume | issue),
            Assert(~scheduler.hold | issue),
            Assert(~(issue & scheduler.complete) | (scheduler.consume & self.last)),
            Assert(~(scheduler.consume & self.last) | scheduler.complete),
            Assert(~(issue & scheduler.alone) | (scheduler.from_hold & scheduler.complete)),
            Assert(~(issue & scheduler.split & scheduler.from_hold)),
            Assert(~self.valid | self.stall | issue),
        ]
        held = Signal()
        held_after = Signal()
        m.d.comb += held_after.eq(held & ~(issue & scheduler.from_hold) | scheduler.hold)
        m.d.sync += held.eq(held_after)
        with m.If(scheduler.hold):
            m.d.comb += Assert(~held)
        with m.If(issue & scheduler.from_hold):
            m.d.comb += Assert(held)
        with m.If(issue & scheduler.complete):
            m.d.comb += Assert(~held_after)

        for pair in range(2):
            a, w = self.a_outlier[pair], self.w_outlier[pair]
            focus = scheduler.focus == pair
            seen = Signal(2, name=f"seen{pair}")
            now = Signal(2, name=f"now{pair}")
            alone = Signal(name=f"alone{pair}")
            kept_aside = Signal(name=f"kept{pair}")
            m.d.comb += [
                alone.eq(issue & ~scheduler.split & ((focus & ~scheduler.alone) | (~focus & ~scheduler.from_hold))),
                kept_aside.eq(scheduler.hold & ~focus),
                now[0].eq((issue & scheduler.split & focus & ~scheduler.step) | alone | kept_aside),
                now[1].eq(issue & scheduler.split & focus & scheduler.step),
                Assert((seen & now) == 0),
                Assert(~(alone & kept_aside)),
                Assert(~(alone | kept_aside) | ~(a | w)),
                Assert(~(issue & scheduler.split & focus) | a | w),
                Assert(~now[1] | (a & w & seen[0])),
            ]
            m.d.sync += seen.eq(seen | now)
            with m.If(scheduler.consume):
                m.d.comb += Assert((seen | now) == Cat(1, a & w))
                m.d.sync += seen.eq(0)
        m.d.comb += [
            Cover(issue & scheduler.complete & scheduler.alone),
            Cover(issue & scheduler.from_hold & ~scheduler.alone & scheduler.consume),
            Cover(scheduler.consume & self.a_outlier.all() & self.w_outlier.all()),
        ]
        return m


PROOFS = [
    Proof(
        name="ltoaq.fused.pair_scheduler.slots",
        spec=SlotSpec,
        fault=lambda: SlotSpec(GreedyScheduler),
        reason="unbounded; a beat is assumed to stay until consumed, as the FIFO proof shows",
    ),
    Proof(
        name="ltoaq.fused.pair_scheduler.steps",
        spec=SlotSpec,
        fault=lambda: SlotSpec(ForgetfulScheduler),
        reason="the same contract against a second fault",
    ),
]
