"""Collects quantized rows into blocks and emits them as bus beats."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.ltoaq.operands.transposer import beat_layout

__all__ = ["BlockStore"]


class BlockStore(wiring.Component):
    """Two sets of B rows of quantized values: one fills while the other is emitted.

    A row that enters must have been reserved: the user starts a group of B rows only when ``room`` is set, and says so with
    ``reserve``. Groups leave as their blocks from left to right, one beat a block (4-bit codes) or two (8-bit codes).

    Latency: a group's first beat is on offer the cycle after its last row entered, if the group before has left.
    Throughput: a group every max(B, lanes/B·bits/4) cycles.

    Parameters
    ----------
    lanes : int
        Columns of a row, a multiple of ``block``.
    block : int
        Edge B of a block.

    Members
    -------
    eight_bit : In(1)
        Constant while groups are inside.
    room : Out(1)
        A group may be reserved.
    reserve : In(1)
        One is; only with ``room``.
    i_valid : In(1)
        A row enters.
    i_code : In(lanes * 8)
        Lane 0 least significant, 4-bit codes in bits 3:0 of theirs.
    i_outlier : In(lanes)
        A flag a lane.
    o : Out(stream of beat_layout(block))
    """

    def __init__(self, lanes: int, block: int) -> None:
        self.lanes, self.block = lanes, block
        super().__init__(
            {
                "eight_bit": In(1),
                "room": Out(1),
                "reserve": In(1),
                "i_valid": In(1),
                "i_code": In(8 * lanes),
                "i_outlier": In(lanes),
                "o": Out(stream.Signature(beat_layout(block))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        b, blocks = self.block, self.lanes // self.block
        sets = [[Signal(9 * self.lanes, name=f"set{s}_row{r}") for r in range(b)] for s in range(2)]
        reserved = Signal(range(3))
        fill_set = Signal()
        emit_set = Signal()
        row = Signal(range(b))
        full = Signal(range(3))
        filled = Signal()
        emitted = Signal()
        m.d.comb += [self.room.eq(reserved != 2), filled.eq(self.i_valid & (row == b - 1)), self.o.valid.eq(full != 0)]
        m.d.sync += [reserved.eq(reserved + self.reserve - emitted), full.eq(full + filled - emitted)]
        entry = Cat(Cat(self.i_code.word_select(lane, 8), self.i_outlier[lane]) for lane in range(self.lanes))
        with m.If(self.i_valid):
            m.d.sync += row.eq(Mux(row == b - 1, 0, row + 1))
            for s in range(2):
                for r in range(b):
                    with m.If((fill_set == s) & (row == r)):
                        m.d.sync += sets[s][r].eq(entry)
        with m.If(filled):
            m.d.sync += fill_set.eq(~fill_set)

        index = Signal(range(max(2, blocks)))
        half = Signal()
        last = Signal()
        m.d.comb += [last.eq((index == blocks - 1) & (half | ~self.eight_bit)), emitted.eq(self.o.valid & self.o.ready & last)]
        with m.If(self.o.valid & self.o.ready):
            with m.If(self.eight_bit & ~half):
                m.d.sync += half.eq(1)
            with m.Else():
                m.d.sync += [half.eq(0), index.eq(Mux(last, 0, index + 1))]
        with m.If(emitted):
            m.d.sync += emit_set.eq(~emit_set)

        rows = [Signal(9 * b, name=f"block_row{r}") for r in range(b)]
        for r in range(b):
            chosen = Mux(emit_set, sets[1][r], sets[0][r])
            m.d.comb += rows[r].eq(chosen.word_select(index, 9 * b) if blocks > 1 else chosen)
        cells = [[rows[r].word_select(c, 9) for c in range(b)] for r in range(b)]
        nibbles = Cat(cells[r][c][:4] for r in range(b) for c in range(b))
        nibble_flags = Cat(cells[r][c][8] for r in range(b) for c in range(b))
        halves = [[cells[r][h * b // 2 + c] for r in range(b) for c in range(b // 2)] for h in range(2)]
        bytes_ = Array(Cat(cell[:8] for cell in cells_of_half) for cells_of_half in halves)
        byte_flags = Array(Cat(Cat(cell[8] for cell in cells_of_half), Const(0, b * b // 2)) for cells_of_half in halves)
        m.d.comb += [
            self.o.payload.codes.eq(Mux(self.eight_bit, bytes_[half], nibbles)),
            self.o.payload.flags.eq(Mux(self.eight_bit, byte_flags[half], nibble_flags)),
        ]
        return m
