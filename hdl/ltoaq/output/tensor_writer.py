"""Quantizes finished tiles and writes them to memory as OAQ codes and run-length segments."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout, write_layout
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import OutputJob, TileIndex

from .block_store import BlockStore
from .encoder import Encoder

__all__ = ["TensorWriter"]


class TensorWriter(wiring.Component):
    """Reads tiles row by row for the quantizers, and stores what comes back from them.

    A tile's codes are one burst, its segment another. The next tile is read and quantized while a tile is still being
    written.

    Latency: a tile's first row is read in the cycle in which it is ``full``; the command for its codes is on offer B + q + 3 cycles later,
    B the edge of a block, q the cycles from ``row_valid`` to ``i_valid``; that for its segment `Encoder.latency` + 1 cycles after its last
    codes left, at the earliest.
    Throughput: a row of C values a cycle in, a beat a cycle out.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    job : In(OutputJob)
    eight_bit : In(1)
        Both constant while ``busy``.
    enable : In(1)
        Tiles that become full are tensors' tiles.
    tile : In(stream of TileIndex)
        Of the tiles, in their order.
    full : In(1)
    consumed : Out(1)
    read_enable : Out(1)
    read_row : Out(⌈log2 tile⌉)
    read_part : Out(part of a row)
        To and from `TileBuffer`.
    row_valid : Out(1)
        A row asked for in the last cycle is at the tile buffer's output now, for the quantizers.
    i_valid : In(1)
    i_code : In(output_cols * 8)
    i_outlier : In(output_cols)
        Rows back from the quantizers, as `BlockStore` takes them.
    write_command : Out(stream of `command_layout`)
    write_data : Out(stream of `write_layout`)
        To the write DMA.
    run_beats : Out(16)
        Longest segment since reset, in beats.
    overflow : Out(1)
        Sticky: a segment outgrew the run stride.
    busy : Out(1)
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        c = config.output_cols
        parts = config.tile // c
        super().__init__(
            {
                "job": In(OutputJob),
                "eight_bit": In(1),
                "enable": In(1),
                "tile": In(stream.Signature(TileIndex)),
                "full": In(1),
                "consumed": Out(1),
                "read_enable": Out(1),
                "read_row": Out((config.tile - 1).bit_length()),
                "read_part": Out(max(1, (parts - 1).bit_length())),
                "row_valid": Out(1),
                "i_valid": In(1),
                "i_code": In(8 * c),
                "i_outlier": In(c),
                "write_command": Out(stream.Signature(command_layout())),
                "write_data": Out(stream.Signature(write_layout(config.bus_bytes))),
                "run_beats": Out(16),
                "overflow": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.tiles = tiles = SyncFIFO(width=32, depth=4)
        m.submodules.store = store = BlockStore(config.output_cols, config.block)
        m.submodules.encoder = encoder = Encoder.of(config)
        # Codes go to the bus whether or not the encoder can tell in this cycle that it is done with a word.
        m.submodules.flags = flags = SyncFIFO(width=encoder.flags.payload.shape().size, depth=2)
        m.d.comb += [
            tiles.w_en.eq(self.tile.valid),
            tiles.w_data.eq(self.tile.payload),
            self.tile.ready.eq(tiles.w_rdy),
            store.eight_bit.eq(self.eight_bit),
            store.i_valid.eq(self.i_valid),
            store.i_code.eq(self.i_code),
            store.i_outlier.eq(self.i_outlier),
            encoder.eight_bit.eq(self.eight_bit),
            encoder.flags.payload.eq(flags.r_data),
            encoder.flags.valid.eq(flags.r_rdy),
            flags.r_en.eq(encoder.flags.ready),
            encoder.limit.eq(self.job.run_stride),
            self.overflow.eq(encoder.overflow),
        ]
        reading = self._read(m, store)
        writing = self._write(m, tiles, store, flags, encoder)
        m.d.comb += self.busy.eq(reading | writing | tiles.r_rdy | store.o.valid)
        return m

    def _read(self, m: Module, store: BlockStore) -> Signal:
        """Groups of B rows of C columns, block row by block row."""
        config = self.config
        b, parts = config.block, config.tile // config.output_cols
        row = Signal(range(b))
        part = Signal(range(max(2, parts)))
        block_row = Signal(range(config.tile // b))
        active = Signal()
        last_part = Signal()
        m.d.comb += [
            active.eq(self.enable & self.full & ((row != 0) | store.room)),
            store.reserve.eq(active & (row == 0)),
            last_part.eq(part == parts - 1),
            self.read_enable.eq(active),
            self.read_row.eq(block_row * b + row),
            self.read_part.eq(part),
        ]
        m.d.sync += self.row_valid.eq(active)
        with m.If(active):
            m.d.sync += row.eq(Mux(row == b - 1, 0, row + 1))
            with m.If(row == b - 1):
                m.d.sync += part.eq(Mux(last_part, 0, part + 1))
                with m.If(last_part):
                    m.d.sync += block_row.eq(block_row + 1)
                    m.d.comb += self.consumed.eq(block_row == config.tile // b - 1)
        return active

    def _write(self, m: Module, tiles: SyncFIFO, store: BlockStore, flags: SyncFIFO, encoder: Encoder) -> Signal:
        config, job = self.config, self.job
        index = Signal(TileIndex)
        codes = Signal(32)
        runs = Signal(32)
        tile_beats = Signal(16)
        beat = Signal(16)
        factor = Signal(16)
        step = Signal(32)
        product = Signal(32)
        m.d.comb += [
            index.eq(tiles.r_data),
            product.eq(factor * step),
            tile_beats.eq(Mux(self.eight_bit, config.tile_beats(8), config.tile_beats(4))),
        ]
        tile_bytes = config.tile_beats(4) * config.bus_bytes
        command, out = self.write_command, self.write_data
        m.d.comb += out.payload.strobe.eq(-1)
        code_taken = Signal()
        m.d.comb += [
            flags.w_data.eq(Cat(store.o.payload.flags, beat == tile_beats - 1)),
            code_taken.eq(store.o.valid & store.o.ready),
        ]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                # One multiplier serves the three products of the two addresses.
                m.d.comb += [factor.eq(index.row), step.eq(job.codes_row_step)]
                m.d.sync += [codes.eq(job.codes + product + ((index.col * tile_bytes) << self.eight_bit)), beat.eq(0)]
                with m.If(tiles.r_rdy & store.o.valid):
                    m.next = "ROW"
            with m.State("ROW"):
                m.d.comb += [factor.eq(index.row), step.eq(job.runs_row_step)]
                m.d.sync += runs.eq(job.runs + product)
                m.next = "COLUMN"
            with m.State("COLUMN"):
                m.d.comb += [
                    factor.eq(index.col),
                    step.eq(job.runs_tile_step),
                    command.valid.eq(1),
                    command.payload.address.eq(codes),
                    command.payload.beats.eq(tile_beats),
                ]
                with m.If(command.ready):
                    m.d.sync += runs.eq(runs + product)
                    m.next = "CODES"
            with m.State("CODES"):
                m.d.comb += [
                    out.payload.data.eq(store.o.payload.codes),
                    out.valid.eq(store.o.valid & flags.w_rdy),
                    flags.w_en.eq(store.o.valid & out.ready),
                    store.o.ready.eq(out.ready & flags.w_rdy),
                ]
                with m.If(code_taken):
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(beat == tile_beats - 1):
                        m.d.comb += tiles.r_en.eq(1)
                        m.next = "SEGMENT"
            with m.State("SEGMENT"):
                m.d.comb += [
                    command.valid.eq(encoder.runs.valid),
                    command.payload.address.eq(runs),
                    command.payload.beats.eq(encoder.segment_beats),
                ]
                with m.If(command.valid & command.ready):
                    with m.If(encoder.segment_beats > self.run_beats):
                        m.d.sync += self.run_beats.eq(encoder.segment_beats)
                    m.next = "RUNS"
            with m.State("RUNS"):
                m.d.comb += [
                    out.payload.data.eq(encoder.runs.payload.data),
                    out.valid.eq(encoder.runs.valid),
                    encoder.runs.ready.eq(out.ready),
                ]
                with m.If(out.valid & out.ready & encoder.runs.payload.last):
                    m.next = "IDLE"
        busy = Signal()
        m.d.comb += busy.eq(~fsm.ongoing("IDLE"))
        return busy
