"""Two processing elements that fuse for outliers (Section IV-A)."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.arith.nibble_mac import NibbleMac
from nibblecore.hdl.bus.streams import connect
from nibblecore.hdl.emit.emit import emit_once

from .forwarding_fifo import ForwardingFifo
from .lane_form import LANES, Word
from .outlier_split import OutlierSplit, SplitFormat
from .pair_scheduler import PairScheduler
from .result_drain import ResultDrain, Travelling

__all__ = ["A_BEAT", "W_BEAT", "Cluster", "ClusterFormat"]

W_BEAT = data.StructLayout({"words": data.ArrayLayout(Word, 2)})
"""Two words of consecutive k."""
A_BEAT = data.StructLayout({"words": data.ArrayLayout(Word, 2), "last": 1})
"""The same, and whether they end a pass."""


class ClusterFormat(data.Struct):
    """How a cluster reads its operands; constant during a pass."""

    eight_bit: 1
    a: SplitFormat
    w: SplitFormat


@emit_once
class Cluster(wiring.Component):
    """Two neighbouring PEs that share one output: the dot product of a row of A and a row of W, two words of each a beat.

    Normal pairs take one PE each. A word with outliers is split into base + residual·2^k (`OutlierSplit`): a pair with outliers in
    one operand puts its two products on the two PEs in one cycle, a pair with outliers in both its four in two
    (`PairScheduler`). Products are exact; the sum of a pass wraps at 32 bits and raises ``overflow``, which stays until the
    pass is over.

    Operands are in lane form (`LaneForm`). A beat goes on to the neighbour as soon as that has room, used or not, so every
    cluster keeps its own pace. A finished result is kept and drained while the next pass runs.

    Latency: a beat is forwarded the cycle after it arrived; the last beat of a pass without outliers, arriving at a
    cluster that has caught up, has its result on ``above`` `latency` = 4 cycles later. Throughput: ⌈n/2⌉ + s + 2b cycles for a
    pass of n normal pairs, s with outliers in one operand, b in both.

    Parameters
    ----------
    depth : int
        Beats in each operand FIFO, at least 2.

    Members
    -------
    format : In(ClusterFormat)
    bottom : In(1)
        This is the column's last row. Constant.
    a : In(stream of A_BEAT)
        A from the left. Its ``last`` rules; W has none.
    a_next : Out(stream of A_BEAT)
        A to the right.
    w : In(stream of W_BEAT)
        W from above.
    w_next : Out(stream of W_BEAT)
        W to below.
    below : In(stream of Travelling)
        Results of the rows below.
    above : Out(stream of Travelling)
        The cluster's own, and those behind it.
    """

    latency = 4

    def __init__(self, depth: int) -> None:
        self.depth = depth
        a, w, result = (stream.Signature(shape) for shape in (A_BEAT, W_BEAT, Travelling))
        super().__init__(
            {
                "format": In(ClusterFormat),
                "bottom": In(1),
                "a": In(a),
                "a_next": Out(a),
                "w": In(w),
                "w_next": Out(w),
                "below": In(result),
                "above": Out(result),
            }
        )

    @property
    def module_name(self) -> str:
        return f"cluster_d{self.depth}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.a_fifo = a_fifo = ForwardingFifo(A_BEAT, self.depth)
        m.submodules.w_fifo = w_fifo = ForwardingFifo(W_BEAT, self.depth)
        m.submodules.scheduler = scheduler = PairScheduler()
        m.submodules.drain = drain = ResultDrain()
        for fifo, arriving, leaving in ((a_fifo, self.a, self.a_next), (w_fifo, self.w, self.w_next)):
            connect(m, arriving, fifo.i)
            connect(m, fifo.forward, leaving)
            m.d.comb += fifo.use.ready.eq(scheduler.consume)
        a_beat, w_beat = a_fifo.use.payload, w_fifo.use.payload

        complete = Signal()
        m.d.comb += [
            scheduler.valid.eq(a_fifo.use.valid & w_fifo.use.valid),
            scheduler.last.eq(a_beat.last),
            scheduler.a_outlier.eq(Cat(a_beat.words[pair].outlier.any() for pair in range(2))),
            scheduler.w_outlier.eq(Cat(w_beat.words[pair].outlier.any() for pair in range(2))),
            # Never looks at the drain's ready, which comes from the far end of the column.
            scheduler.stall.eq(drain.full | complete),
        ]
        partial_sum = self._multiply(m, scheduler, a_beat.words, w_beat.words)
        m.d.sync += complete.eq(scheduler.issue & scheduler.complete)

        accumulator = Signal(signed(32))
        total = Signal(signed(33))
        overflow = Signal()
        m.d.comb += [
            total.eq(accumulator + partial_sum),
            drain.bottom.eq(self.bottom),
            drain.load.eq(complete),
            drain.result.value.eq(total[:32]),
            drain.result.overflow.eq(overflow | (total[32] != total[31])),
        ]
        m.d.sync += [accumulator.eq(total[:32] & ~complete.replicate(32)), overflow.eq(drain.result.overflow & ~complete)]
        connect(m, self.below, drain.below)
        connect(m, drain.above, self.above)
        return m

    def _multiply(self, m: Module, scheduler: PairScheduler, a: data.View, w: data.View) -> Signal:
        """The two PEs; returns a register with this cycle's products, 0 if there are none."""
        parts = {}
        for role, words in (("a", a), ("w", w)):
            split = OutlierSplit(role)
            m.submodules[f"{role}_split"] = split
            focus = Signal(Word, name=f"{role}_focus")
            other = Signal(4 * LANES, name=f"{role}_other")
            held = Signal(4 * LANES, name=f"{role}_held", reset_less=True)
            m.d.comb += [
                focus.eq(Mux(scheduler.focus, words[1], words[0])),
                other.eq(Mux(scheduler.focus, words[0].codes, words[1].codes)),
                split.eight_bit.eq(self.format.eight_bit),
                split.format.eq(self.format[role]),
                split.i.eq(focus),
            ]
            with m.If(scheduler.hold):
                m.d.sync += held.eq(other)
            parts[role] = (focus.outlier.any(), Mux(scheduler.from_hold, held, other), split.base, split.residual)
        a_outlier, a_alone, a_base, a_residual = parts["a"]
        w_outlier, w_alone, w_base, w_residual = parts["w"]

        pes = [NibbleMac() for _ in range(2)]
        shift = Signal(2)
        for number, pe in enumerate(pes):
            m.submodules[f"pe{number}"] = pe
            m.d.comb += [
                pe.eight_bit.eq(self.format.eight_bit),
                pe.a_signed.eq(self.format.a.signed),
                pe.w_signed.eq(self.format.w.signed),
            ]
        a_k, w_k = self.format.a.k, self.format.w.k
        # Outliers in A: base·w + (residual·w << k). In W, or in both (step 0): a's base times W's parts; step 1: a's residual.
        m.d.comb += [
            pes[0].a.eq(Mux(scheduler.split, Mux(scheduler.step, a_residual, a_base), a_alone)),
            pes[0].w.eq(Mux(scheduler.split, w_base, w_alone)),
            pes[1].a.eq(Mux(a_outlier & (scheduler.step | ~w_outlier), a_residual, a_base)),
            pes[1].w.eq(Mux(w_outlier, w_residual, w_base)),
            shift.eq(Mux(w_outlier, w_k, Mux(a_outlier, a_k, 0))),
        ]
        second = Signal(signed(17))
        both = Signal(signed(21))
        shifted = Signal(signed(24))
        partial_sum = Signal(signed(24))
        m.d.comb += [
            second.eq(pes[1].product & ~scheduler.alone.replicate(17)),
            both.eq(pes[0].product + (second << shift)),
            shifted.eq(both << Mux(scheduler.step, a_k, 0)),
        ]
        m.d.sync += partial_sum.eq(shifted & scheduler.issue.replicate(24))
        return partial_sum
