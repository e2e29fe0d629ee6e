"""A walk offers each element of its shape once, in order, at its address, and says where rows and shape end."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.movers.walk import Walk
from nibblecore.hdl.cambriconq.program.job import Place, Shape

__all__ = ["PROOFS", "Elements", "any_job"]

_BITS, _MOST = 3, 3


def any_job(m: Module, *, most: int, at_bits: int, step_bits: int, unit: int = 1) -> tuple[Value, Value]:
    """A shape of up to `most` rows and columns, also none, and a place of so many bits, in multiples of `unit`; all constant."""
    shape, place = Signal(Shape, name="shape"), Signal(Place, name="place")
    for field in (shape.rows, shape.cols):
        size = AnyConst(most.bit_length())
        m.d.comb += [field.eq(size), Assume(size <= most)]
    for field, bits in ((place.at, at_bits), (place.row, step_bits), (place.col, step_bits)):
        m.d.comb += field.eq(AnyConst(bits) * unit)
    return shape, place


class Elements:
    """Counts a shape's elements as they move, and works out where the next one lies and what it ends.

    With `wide`, the next are up to ``words`` of a row: `mask` says which of them there are, `row`, `col` and `address` are the
    first one's.

    Products are written as sums over the few values of their factors, which the solvers take more easily.
    """

    def __init__(
        self,
        m: Module,
        shape: Any,
        place: Any,
        start: Value,
        moves: Value,
        *,
        most: int,
        bits: int,
        name: str,
        wide: Value | None = None,
        words: int = 1,
    ) -> None:
        self.row, self.col = Signal(range(most + 1), name=f"{name}_row"), Signal(range(most + 1), name=f"{name}_col")
        self.address, self.mask = Signal(bits, name=f"{name}_address"), Signal(words, name=f"{name}_mask")
        self.last_of_row, self.last = Signal(name=f"{name}_last_of_row"), Signal(name=f"{name}_last")
        self.running = Signal(name=f"{name}_running")
        together: Value = Const(1) if wide is None else Mux(wide, words, 1)
        m.d.comb += [
            self.address.eq(place.at + _times(self.row, place.row, most) + _times(self.col, place.col, most)),
            self.mask.eq(Cat((number < together) & (self.col + number < shape.cols) for number in range(words))),
            self.last_of_row.eq(self.col + together >= shape.cols),
            self.last.eq(self.last_of_row & (self.row + 1 == shape.rows)),
        ]
        with m.If(moves):
            m.d.sync += [self.col.eq(Mux(self.last_of_row, 0, self.col + together)), self.row.eq(self.row + self.last_of_row)]
            with m.If(self.last):
                m.d.sync += self.running.eq(0)
        with m.If(start):
            m.d.sync += [self.row.eq(0), self.col.eq(0), self.running.eq((shape.rows != 0) & (shape.cols != 0))]


def _times(count: Value, distance: Value, most: int) -> Value:
    total: Value = Const(0)
    for number in range(1, most + 1):
        total = Mux(count == number, distance * number, total)
    return total


class WalkSpec(wiring.Component):
    """Any walk of up to three rows and columns, started again and again; with two words, any wide walk as well."""

    def __init__(self, words: int, block: type[Walk] = Walk) -> None:
        self.words, self.block = words, block
        super().__init__({"start": In(1), "ready": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.walk = walk = self.block(_BITS, self.words)
        shape, place = any_job(m, most=_MOST, at_bits=_BITS, step_bits=_BITS)
        wide, neighbours, step, moves = Signal(), Signal(Place), walk.o.payload, Signal()
        elements = Elements(
            m, shape, neighbours, self.start, moves, most=_MOST, bits=_BITS, name="expected", wide=wide, words=self.words
        )
        if self.words > 1:
            m.d.comb += [wide.eq(AnyConst(1)), walk.wide.eq(wide)]
            # The last group is not full, nor the first of its row.
            m.d.comb += Cover(moves & step.last & wide & (elements.row == 2) & (elements.col == 2) & (step.mask == 1))
        m.d.comb += [
            # A wide walk's elements are neighbours, whatever the place says.
            neighbours.at.eq(place.at),
            neighbours.row.eq(place.row),
            neighbours.col.eq(Mux(wide, 1, place.col)),
            walk.shape.eq(shape),
            walk.place.eq(place),
            walk.start.eq(self.start),
            walk.o.ready.eq(self.ready),
            moves.eq(walk.o.valid & self.ready),
            Assume(~self.start | ~elements.running),
            Assert(walk.o.valid == elements.running),
            Cover(moves & step.last & ~wide & (elements.row == 2) & (elements.col == 2) & (step.address == 5)),
        ]
        with m.If(walk.o.valid):
            m.d.comb += [
                Assert(step.address == elements.address),
                Assert(step.mask == elements.mask),
                Assert(step.last_of_row == elements.last_of_row),
                Assert(step.last == elements.last),
            ]
        return m


class OneRowWalk(Walk):
    """Ends with its first row."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.o.valid & self.o.ready & self.o.payload.last_of_row):
            m.d.sync += self.o.valid.eq(0)
        return m


class FullWalk(Walk):
    """Takes whole groups only."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        with m.If(self.wide):
            m.d.comb += self.o.payload.mask.eq(-1)
        return m


_REASON = "12 cycles are a whole walk of up to three rows and columns and part of the next"

PROOFS = [
    Proof(
        name="cambriconq.movers.walk.steps",
        spec=lambda: WalkSpec(1),
        fault=lambda: WalkSpec(1, OneRowWalk),
        engine="bmc",
        depth=12,
        reason=_REASON,
    ),
    Proof(
        name="cambriconq.movers.walk.groups",
        spec=lambda: WalkSpec(2),
        fault=lambda: WalkSpec(2, FullWalk),
        engine="bmc",
        depth=12,
        reason=_REASON + ", an element or two at a time",
    ),
]
