"""The forwarding FIFO hands every beat to both outputs, once and in order."""

from typing import Any

from amaranth import Module, Signal
from amaranth.hdl import Assert, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.fused.forwarding_fifo import ForwardingFifo

__all__ = ["PROOFS"]

_WIDTH, _DEPTH = 2, 3


class FaultyFifo(ForwardingFifo):
    """Frees an entry once it was used, whether forwarded or not."""

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.inner = inner = ForwardingFifo(self.width, self.depth)
        wiring.connect(m, wiring.flipped(self.i), inner.i)
        wiring.connect(m, inner.use, wiring.flipped(self.use))
        m.d.comb += [
            self.forward.valid.eq(inner.forward.valid),
            self.forward.payload.eq(inner.forward.payload),
            inner.forward.ready.eq(self.forward.ready | (inner.use.valid & inner.use.ready)),
        ]
        return m


class OrderSpec(wiring.Component):
    """One beat, any, is marked as it enters. Each output shows it after exactly the beats that were before it."""

    def __init__(self, fifo: type[ForwardingFifo] = ForwardingFifo) -> None:
        self.fifo = fifo
        super().__init__({"i_valid": In(1), "i_payload": In(_WIDTH), "forward_ready": In(1), "use_ready": In(1), "mark": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.fifo = fifo = self.fifo(_WIDTH, _DEPTH)
        m.d.comb += [
            fifo.i.valid.eq(self.i_valid),
            fifo.i.payload.eq(self.i_payload),
            fifo.forward.ready.eq(self.forward_ready),
            fifo.use.ready.eq(self.use_ready),
        ]
        enter, marked, value = Signal(), Signal(), Signal(_WIDTH)
        m.d.comb += enter.eq(fifo.i.valid & fifo.i.ready)
        marks = Signal()
        m.d.comb += marks.eq(enter & self.mark & ~marked)
        with m.If(marks):
            m.d.sync += [marked.eq(1), value.eq(self.i_payload)]
        counts = []
        for name, output in (("forward", fifo.forward), ("use", fifo.use)):
            count = Signal(range(_DEPTH + 2), name=f"{name}_count")
            ahead = Signal(range(_DEPTH + 2), name=f"{name}_ahead")
            seen = Signal(name=f"{name}_seen")
            take = Signal(name=f"{name}_take")
            m.d.comb += [take.eq(output.valid & output.ready), Assert(output.valid == (count != 0)), Assert(count <= _DEPTH)]
            m.d.sync += count.eq(count + enter - take)
            with m.If(marks):
                m.d.sync += ahead.eq(count - take)
            with m.If(marked & take & ~seen):
                m.d.sync += ahead.eq(ahead - 1)
                with m.If(ahead == 0):
                    m.d.comb += Assert(output.payload == value)
                    m.d.sync += seen.eq(1)
            counts.append(count)
            m.d.comb += Cover(seen & (value == 2))
        full = (counts[0] == _DEPTH) | (counts[1] == _DEPTH)
        m.d.comb += [Assert(fifo.i.ready == ~full), Cover(full & marked & (counts[1] == 0))]
        return m


PROOFS = [
    Proof(
        name="ltoaq.fused.forwarding_fifo.order",
        spec=OrderSpec,
        fault=lambda: OrderSpec(FaultyFifo),
        reason="unbounded; beats of two bits stand for any, since data only move",
    )
]
