"""The addresses of a shape's elements, one after the other."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .job import Place, Shape

__all__ = ["Walk", "step_layout"]


def step_layout(address_bits: int) -> data.StructLayout:
    """Where an element lies, and whether it ends its row or the shape."""
    return data.StructLayout({"address": address_bits, "last_of_row": 1, "last": 1})


class Walk(wiring.Component):
    """Walks rows × cols elements, columns innermost: ``at + i·row + j·col``, with one adder and no multiplier.

    Addresses are taken modulo 2^address_bits, and so may the distances be: a step backwards is a large one forwards. An empty
    shape yields nothing.

    Latency: a step is valid the cycle after `start`. Throughput: one step a cycle.

    Parameters
    ----------
    address_bits : int
        Low bits of the address that are wanted, 1..32.

    Members
    -------
    start : In
        Not while a step is on offer.
    shape : In, `Shape`
    place : In, `Place`
        Both constant from `start` until the last step is taken.
    o : Out stream of `step_layout`
    """

    def __init__(self, address_bits: int) -> None:
        if not 1 <= address_bits <= 32:
            raise ValueError(f"address_bits must be in 1..32, not {address_bits}")
        self.address_bits = address_bits
        super().__init__(
            {"start": In(1), "shape": In(Shape), "place": In(Place), "o": Out(stream.Signature(step_layout(address_bits)))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, place, step = self.shape, self.place, self.o.payload
        address, row_start, following = (
            Signal(self.address_bits, name=name, reset_less=True) for name in ("address", "row_start", "following")
        )
        # Less one, so that the last is at 0.
        rows_left, cols_left = (Signal(16, name=name, reset_less=True) for name in ("rows_left", "cols_left"))
        m.d.comb += [
            step.address.eq(address),
            step.last_of_row.eq(cols_left == 0),
            step.last.eq(step.last_of_row & (rows_left == 0)),
            following.eq(Mux(step.last_of_row, row_start, address) + Mux(step.last_of_row, place.row, place.col)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [address.eq(following), cols_left.eq(cols_left - 1)]
            with m.If(step.last_of_row):
                m.d.sync += [row_start.eq(following), cols_left.eq(shape.cols - 1), rows_left.eq(rows_left - 1)]
            with m.If(step.last):
                m.d.sync += self.o.valid.eq(0)
        with m.If(self.start):
            m.d.sync += [
                address.eq(place.at),
                row_start.eq(place.at),
                cols_left.eq(shape.cols - 1),
                rows_left.eq(shape.rows - 1),
                self.o.valid.eq(~shape.empty),
            ]
        return m
