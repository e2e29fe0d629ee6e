"""Writes a stream of words to a shape's places in NBout."""

from amaranth import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.nbout import row_bits
from nibblecore.hdl.cambriconq.program.job import Place, Shape, elements_layout

from .walk import Walk

__all__ = ["Scatter"]


class Scatter(wiring.Component):
    """A stream of words into NBout at ``at + i·row + j·col``, row by row; of words with one place the last stays.

    Latency: a word is written in the cycle in which it is taken; none is before the cycle after ``start``. Throughput: a word a cycle,
    ``words`` of them with ``wide``.

    Parameters
    ----------
    lanes : int
        Banks of NBout, a power of two, at least 2.
    address_bits : int
        Of a word in NBout.
    words : int
        Taken together with ``wide``; a power of two, at most ``lanes``.

    Members
    -------
    start : In(1)
        Not from one start until its ``done``.
    shape : In(Shape)
    place : In(Place)
        In words. Both constant from ``start`` until ``done``.
    wide : In(1), if ``words`` > 1
        Only if ``place`` is (`Place.wide`). Constant as it is.
    done : Out(1)
        One cycle: all words can be read. The cycle after the last was taken; after ``start`` if the shape is empty.
    i : In(stream of `elements_layout`)
        One word if not ``wide``; their ends do not matter, nor words beyond the shape's. Ready from the cycle after ``start`` until the last.
    write_enable : Out(lanes)
        Lanes to write, a bit for each.
    write_row : Out(row of NBout)
    write_data : Out(32 * lanes)
        To `Nbout`, which takes all.
    """

    def __init__(self, lanes: int, address_bits: int, words: int = 1) -> None:
        bits = row_bits(1 << address_bits, lanes)
        if words > lanes:
            raise ValueError(f"{words} words do not fit a row of {lanes} lanes")
        self.lanes, self.address_bits, self.words = lanes, address_bits, words
        super().__init__(
            {
                "start": In(1),
                "shape": In(Shape),
                "place": In(Place),
                "done": Out(1),
                "i": In(stream.Signature(elements_layout(words))),
                **({"wide": In(1)} if words > 1 else {}),
                "write_enable": Out(lanes),
                "write_row": Out(bits),
                "write_data": Out(32 * lanes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walk = walk = Walk(self.address_bits, self.words)
        lane_bits = self.lanes.bit_length() - 1
        step, words = walk.o.payload, self.i.payload.words
        data = words.replicate(self.lanes // self.words)
        if self.words > 1:
            m.d.comb += walk.wide.eq(self.wide)
            data = Mux(self.wide, data, words[:32].replicate(self.lanes))
        m.d.comb += [
            walk.start.eq(self.start),
            walk.shape.eq(self.shape),
            walk.place.eq(self.place),
            walk.o.ready.eq(self.i.valid),
            self.i.ready.eq(walk.o.valid),
            self.write_enable.eq(Mux(walk.o.valid & self.i.valid, self.i.payload.mask & step.mask, 0) << step.address[:lane_bits]),
            self.write_row.eq(step.address[lane_bits:]),
            self.write_data.eq(data),
        ]
        m.d.sync += self.done.eq((self.start & self.shape.empty) | (walk.o.valid & self.i.valid & step.last))
        return m
