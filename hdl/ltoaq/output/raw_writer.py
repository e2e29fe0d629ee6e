"""Writes finished tiles to memory as 32-bit words."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout, write_layout
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import MatrixShape, RawJob, TileIndex

__all__ = ["RawWriter"]


class RawWriter(wiring.Component):
    """One burst for each line of a tile; nothing outside the matrix is written.

    Latency: the first command the cycle after a tile is full and its index is there; a line's first beat two cycles after its command was
    taken. Throughput: C·4/bus_bytes beats every C·4/bus_bytes + 1 cycles, and a cycle for each line's command.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    job : In(RawJob)
    shape : In(MatrixShape)
        Both constant while ``busy``.
    enable : In(1)
        Tiles that become full are to be written as they are.
    tile : In(stream of TileIndex)
        Of the tiles, in their order.
    full : In(1)
    consumed : Out(1)
    read_enable : Out(1)
    read_row : Out(⌈log2 tile⌉)
    read_part : Out(part of a row)
    read_data : In(32 * output_cols)
        To and from `TileBuffer`.
    write_command : Out(stream of `command_layout`)
    write_data : Out(stream of `write_layout`)
        To the write DMA.
    busy : Out(1)
        A tile is being written, or an index waits for its tile.
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        c = config.output_cols
        super().__init__(
            {
                "job": In(RawJob),
                "shape": In(MatrixShape),
                "enable": In(1),
                "tile": In(stream.Signature(TileIndex)),
                "full": In(1),
                "consumed": Out(1),
                "read_enable": Out(1),
                "read_row": Out((config.tile - 1).bit_length()),
                "read_part": Out(max(1, (config.tile // c - 1).bit_length())),
                "read_data": In(32 * c),
                "write_command": Out(stream.Signature(command_layout())),
                "write_data": Out(stream.Signature(write_layout(config.bus_bytes))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, job = self.config, self.job
        lanes, cols = config.bus_bytes // 4, config.output_cols
        beats_a_part = cols // lanes
        m.submodules.tiles = tiles = SyncFIFO(width=32, depth=4)
        index = Signal(TileIndex)
        row = Signal(range(config.tile))
        part = Signal(range(config.tile // cols + 1))
        beat = Signal(range(max(2, beats_a_part)))
        size_bits = config.tile.bit_length()
        rows = Signal(size_bits)
        width = Signal(size_bits)
        rows_left = Signal(17)
        cols_left = Signal(17)
        address = Signal(32, reset_less=True)
        line_beats = Signal(16)
        column = Signal(size_bits)
        command, out = self.write_command, self.write_data
        m.d.comb += [
            tiles.w_en.eq(self.tile.valid),
            tiles.w_data.eq(self.tile.payload),
            self.tile.ready.eq(tiles.w_rdy),
            index.eq(tiles.r_data),
            rows_left.eq(self.shape.m - index.row * config.tile),
            cols_left.eq(self.shape.n - index.col * config.tile),
            line_beats.eq((width + (lanes - 1)) >> (lanes.bit_length() - 1)),
            column.eq(part * cols + beat * lanes),
            self.read_row.eq(row),
            self.read_part.eq(part),
            out.payload.data.eq(self.read_data.word_select(beat, config.bus_bits)),
            # A beat has at least its first word.
            out.payload.strobe.eq(Cat(Const(0b1111, 4), ((column + lane < width).replicate(4) for lane in range(1, lanes)))),
        ]
        last_beat = Signal()
        last_part = Signal()
        m.d.comb += [last_beat.eq((beat == beats_a_part - 1) | last_part), last_part.eq(column + lanes >= width)]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += [
                    address.eq(
                        job.address + index.row * (job.pitch << (config.tile - 1).bit_length()) + index.col * (4 * config.tile)
                    ),
                    rows.eq(Mux(rows_left < config.tile, rows_left, config.tile)),
                    width.eq(Mux(cols_left < config.tile, cols_left, config.tile)),
                    row.eq(0),
                ]
                with m.If(self.enable & self.full & tiles.r_rdy):
                    m.next = "LINE"
            with m.State("LINE"):
                m.d.comb += [command.valid.eq(1), command.payload.address.eq(address), command.payload.beats.eq(line_beats)]
                m.d.sync += [part.eq(0), beat.eq(0)]
                with m.If(command.ready):
                    m.d.sync += address.eq(address + job.pitch)
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += self.read_enable.eq(1)
                m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += out.valid.eq(1)
                with m.If(out.ready):
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(last_beat):
                        m.d.sync += [beat.eq(0), part.eq(part + 1)]
                        m.next = "READ"
                    with m.If(last_part):
                        m.d.sync += row.eq(row + 1)
                        m.next = "LINE"
                        with m.If(row == rows - 1):
                            m.d.comb += [self.consumed.eq(1), tiles.r_en.eq(1)]
                            m.next = "IDLE"
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE") | tiles.r_rdy)
        return m
