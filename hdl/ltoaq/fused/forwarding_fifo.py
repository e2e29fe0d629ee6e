"""Operand queue of a fused cluster: every beat is handed on to the neighbour and used here, in either order."""

from functools import reduce
from operator import or_

from amaranth import Module, Shape, Signal, Value
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ForwardingFifo"]


class ForwardingFifo(wiring.Component):
    """A FIFO with one input and two outputs that each see every beat once, in order, at their own pace.

    A beat keeps its place until both outputs have taken it. ``i.ready`` and the valids depend on registers only, so no path
    runs from one FIFO of the array to the next.

    Latency: a beat is on both outputs the cycle after it entered. Throughput: a beat a cycle.

    Parameters
    ----------
    shape : shape
        Of a beat.
    depth : int
        Beats, at least 2; ValueError otherwise.

    Members
    -------
    i : In(stream of width bits)
    forward : Out(stream of width bits)
        To the neighbour.
    use : Out(stream of width bits)
        To this cluster.
    """

    def __init__(self, shape: ShapeLike, depth: int) -> None:
        if depth < 2:
            raise ValueError(f"a FIFO of depth {depth} cannot take a beat every cycle; it needs at least 2")
        self.shape = shape
        self.width = Shape.cast(shape).width
        self.depth = depth
        link = stream.Signature(shape)
        super().__init__({"i": In(link), "forward": Out(link), "use": Out(link)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entries = [Signal(self.width, name=f"entry{n}", reset_less=True) for n in range(self.depth)]

        def pointer(name: str, advance: Signal) -> Signal:
            """One-hot place of the next beat."""
            place = Signal(self.depth, init=1, name=name)
            with m.If(advance):
                m.d.sync += place.eq(place.rotate_left(1))
            return place

        enter = Signal()
        m.d.comb += enter.eq(self.i.valid & self.i.ready)
        write = pointer("write_place", enter)
        for n, entry in enumerate(entries):
            with m.If(write[n] & enter):
                m.d.sync += entry.eq(Value.cast(self.i.payload))

        waitings = []
        for name, output in (("forward", self.forward), ("use", self.use)):
            taken = Signal(name=f"{name}_taken")
            waiting = Signal(self.depth, name=f"{name}_waiting")
            m.d.comb += taken.eq(output.valid & output.ready)
            read = pointer(f"{name}_place", taken)
            m.d.sync += waiting.eq((waiting | (write & enter.replicate(self.depth))) & ~(read & taken.replicate(self.depth)))
            chosen = [entry & read[n].replicate(self.width) for n, entry in enumerate(entries)]
            m.d.comb += [output.valid.eq((waiting & read).any()), output.payload.eq(reduce(or_, chosen))]
            waitings.append(waiting)
        m.d.comb += self.i.ready.eq(~((waitings[0] | waitings[1]) & write).any())
        return m
