"""The tile buffer's credits: no half is written before it was given back, none is read before it is complete."""

from functools import partial

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.output.tile_buffer import TileBuffer


class CreditSpec(wiring.Component):
    """Passes are begun with a credit, columns bring their rows in any order among columns, the reader consumes what is full.

    Counts rows of each column since the oldest half that is not consumed. With `fault`, the buffer misses that a credit was taken in
    the cycle in which a half is consumed.
    """

    def __init__(self, tile: int, fault: bool = False) -> None:
        self.fault = fault
        self.config = LtoaqConfig(name="formal", rows=4, cols=4, tile=tile, bus_bytes=8, bank_words=256)
        super().__init__({"take": In(1), "valid": In(self.config.output_cols), "consumed": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.buffer = buffer = TileBuffer(config)
        half = config.tile**2 // config.output_cols  # rows of a column in a half, all parts
        begun = Signal(range(4 * half))  # rows that may flow
        rows = [Signal(range(4 * half), name=f"rows{column}") for column in range(config.output_cols)]
        given_back = Mux(self.consumed, half, 0)
        m.d.comb += [
            buffer.take.eq(self.take & ~(self.consumed & self.fault)),
            buffer.result_valid.eq(self.valid),
            buffer.consumed.eq(self.consumed),
            Assume(~self.take | buffer.credit),
            Assume(~self.consumed | buffer.full),
        ]
        m.d.sync += begun.eq(begun + Mux(self.take, config.rows, 0) - given_back)
        for column, count in enumerate(rows):
            m.d.comb += Assume(~self.valid[column] | (count < begun))
            m.d.sync += count.eq(count + self.valid[column] - given_back)
            m.d.comb += [
                Assert((count < 2 * half) | ~self.valid[column]),  # else it would write into the half being read
                Assert((count >= half) | ~buffer.full),
                Assert((count >= 2 * half) | ~buffer.full_next),
            ]
        m.d.comb += [
            Assert(begun <= 2 * half),
            Assert(buffer.credit == (begun < 2 * half)),
            Cover(buffer.full_next & ~buffer.credit),
            Cover(self.consumed & (rows[0] == 2 * half) & (rows[3] == half)),
        ]
        # What is complete is seen as such, a cycle later: nothing waits for ever.
        complete = Signal(2)
        m.d.comb += complete[0].eq(Cat(count >= half for count in rows).all())
        m.d.sync += complete[1].eq(complete[0] & ~self.consumed)
        m.d.comb += Assert(~complete.all() | buffer.full)
        return m


PROOFS = [
    Proof(
        name=f"ltoaq.output.tile_buffer.credits_{passes}",
        spec=partial(CreditSpec, tile),
        fault=partial(CreditSpec, tile, fault=True),
        cover_depth=cover_depth,
        slow=slow,
        reason=f"control only: the banks are outside the cone; S = {tile}, R = C = 4; the 32-bit loader's writes are left to the bench",
    )
    for passes, tile, cover_depth, slow in (("one_pass", 4, 20, False), ("four_passes", 8, 70, True))
]
