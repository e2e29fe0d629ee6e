"""Rows walked together offer each element once, column by column, at its address, and say where rows and shape begin and end."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.movers.rows_walk import RowsWalk

from .walk import any_job

__all__ = ["PROOFS"]

_BITS, _MOST = 3, 3


class RowsWalkSpec(wiring.Component):
    """Any walk of up to three rows and columns, one row or two at a time, started again and again."""

    def __init__(self, block: type[RowsWalk] = RowsWalk) -> None:
        self.block = block
        super().__init__({"start": In(1), "ready": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.walk = walk = self.block(_BITS, 2)
        shape, place = any_job(m, most=_MOST, at_bits=_BITS, step_bits=_BITS)
        together, step, moves = Signal(), walk.o.payload, Signal()
        top, row, col, running = Signal(range(_MOST + 3)), Signal(), Signal(range(_MOST + 1)), Signal()
        ends_column, last_of_row, last = Signal(), Signal(), Signal()
        address: Any = place.at
        for number in range(1, _MOST + 1):
            address = address + Mux(top + row >= number, place.row, 0) + Mux(col >= number, place.col, 0)
        m.d.comb += [
            together.eq(AnyConst(1)),
            walk.together.eq(together),
            walk.shape.eq(shape),
            walk.place.eq(place),
            walk.start.eq(self.start),
            walk.o.ready.eq(self.ready),
            moves.eq(walk.o.valid & self.ready),
            ends_column.eq(~together | row | (top + 1 == shape.rows)),
            last_of_row.eq(col + 1 == shape.cols),
            last.eq(ends_column & last_of_row & (top + row + 1 == shape.rows)),
            Assume(~self.start | ~running),
            Assert(walk.o.valid == running),
            Cover(moves & step.last & together & (top == 2) & (col == 2) & (step.address == 5)),
            Cover(moves & step.last & ~together & (top == 2) & (col == 1)),
        ]
        with m.If(moves):
            m.d.sync += row.eq(~ends_column)
            with m.If(ends_column):
                m.d.sync += col.eq(Mux(last_of_row, 0, col + 1))
                with m.If(last_of_row):
                    m.d.sync += top.eq(top + row + 1)
            with m.If(last):
                m.d.sync += running.eq(0)
        with m.If(self.start):
            m.d.sync += [top.eq(0), row.eq(0), col.eq(0), running.eq((shape.rows != 0) & (shape.cols != 0))]
        with m.If(walk.o.valid):
            m.d.comb += [
                Assert(step.address == address[:_BITS]),
                Assert(step.row == row),
                Assert(step.first_of_row == (col == 0)),
                Assert(step.last_of_row == last_of_row),
                Assert(step.last == last),
            ]
        return m


class HastyRowsWalk(RowsWalk):
    """Takes two rows where one is left."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.o.valid & self.o.ready & self.together & ~self.o.payload.row.any()):
            m.d.sync += self.o.payload.row.eq(1)
        return m


PROOFS = [
    Proof(
        name="cambriconq.movers.rows_walk.steps",
        spec=RowsWalkSpec,
        fault=lambda: RowsWalkSpec(HastyRowsWalk),
        engine="bmc",
        depth=12,
        reason="12 cycles are a whole walk of up to three rows and columns and part of the next",
    )
]
