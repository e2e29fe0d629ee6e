"""Streams a tile of x and the same tile of g through the quantizers to the threshold's gradient."""

import itertools

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import TileIndex

__all__ = ["GradientReader"]


class GradientReader(wiring.Component):
    """Reads both halves of the tile buffer, `lanes` columns at a time, so that x's delta and g meet.

    x is read in every other cycle; the same columns of g are read in one of the cycles between, as much later as the quantizer takes.

    Latency: the first x two cycles after both halves are full; each g ``latency`` cycles after its x.
    Throughput: `lanes` elements every two cycles.

    Parameters
    ----------
    config : LtoaqConfig
    latency : int
        Cycles from a quantizer's input to its delta, at least 1.

    Members
    -------
    enable : In(1)
        Tiles that become full are x and g in turn.
    tile : In(stream of TileIndex)
        Taken at once: no place matters to the sum.
    full_next : In(1)
        Both tiles of the pair are complete.
    consumed : Out(1)
        Two cycles in a row: both halves are done with.
    read_enable, read_other : Out(1)
    read_row : Out(⌈log2 tile⌉)
    read_part : Out(part of a row)
    read_data : In(32 * output_cols)
        To and from `TileBuffer`.
    x_valid : Out(1)
    x : Out(32 * lanes)
        To the first `lanes` quantizers.
    g_valid : Out(1)
    g : Out(32 * lanes)
        Beside the quantizers' deltas of the same elements; signed, like x, lane 0 least significant.
    busy : Out(1)
    """

    def __init__(self, config: LtoaqConfig, latency: int) -> None:
        if latency < 1:
            raise ValueError(f"the quantizers take at least one cycle, not {latency}")
        self.config, self.latency = config, latency
        self.lanes = config.block
        c = config.output_cols
        super().__init__(
            {
                "enable": In(1),
                "tile": In(stream.Signature(TileIndex)),
                "full_next": In(1),
                "consumed": Out(1),
                "read_enable": Out(1),
                "read_other": Out(1),
                "read_row": Out((config.tile - 1).bit_length()),
                "read_part": Out(max(1, (config.tile // c - 1).bit_length())),
                "read_data": In(32 * c),
                "x_valid": Out(1),
                "x": Out(32 * self.lanes),
                "g_valid": Out(1),
                "g": Out(32 * self.lanes),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        slices = config.output_cols // self.lanes
        place = data.StructLayout(
            {"valid": 1, "slice": max(1, (slices - 1).bit_length()), "part": len(self.read_part), "row": len(self.read_row)}
        )
        late = self.latency % 2 == 0  # g read in an odd cycle then waits one more
        lag = self.latency - late
        slice_bits, part_bits = (slices - 1).bit_length(), (config.tile // config.output_cols - 1).bit_length()
        count = Signal(slice_bits + part_bits + (config.tile - 1).bit_length())
        phase = Signal()
        x_read = Signal(place)
        later = [Signal(place, name=f"place{i}") for i in range(lag + 1)]
        m.d.comb += [
            x_read.slice.eq(count[:slice_bits]),
            x_read.part.eq(count[slice_bits : slice_bits + part_bits]),
            x_read.row.eq(count[slice_bits + part_bits :]),
        ]
        m.d.sync += later[0].eq(x_read)
        m.d.sync += [after.eq(before) for before, after in itertools.pairwise(later)]
        g_read = later[lag - 1]
        with m.If(g_read.valid):
            m.d.comb += [self.read_other.eq(1), self.read_row.eq(g_read.row), self.read_part.eq(g_read.part)]
        with m.Else():
            m.d.comb += [self.read_row.eq(x_read.row), self.read_part.eq(x_read.part)]
        m.d.comb += self.read_enable.eq(x_read.valid | g_read.valid)

        def columns(which: object) -> object:
            return self.read_data.word_select(which, 32 * self.lanes) if slices > 1 else self.read_data

        m.d.comb += [self.x_valid.eq(later[0].valid), self.x.eq(columns(later[0].slice))]
        g_valid, g = later[lag].valid, columns(later[lag].slice)
        if late:
            m.d.sync += [self.g_valid.eq(g_valid), self.g.eq(g)]
        else:
            m.d.comb += [self.g_valid.eq(g_valid), self.g.eq(g)]

        in_flight = Signal()
        m.d.comb += [in_flight.eq(Cat(p.valid for p in later).any() | self.g_valid), self.tile.ready.eq(1)]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += phase.eq(0)
                with m.If(self.enable & self.full_next):
                    m.next = "READ"
            with m.State("READ"):
                m.d.sync += phase.eq(~phase)
                m.d.comb += x_read.valid.eq(~phase)
                with m.If(~phase):
                    m.d.sync += count.eq(count + 1)
                    with m.If(count.all()):
                        m.next = "DRAIN"
            with m.State("DRAIN"), m.If(~in_flight):
                m.d.comb += self.consumed.eq(1)
                m.next = "RELEASE"
            with m.State("RELEASE"):
                m.d.comb += self.consumed.eq(1)
                m.next = "IDLE"
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m
