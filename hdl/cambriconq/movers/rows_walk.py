"""The addresses of a shape's elements, one after the other or several rows side by side."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.program.job import Place, Shape

__all__ = ["RowsWalk", "row_step_layout"]


def row_step_layout(address_bits: int, rows: int) -> data.StructLayout:
    """Where an element lies, in which row of those walked together, and whether it begins or ends its row, or ends the shape."""
    return data.StructLayout({"address": address_bits, "row": range(rows), "first_of_row": 1, "last_of_row": 1, "last": 1})


class RowsWalk(wiring.Component):
    """Walks rows × cols elements, ``at + i·row + j·col``, as `Walk` does; with ``together`` ``rows`` rows at a time, column by column.

    Of the rows walked together the first elements come first, in the order of the rows, then the second, and so on; then those of
    the next rows. The last ones may be fewer. Addresses are taken modulo 2^address_bits. An empty shape yields nothing.

    Latency: a step is valid the cycle after ``start``. Throughput: one step a cycle.

    Parameters
    ----------
    address_bits : int
        Low bits of the address that are wanted, 1..32.
    rows : int
        Walked together, a power of two, at least 2; ValueError otherwise.

    Members
    -------
    start : In(1)
        Not while a step is on offer.
    shape : In(Shape)
    place : In(Place)
    together : In(1)
        All constant from ``start`` until the last step is taken.
    o : Out(stream of `row_step_layout`)
    """

    def __init__(self, address_bits: int, rows: int) -> None:
        if not 1 <= address_bits <= 32:
            raise ValueError(f"address_bits must be in 1..32, not {address_bits}")
        if rows < 2 or rows & (rows - 1):
            raise ValueError(f"rows must be a power of two of at least 2, not {rows}")
        self.address_bits, self.rows = address_bits, rows
        super().__init__(
            {
                "start": In(1),
                "shape": In(Shape),
                "place": In(Place),
                "together": In(1),
                "o": Out(stream.Signature(row_step_layout(address_bits, rows))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, place, step = self.shape, self.place, self.o.payload
        # Of the element, of the first one in its column, and of the row below the last one whose first element has been taken.
        address, column, next_rows, following = (
            Signal(self.address_bits, name=name, reset_less=True) for name in ("address", "column", "next_rows", "following")
        )
        # Less one, so that the last is at 0; those of rows from the first of those walked together on.
        rows_left, cols_left = (Signal(16, name=name, reset_less=True) for name in ("rows_left", "cols_left"))
        last_row = Signal(range(self.rows))
        ends_column = Signal()
        ends_rows = Signal()
        first_of_row = Signal(reset_less=True)
        m.d.comb += [
            last_row.eq(Mux(self.together, Mux(rows_left < self.rows - 1, rows_left, self.rows - 1), 0)),
            ends_column.eq(step.row == last_row),
            ends_rows.eq(ends_column & step.last_of_row),
            step.address.eq(address),
            step.first_of_row.eq(first_of_row),
            step.last_of_row.eq(cols_left == 0),
            step.last.eq(ends_rows & (rows_left == last_row)),
        ]
        to_column = ends_column & ~step.last_of_row
        m.d.comb += following.eq(Mux(to_column, column, address) + Mux(to_column, place.col, place.row))
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [address.eq(following), step.row.eq(Mux(ends_column, 0, step.row + 1))]
            with m.If(first_of_row):
                m.d.sync += next_rows.eq(address + place.row)
            with m.If(ends_column):
                m.d.sync += [column.eq(following), cols_left.eq(cols_left - 1), first_of_row.eq(0)]
            with m.If(ends_rows):
                begin = Mux(first_of_row, following, next_rows)
                m.d.sync += [
                    address.eq(begin),
                    column.eq(begin),
                    cols_left.eq(shape.cols - 1),
                    rows_left.eq(rows_left - last_row - 1),
                    first_of_row.eq(1),
                ]
            with m.If(step.last):
                m.d.sync += self.o.valid.eq(0)
        with m.If(self.start):
            m.d.sync += [
                address.eq(place.at),
                column.eq(place.at),
                cols_left.eq(shape.cols - 1),
                rows_left.eq(shape.rows - 1),
                step.row.eq(0),
                first_of_row.eq(1),
                self.o.valid.eq(~shape.empty),
            ]
        return m
