"""The format in which a vector can take a value of another format."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .requantizer import SHIFT_BITS
from .tag import Tag

__all__ = ["MaxTag"]


class MaxTag(wiring.Component):
    """The greater of two tags, and by how much either side has to be shifted to it (Section IV-B2, Max Tag).

    Tags order by e, those of equal e by their bits. A fresh vector, all zeros, takes the value's tag.

    Latency: none, combinational. Throughput: a comparison a cycle.

    Members
    -------
    vector, value : In(Tag)
    fresh : In(1)
        The vector is all zeros and has no tag yet.
    greater : Out(Tag)
    raises : Out(1)
        ``greater`` is not the vector's own.
    vector_shift, value_shift : Out(5)
        What a `Requantizer` takes: the difference of e, 16 if it is more. ``vector_shift`` only counts with ``raises``.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "vector": In(Tag),
                "value": In(Tag),
                "fresh": In(1),
                "greater": Out(Tag),
                "raises": Out(1),
                "vector_shift": Out(SHIFT_BITS),
                "value_shift": Out(SHIFT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        up = Signal(signed(9))
        down = Signal(signed(9))
        m.d.comb += [
            up.eq(self.value.e - self.vector.e),
            down.eq(self.vector.e - self.value.e),
            self.raises.eq(self.fresh | down[-1] | (self.value.e == self.vector.e) & (self.value.size > self.vector.size)),
            self.greater.eq(Mux(self.raises, self.value, self.vector)),
            self.vector_shift.eq(_saturated(up)),
            self.value_shift.eq(Mux(self.raises, 0, _saturated(down))),
        ]
        return m


def _saturated(difference: Signal) -> Mux:
    return Mux(difference[SHIFT_BITS - 1 :].any(), 2 ** (SHIFT_BITS - 1), difference[: SHIFT_BITS - 1])
