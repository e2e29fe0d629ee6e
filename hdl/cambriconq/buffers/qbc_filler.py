"""Brings a vector from a buffer's memory into the Selected Line."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .tag import Tag

__all__ = ["QbcFiller"]


class QbcFiller(wiring.Component):
    """Reads as many lines as the tag of the first one says, if that one is valid, and checks that they belong together.

    A line arrives the cycle after it is fetched. The second line is fetched before the first has told its tag.

    Latency: ``done`` p + 1 cycles after ``start`` for a vector of p lines, if every fetch is allowed; 2 if its first line is not valid.
    Throughput: a vector at a time, a line a cycle.

    Members
    -------
    start : In(1)
        Fetch the vector. Not while ``busy``.
    slot : In(2)
        The largest vector that is allowed, in lines less one; counts with ``start``.
    busy : Out(1)
        From the cycle after ``start`` until the vector is complete or refused.
    again : In(1)
        What was read may be out of date: begin anew.
    cancel : In(1)
        Give up; nothing is reported.
    fetch_allowed : In(1)
        The memory's read port is free in this cycle.
    fetch_enable : Out(1)
    fetch_place, load_place : Out(2)
        Line of the vector that is fetched, and that arrives.
    load_enable : Out(1)
        A line arrives.
    stored_tag : In(Tag)
    stored_valid : In(1)
        Of the line that arrives.
    tag : In(Tag)
        Of the first line, from the cycle after its arrival on.
    done : Out(1)
        With the last line, or with the first if it is not valid.
    no_room, partly_overwritten : Out(1)
        One cycle; instead of ``done``, a cycle later.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "slot": In(2),
                "busy": Out(1),
                "again": In(1),
                "cancel": In(1),
                "fetch_allowed": In(1),
                "fetch_enable": Out(1),
                "fetch_place": Out(2),
                "load_enable": Out(1),
                "load_place": Out(2),
                "stored_tag": In(Tag),
                "stored_valid": In(1),
                "tag": In(Tag),
                "done": Out(1),
                "no_room": Out(1),
                "partly_overwritten": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        busy = Signal()
        arriving = Signal()
        place = Signal(2)
        slot = Signal(2)
        fetched = Signal(3)
        needed = Signal(3)
        first = Signal()
        last = Signal()
        fits = Signal()
        belongs = Signal()
        m.d.comb += [
            self.busy.eq(busy),
            self.fetch_enable.eq(busy & self.fetch_allowed & (fetched < needed)),
            self.fetch_place.eq(fetched[:2]),
            self.load_enable.eq(busy & arriving & ~self.again),
            self.load_place.eq(place),
            first.eq(place == 0),
            last.eq(Mux(first, ~self.stored_valid | (self.stored_tag.size == 0), place == self.tag.size)),
            fits.eq(~first | ~self.stored_valid | (self.stored_tag.size <= slot)),
            belongs.eq(first | self.stored_valid & (self.stored_tag == self.tag)),
            self.done.eq(self.load_enable & fits & belongs & last),
        ]
        no_room = Signal()
        partly_overwritten = Signal()
        m.d.comb += [self.no_room.eq(no_room), self.partly_overwritten.eq(partly_overwritten)]
        m.d.sync += [
            arriving.eq(self.fetch_enable & ~self.again & ~self.cancel),
            place.eq(self.fetch_place),
            no_room.eq(self.load_enable & ~fits & ~self.cancel),
            partly_overwritten.eq(self.load_enable & ~belongs & ~self.cancel),
        ]
        with m.If(self.fetch_enable):
            m.d.sync += fetched.eq(fetched + 1)
        with m.If(self.load_enable):
            with m.If(first):
                m.d.sync += needed.eq(self.stored_tag.size + 1)
            with m.If(last | ~fits | ~belongs):
                m.d.sync += busy.eq(0)
        with m.If(self.start):
            m.d.sync += [busy.eq(1), slot.eq(self.slot)]
        with m.If(self.start | self.again):
            m.d.sync += [fetched.eq(0), needed.eq(Mux(Mux(self.start, self.slot, slot).any(), 2, 1))]
        with m.If(self.cancel):
            m.d.sync += busy.eq(0)
        return m
