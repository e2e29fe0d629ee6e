"""The addresses of a shape's elements, one after the other."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.program.job import Place, Shape

__all__ = ["Walk", "step_layout"]


def step_layout(address_bits: int, words: int = 1) -> data.StructLayout:
    """Where the first of some elements lies, which of those that follow it are there, and whether they end their row or the shape."""
    return data.StructLayout({"address": address_bits, "mask": words, "last_of_row": 1, "last": 1})


class Walk(wiring.Component):
    """Walks rows × cols elements, columns innermost: ``at + i·row + j·col``, with one adder and no multiplier.

    A step is an element, or, with ``wide``, up to ``words`` of a row whose elements are neighbours, ``unit`` apart.

    Addresses are taken modulo 2^address_bits, and so may the distances be: a step backwards is a large one forwards. An empty
    shape yields nothing.

    Latency: a step is valid the cycle after ``start``. Throughput: one step a cycle.

    Parameters
    ----------
    address_bits : int
        Low bits of the address that are wanted, 1..32.
    words : int
        Elements of a wide step, a power of two.
    unit : int
        What lies between neighbours.

    Members
    -------
    start : In(1)
        Not while a step is on offer.
    shape : In(Shape)
    place : In(Place)
        Both constant from ``start`` until the last step is taken.
    wide : In(1), if ``words`` > 1
        Constant as they are. ``place.col`` counts as ``unit`` then.
    o : Out(stream of `step_layout`)
    """

    def __init__(self, address_bits: int, words: int = 1, unit: int = 1) -> None:
        if not 1 <= address_bits <= 32:
            raise ValueError(f"address_bits must be in 1..32, not {address_bits}")
        if words < 1 or words & (words - 1):
            raise ValueError(f"words must be a power of two, not {words}")
        self.address_bits, self.words, self.unit = address_bits, words, unit
        super().__init__(
            {
                "start": In(1),
                "shape": In(Shape),
                "place": In(Place),
                "o": Out(stream.Signature(step_layout(address_bits, words))),
                **({"wide": In(1)} if words > 1 else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, place, step = self.shape, self.place, self.o.payload
        address, row_start, following = (
            Signal(self.address_bits, name=name, reset_less=True) for name in ("address", "row_start", "following")
        )
        steps, distance = self._steps(m)
        # Less one, so that the last is at 0.
        rows_left, cols_left = (Signal(16, name=name, reset_less=True) for name in ("rows_left", "cols_left"))
        m.d.comb += [
            step.address.eq(address),
            step.last_of_row.eq(cols_left == 0),
            step.last.eq(step.last_of_row & (rows_left == 0)),
            following.eq(Mux(step.last_of_row, row_start, address) + Mux(step.last_of_row, place.row, distance)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [address.eq(following), cols_left.eq(cols_left - 1)]
            with m.If(step.last_of_row):
                m.d.sync += [row_start.eq(following), cols_left.eq(steps), rows_left.eq(rows_left - 1)]
            with m.If(step.last):
                m.d.sync += self.o.valid.eq(0)
        with m.If(self.start):
            m.d.sync += [
                address.eq(place.at),
                row_start.eq(place.at),
                cols_left.eq(steps),
                rows_left.eq(shape.rows - 1),
                self.o.valid.eq(~shape.empty),
            ]
        return m

    def _steps(self, m: Module) -> tuple[Value, Value]:
        """Steps of a row less one, and what lies between them; says which elements of a step are there."""
        cols, words, step = self.shape.cols, self.words, self.o.payload
        if words == 1:
            m.d.comb += step.mask.eq(1)
            return cols - 1, self.place.col
        over = cols[: words.bit_length() - 1]
        ends = step.last_of_row & (over != 0)
        m.d.comb += step.mask.eq(Mux(self.wide, Mux(ends, (1 << over) - 1, (1 << words) - 1), 1))
        return Mux(self.wide, (cols - 1) >> words.bit_length() - 1, cols - 1), Mux(self.wide, words * self.unit, self.place.col)
