"""Brings tiles of 32-bit matrices from memory into the tile buffer."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import MatrixShape, RawJob, TileIndex

__all__ = ["RawLoader"]


class RawLoader(wiring.Component):
    """Walks the tiles of one matrix, or of two side by side, row-major; what lies outside the matrix becomes zero.

    Latency: the first command 2 cycles after ``start``; a word is written in the cycle in which its beat is taken.
    Throughput: one bus beat a cycle; a tile takes S²·4/bus_bytes cycles, that of x one more, in which its index is handed over.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    shape : In(MatrixShape)
    x, g : In(RawJob)
    pair : In(1)
        Each tile of x is followed by the same tile of g. All of these constant from ``start`` until not ``busy``.
    start : In(1)
        Not while ``busy``.
    read_command : Out(stream of `command_layout`)
    read_data : In(stream of bus_bits)
        To and from the read DMA.
    raw_ready : In(1)
    raw_enable : Out(output_cols)
    raw_row : Out(⌈log2 tile⌉)
    raw_part : Out(part of a row)
    raw_data : Out(32 * output_cols)
    raw_done : Out(1)
        To `TileBuffer`.
    tile : Out(stream of TileIndex)
        One for each tile (of x), before its first word is written.
    busy : Out(1)
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        self.cols = config.output_cols
        parts = config.tile // self.cols
        super().__init__(
            {
                "shape": In(MatrixShape),
                "x": In(RawJob),
                "g": In(RawJob),
                "pair": In(1),
                "start": In(1),
                "read_command": Out(stream.Signature(command_layout())),
                "read_data": In(stream.Signature(config.bus_bits)),
                "raw_ready": In(1),
                "raw_enable": Out(self.cols),
                "raw_row": Out((config.tile - 1).bit_length()),
                "raw_part": Out(max(1, (parts - 1).bit_length())),
                "raw_data": Out(32 * self.cols),
                "raw_done": Out(1),
                "tile": Out(stream.Signature(TileIndex)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        size_bits = config.tile.bit_length()
        layout = data.StructLayout({"rows": size_bits, "cols": size_bits, "first": 1, "row": 16, "col": 16})
        m.submodules.tiles = tiles = SyncFIFOBuffered(width=layout.size, depth=4)
        requesting = self._request(m, tiles, layout)
        receiving = self._receive(m, tiles, layout)
        m.d.comb += self.busy.eq(requesting | receiving | tiles.r_rdy)
        return m

    def _request(self, m: Module, tiles: SyncFIFOBuffered, layout: data.StructLayout) -> Signal:
        config, shape = self.config, self.shape
        lanes = config.bus_bytes // 4
        row = Signal(16)
        col = Signal(16)
        second = Signal()
        line = Signal(range(config.tile))
        entry = Signal(layout)
        rows_left = Signal(17)
        cols_left = Signal(17)
        m.d.comb += [
            rows_left.eq(shape.m - row * config.tile),
            cols_left.eq(shape.n - col * config.tile),
            entry.rows.eq(Mux(rows_left < config.tile, rows_left, config.tile)),
            entry.cols.eq(Mux(cols_left < config.tile, cols_left, config.tile)),
            entry.first.eq(~second),
            entry.row.eq(row),
            entry.col.eq(col),
            tiles.w_data.eq(entry),
        ]
        # Address of the current line of each matrix' current tile, and of the first line of the tile row.
        strip = [Signal(32, name=f"{name}_strip") for name in ("x", "g")]
        address = Signal(32)
        jobs = (self.x, self.g)
        next_row = Signal()
        next_col = Signal()
        last_col = Signal()
        last_row = Signal()
        m.d.comb += [
            last_col.eq(col == shape.n_tiles - 1),
            last_row.eq(row == shape.m_tiles - 1),
            self.read_command.payload.address.eq(address),
            self.read_command.payload.beats.eq((entry.cols + (lanes - 1)) >> (lanes.bit_length() - 1)),
        ]
        requesting = Signal()
        with m.FSM() as fsm:
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [row.eq(0), col.eq(0), second.eq(0), strip[0].eq(jobs[0].address), strip[1].eq(jobs[1].address)]
                m.next = "TILE"
            with m.State("TILE"):
                m.d.comb += tiles.w_en.eq(1)
                m.d.sync += [line.eq(0), address.eq(Mux(second, strip[1], strip[0]) + col * (4 * config.tile))]
                with m.If(tiles.w_rdy):
                    m.next = "LINES"
            with m.State("LINES"):
                m.d.comb += self.read_command.valid.eq(1)
                with m.If(self.read_command.ready):
                    m.d.sync += [line.eq(line + 1), address.eq(address + Mux(second, jobs[1].pitch, jobs[0].pitch))]
                    with m.If(line == entry.rows - 1):
                        m.next = "TILE"
                        with m.If(self.pair & ~second):
                            m.d.sync += second.eq(1)
                        with m.Else():
                            m.d.sync += second.eq(0)
                            m.d.comb += [next_col.eq(~last_col), next_row.eq(last_col)]
                            with m.If(last_col & last_row):
                                m.next = "IDLE"
            m.d.comb += requesting.eq(~fsm.ongoing("IDLE"))
        with m.If(next_col):
            m.d.sync += col.eq(col + 1)
        with m.If(next_row):
            m.d.sync += [col.eq(0), row.eq(row + 1)]
            m.d.sync += [s.eq(s + (job.pitch << (config.tile - 1).bit_length())) for s, job in zip(strip, jobs, strict=True)]
        return requesting

    def _receive(self, m: Module, tiles: SyncFIFOBuffered, layout: data.StructLayout) -> Signal:
        config = self.config
        lanes = config.bus_bytes // 4
        entry = Signal(layout)
        beats_a_line = config.tile // lanes
        line = Signal(range(config.tile))
        beat = Signal(range(beats_a_line))
        active = Signal()
        inside = Signal()
        step = Signal()
        announced = Signal()
        first_col = Signal(range(config.tile + 1))
        m.d.comb += [
            entry.eq(tiles.r_data),
            first_col.eq(beat * lanes),
            active.eq(tiles.r_rdy & self.raw_ready & (announced | ~entry.first)),
            inside.eq((line < entry.rows) & (first_col < entry.cols)),
            step.eq(active & (~inside | self.read_data.valid)),
            self.read_data.ready.eq(active & inside),
            self.raw_row.eq(line),
            self.raw_part.eq(first_col >> (self.cols - 1).bit_length()),
            self.tile.payload.row.eq(entry.row),
            self.tile.payload.col.eq(entry.col),
            self.tile.valid.eq(tiles.r_rdy & entry.first & ~announced),
        ]
        masked = Cat(
            Mux(inside & (first_col + lane < entry.cols), self.read_data.payload.word_select(lane, 32), Const(0, 32))
            for lane in range(lanes)
        )
        groups = self.cols // lanes
        m.d.comb += self.raw_data.eq(Cat(masked for _ in range(groups)))
        group = Signal(range(max(2, groups)))
        m.d.comb += group.eq(beat[: (groups - 1).bit_length()] if groups > 1 else 0)
        m.d.comb += self.raw_enable.eq(Cat(((step & (group == g)).replicate(lanes)) for g in range(groups)))
        with m.If(self.tile.valid & self.tile.ready):
            m.d.sync += announced.eq(1)
        with m.If(self.raw_done):
            m.d.sync += announced.eq(0)
        with m.If(step):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat == beats_a_line - 1):
                m.d.sync += [beat.eq(0), line.eq(line + 1)]
                with m.If(line == config.tile - 1):
                    m.d.sync += line.eq(0)
                    m.d.comb += [self.raw_done.eq(1), tiles.r_en.eq(1)]
        return active
