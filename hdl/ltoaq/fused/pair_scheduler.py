"""Decides what the two PEs of a fused cluster multiply in each cycle."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PairScheduler"]


class PairScheduler(wiring.Component):
    """Control of a cluster: the slots of one beat of two pairs (Section IV-A, Fig. 3).

    A pair of words without outliers costs one product, with outliers in one operand two, in both four; a cycle has two slots.

    - Pairs with outliers go first, alone, on both PEs: one cycle, or two (``step`` 0 and 1) if both operands have outliers.
    - Two normal pairs take a PE each.
    - A normal pair beside a pair with outliers is put into the hold register if that is free; otherwise it and the held pair
      take a PE each afterwards.
    - The last beat of a pass stays until the held pair is out too.

    Only the last cycle of a pass can leave a PE idle.

    Latency: none: outputs are combinational from inputs and state, which advances with ``issue``.
    Throughput: ⌈n/2⌉ + s + 2b cycles for a pass of n normal pairs, s with outliers in one operand and b in both, once their beats are there.

    Members
    -------
    valid, last : In(1)
        A beat is there; it is the last of its pass.
    a_outlier, w_outlier : In(2)
        Whether the operand's word of pair 0, 1 holds an outlier.
    stall : In(1)
        The products that complete a pass must wait.
    focus : Out(1)
        The pair PE 1 works on; the pair with outliers if there is one to do.
    split : Out(1)
        Both PEs work on the pair in focus, which has outliers.
    step : Out(1)
        Second cycle of a pair with outliers in both operands.
    from_hold : Out(1)
        PE 0 works on the held pair. Without this and ``split`` it works on the pair that is not in focus.
    alone : Out(1)
        PE 1 has nothing to do.
    issue : Out(1)
        The products count.
    hold : Out(1)
        Put the pair that is not in focus into the hold register.
    consume : Out(1)
        The beat is finished.
    complete : Out(1)
        The pass is finished with these products.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "valid": In(1),
                "last": In(1),
                "a_outlier": In(2),
                "w_outlier": In(2),
                "stall": In(1),
                "focus": Out(1),
                "split": Out(1),
                "step": Out(1),
                "from_hold": Out(1),
                "alone": Out(1),
                "issue": Out(1),
                "hold": Out(1),
                "consume": Out(1),
                "complete": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        done = Signal(2)
        held = Signal()
        hot = Signal(2)
        both = Signal(2)
        other_done = Signal()
        other_normal = Signal()
        again = Signal()
        keep = Signal()
        both_normal = Signal()
        finished = Signal()
        held_after = Signal()
        step = Signal()

        m.d.comb += [
            both.eq(self.a_outlier & self.w_outlier),
            hot.eq((self.a_outlier | self.w_outlier) & ~done),
            self.split.eq(hot.any()),
            self.focus.eq(~done[1] & ~hot[0]),
            other_done.eq(Mux(self.focus, done[0], done[1])),
            other_normal.eq(Mux(self.focus, ~done[0] & ~hot[0], ~done[1] & ~hot[1])),
            again.eq(self.split & ~step & Mux(self.focus, both[1], both[0])),
            keep.eq(self.split & other_normal & ~held),
            both_normal.eq(~self.split & ~done.any()),
            self.from_hold.eq(~self.split & done.any()),
            self.alone.eq(done.all()),
            finished.eq(~self.split | (~again & (other_done | keep))),
            held_after.eq(~self.from_hold & (held | keep)),
            self.complete.eq(finished & self.last & ~held_after),
            self.step.eq(step),
            self.issue.eq(self.valid & ~(self.complete & self.stall)),
            self.hold.eq(self.issue & keep),
            self.consume.eq(self.issue & finished & ~(self.last & held_after)),
        ]
        with m.If(self.issue):
            m.d.sync += [held.eq(held_after), step.eq(again)]
            with m.If(self.consume):
                m.d.sync += done.eq(0)
            with m.Elif(finished):
                m.d.sync += done.eq(0b11)
            with m.Else():
                focus_done, other = ~again, other_done | keep
                m.d.sync += done.eq(Mux(self.focus, (done[1] | focus_done) << 1 | other, other << 1 | done[0] | focus_done))
        return m
