"""Any one element of any one group leaves the block store in the beat and the lane where it belongs."""

from amaranth import Module, Mux, Signal
from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from nibblecore.formal.runner import Proof
from nibblecore.hdl.ltoaq.output.block_store import BlockStore

BLOCK, LANES = 2, 4


class ElementSpec(wiring.Component):
    """Follows row `row`, lane `lane` of a group that the solver picks, whatever the stalls and however many groups are ahead of it.

    With `fault`, `room` is believed a cycle too long, so a third group is let in.
    """

    def __init__(self, fault: bool = False) -> None:
        self.fault = fault
        super().__init__(
            {
                "eight_bit": In(1),
                "reserve": In(1),
                "valid": In(1),
                "code": In(8 * LANES),
                "outlier": In(LANES),
                "ready": In(1),
                "choose": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.store = store = BlockStore(LANES, BLOCK)
        eight_bit = AnyConst(1)
        row, lane = AnyConst(1), AnyConst(2)
        seen_room = Signal()
        m.d.sync += seen_room.eq(store.room)
        room = store.room | seen_room if self.fault else store.room
        m.d.comb += [
            store.eight_bit.eq(eight_bit),
            store.reserve.eq(self.reserve),
            store.i_valid.eq(self.valid),
            store.i_code.eq(self.code),
            store.i_outlier.eq(self.outlier),
            store.o.ready.eq(self.ready),
            Assume(~self.reserve | room),
        ]

        # Rows come only for groups that were reserved, in this cycle or before.
        owed = Signal(range(4 * BLOCK + 1))
        m.d.comb += Assume(~self.valid | (owed != 0) | self.reserve)
        m.d.sync += owed.eq(owed + Mux(self.reserve, BLOCK, 0) - self.valid)

        row_in, beat_out, inside = Signal(range(BLOCK)), Signal(2), Signal(range(4))
        group_in, group_out = Signal(), Signal()
        taken = Signal()
        m.d.comb += [
            taken.eq(store.o.valid & store.o.ready),
            group_in.eq(self.valid & (row_in == BLOCK - 1)),
            group_out.eq(taken & (beat_out == Mux(eight_bit, 3, 1))),
        ]
        m.d.sync += [row_in.eq(row_in + self.valid), inside.eq(inside + group_in - group_out)]
        with m.If(taken):
            m.d.sync += beat_out.eq(Mux(group_out, 0, beat_out + 1))

        chosen, filling, ahead = Signal(), Signal(), Signal(range(4))
        value = Signal(9)
        starts = Signal()
        m.d.comb += starts.eq(self.valid & (row_in == 0) & self.choose & ~chosen)
        with m.If(starts):
            m.d.sync += [chosen.eq(1), filling.eq(1), ahead.eq(inside - group_out)]
        with m.Elif(group_out & chosen):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.sync += chosen.eq(0)
        with m.If(group_in):
            m.d.sync += filling.eq(0)
        with m.If(self.valid & (starts | filling) & (row_in == row)):
            m.d.sync += [value[:8].eq(self.code.word_select(lane, 8)), value[8].eq(self.outlier.bit_select(lane, 1))]

        here = Signal()
        codes, flags = store.o.payload.codes, store.o.payload.flags
        nibble, byte = Signal(2), Signal(1)
        m.d.comb += [here.eq(chosen & store.o.valid & (ahead == 0)), nibble.eq(row * 2 + lane[0]), byte.eq(row)]
        with m.If(here & eight_bit & (beat_out == lane)):
            m.d.comb += [Assert(codes.word_select(byte, 8) == value[:8]), Assert(flags.bit_select(byte, 1) == value[8])]
            m.d.comb += Cover((inside == 2) & value[8])
        with m.If(here & ~eight_bit & (beat_out == lane[1])):
            m.d.comb += [Assert(codes.word_select(nibble, 4) == value[:4]), Assert(flags.bit_select(nibble, 1) == value[8])]
            m.d.comb += Cover((inside == 2) & value[8])
        m.d.comb += [Assert(store.o.valid == (inside != 0)), Assert(inside <= 2), Assert(~here | ~filling)]
        return m


PROOFS = [
    Proof(
        name="ltoaq.output.block_store.element",
        spec=ElementSpec,
        fault=lambda: ElementSpec(fault=True),
        cover_depth=16,
        slow=True,
        reason="control with data that is only moved; two blocks of 2 × 2 stand for all, as B and the lanes are loop bounds only",
    )
]
