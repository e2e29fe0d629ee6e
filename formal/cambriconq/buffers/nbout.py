"""Who reads NBout, and what."""

from amaranth import Module, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.cambriconq.buffers.nbout import Nbout

LANES, ROWS = 2, 4


class ReadersSpec(wiring.Component):
    """Both readers get the row that they asked for as it was last written: the first whenever it asks, the second whenever it is granted.

    It is granted in every cycle in which the first wants no row of the same parity. With `fault`, odd rows go where the even ones are.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__(
            {
                "read_enable": In(1),
                "read_row": In(range(ROWS)),
                "second_valid": In(1),
                "second_row": In(range(ROWS)),
                "write_enable": In(LANES),
                "write_row": In(range(ROWS)),
                "write_data": In(32 * LANES),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.nbout = nbout = Nbout(LANES * ROWS, LANES)
        m.d.comb += [
            nbout.read_enable.eq(self.read_enable),
            nbout.read_row.eq(self.read_row),
            nbout.second.valid.eq(self.second_valid),
            nbout.second.payload.eq(self.second_row),
            nbout.write_enable.eq(self.write_enable),
            nbout.write_row.eq(self.write_row & ~int(self.fault)),
            nbout.write_data.eq(self.write_data),
        ]
        row, bit = AnyConst(range(ROWS)), AnyConst(range(32 * LANES))
        known, held = Signal(), Signal()
        with m.If(self.write_enable.bit_select(bit[5:], 1) & (self.write_row == row)):
            m.d.sync += [known.eq(1), held.eq(self.write_data.bit_select(bit, 1))]
        free, both = Signal(), Signal()
        m.d.comb += [
            free.eq(~(self.read_enable & (self.read_row[0] == self.second_row[0]))),
            both.eq(self.read_enable & self.second_valid & free),
            Assert(nbout.second.ready == free),
            # Callers read no row while it is being written.
            Assume(~(self.write_enable.any() & self.read_enable & (self.read_row == self.write_row))),
            Assume(~(self.write_enable.any() & self.second_valid & (self.second_row == self.write_row))),
        ]
        for name, asked, which, data in (
            ("first", self.read_enable, self.read_row, nbout.read_data),
            ("second", self.second_valid & nbout.second.ready, self.second_row, nbout.second_data),
        ):
            checked, expected = Signal(name=f"{name}_checked"), Signal(name=f"{name}_expected")
            was_both = Signal(name=f"{name}_was_both")
            m.d.sync += [checked.eq(known & asked & (which == row)), expected.eq(held), was_both.eq(both)]
            with m.If(checked):
                m.d.comb += [Assert(data.bit_select(bit, 1) == expected), Cover(expected & was_both)]
        m.d.comb += Cover(self.second_valid & ~nbout.second.ready)
        return m


PROOFS = [
    Proof(
        name="cambriconq.buffers.nbout.readers",
        spec=ReadersSpec,
        fault=lambda: ReadersSpec(fault=True),
        reason="unbounded; any bit of any row; two lanes and two rows of either parity stand for all, since places are only compared",
    )
]
