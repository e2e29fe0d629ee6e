"""Keeps a cluster's result while the next pass runs, and passes results up the column."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Result", "ResultDrain", "Travelling"]


class Result(data.Struct):
    """A dot product."""

    value: 32
    overflow: 1


class Travelling(data.Struct):
    """A result on its way up the column; ``last`` marks the bottom row's."""

    result: Result
    last: 1


class ResultDrain(wiring.Component):
    """One link of a column's result chain: of each pass the cluster's own result goes first, then those of the rows below.

    ``above.ready`` reaches ``below.ready`` in the same cycle, through one gate or two a row. In exchange a link needs one
    register beside the result's own.

    Latency: the own result is on ``above`` two cycles after ``load``, one from below the cycle after it was taken, if the link is free.
    Throughput: a result a cycle.

    Members
    -------
    bottom : In(1)
        There is no row below. Constant.
    load : In(1)
        Keep ``result``. Only while not ``full``.
    result : In(Result)
    full : Out(1)
        A result is kept that has not gone up yet.
    below : In(stream of Travelling)
    above : Out(stream of Travelling)
        ``last`` is the bottom row's.
    """

    def __init__(self) -> None:
        link = stream.Signature(Travelling)
        super().__init__(
            {"bottom": In(1), "load": In(1), "result": In(Result), "full": Out(1), "below": In(link), "above": Out(link)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        own = Signal(Result, reset_less=True)
        full = Signal()
        passing = Signal()
        valid = Signal()
        link = Signal(Travelling, reset_less=True)
        free = Signal()
        m.d.comb += [
            self.full.eq(full),
            free.eq(~valid | self.above.ready),
            self.below.ready.eq(passing & free),
            self.above.valid.eq(valid),
            self.above.payload.eq(link),
        ]
        with m.If(free):
            m.d.sync += [
                valid.eq(Mux(passing, self.below.valid, full)),
                link.result.eq(Mux(passing, self.below.payload.result, own)),
                link.last.eq(Mux(passing, self.below.payload.last, self.bottom)),
            ]
            with m.If(passing & self.below.valid & self.below.payload.last):
                m.d.sync += passing.eq(0)
            with m.If(~passing & full):
                m.d.sync += [passing.eq(~self.bottom), full.eq(0)]
        with m.If(self.load):
            m.d.sync += [own.eq(self.result), full.eq(1)]
        return m
