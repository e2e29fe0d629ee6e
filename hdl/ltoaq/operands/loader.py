"""Fetches operand tiles from memory into the operand buffers."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.job import GemmJob, OperandFormat, OperandJob

from .decoder import Decoder
from .residual_clip import ResidualClip
from .step_walker import StepWalker
from .transposer import Transposer, word_bits

__all__ = ["Loader", "TilePointer", "TileRequest", "TileWalker"]


class TilePointer(wiring.Component):
    """Address of the tile to load next, in one region of one operand.

    Latency: ``address`` is the new one the cycle after its order. Throughput: an order a cycle.

    Members
    -------
    base : In(32)
        Byte address of the region.
    k_step, panel_step : In(32)
        Bytes to the next tile along K, and to the next panel.
    chunked : In(1)
        K is loaded in parts. These four are constant during a command.
    to_base, to_group, next_group, next_panel, next_tile : In(1)
        Where to go: to the region's first tile, back to the group's, to the next group, to the next panel (of a part of K the next
        tile), to the next tile along K. At most one at a time, except that ``next_panel`` wins over ``next_tile``. After the last tile
        of a part of K ``address`` is that of the next part.
    address : Out(32)
        In bytes.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "base": In(32),
                "k_step": In(32),
                "panel_step": In(32),
                "chunked": In(1),
                "to_base": In(1),
                "to_group": In(1),
                "next_group": In(1),
                "next_panel": In(1),
                "next_tile": In(1),
                "address": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        group = Signal(32)
        panel = Signal(32)
        at = Signal(32)
        by = Signal(32)
        new = Signal(32)
        along = Signal()
        # Whatever the order, the new address is one of four plus one of three, so that a single adder makes them all.
        m.d.comb += [along.eq((self.next_tile | self.next_panel) & (self.chunked | ~self.next_panel)), new.eq(at + by)]
        with m.If(self.to_base):
            m.d.comb += at.eq(self.base)
        with m.Elif(self.to_group | (self.next_group & self.chunked)):
            m.d.comb += at.eq(group)
        with m.Elif(self.next_group | ~along):
            m.d.comb += at.eq(panel)
        with m.Else():
            m.d.comb += at.eq(self.address)
        with m.If((self.next_group & self.chunked) | (self.next_panel & ~self.chunked)):
            m.d.comb += by.eq(self.panel_step)
        with m.Elif(along):
            m.d.comb += by.eq(self.k_step)
        with m.If(self.to_base | self.next_group):
            m.d.sync += group.eq(new)
        with m.If(self.to_base | self.to_group | self.next_group | (self.next_panel & ~self.chunked)):
            m.d.sync += panel.eq(new)
        with m.If(self.to_base | self.to_group | self.next_group | self.next_panel | self.next_tile):
            m.d.sync += self.address.eq(new)
        return m


class TileRequest(data.Struct):
    """A tile to fetch: which operand, where it is, and the bank address of its first word."""

    side: 1  # 0: A, 1: W
    codes: 32
    runs: 32
    bank: 16


class TileWalker(wiring.Component):
    """Lists the tiles to load in the order of their first use, as halves of the buffers become free.

    Latency: the first tile is on offer 3 cycles after ``start``, a step's first tile 2 cycles after the half it waited for was released.
    Throughput: a tile a cycle, and a cycle more a step.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    job : In(GemmJob)
    a, w : In(OperandJob)
        All three constant from ``start`` on.
    start : In(1)
        Once after each reset.
    a_released, w_released : In(1)
        A half of that buffer is free again.
    o : Out(stream of TileRequest)
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        super().__init__(
            {
                "job": In(GemmJob),
                "a": In(OperandJob),
                "w": In(OperandJob),
                "start": In(1),
                "a_released": In(1),
                "w_released": In(1),
                "o": Out(stream.Signature(TileRequest)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, job = self.config, self.job
        m.submodules.walker = walker = StepWalker(config)
        step = walker.o.payload
        m.d.comb += [walker.job.eq(job), walker.start.eq(self.start)]
        half = config.bank_words // 2
        tile_words = Signal(8)
        m.d.comb += tile_words.eq(Mux(job.eight_bit, 2, 1) * (config.tile // config.block))

        begin, panel, advance, end_of_panel = (Signal(name=n) for n in ("begin", "panel", "advance", "end_of_panel"))
        side = Signal()
        index = Signal(8)
        tile = Signal(16)
        halves_free, half_of, bank = [], [], []
        pointers = []
        for number, (name, operand, parts) in enumerate(
            (("a", self.a, config.tile // config.rows), ("w", self.w, config.tile // config.output_cols))
        ):
            free, which, first = (
                Signal(2, init=2, name=f"{name}_free"),
                Signal(name=f"{name}_half"),
                Signal(16, name=f"{name}_bank"),
            )
            uses = Const(1) if name == "a" else step.new_w
            released = getattr(self, f"{name}_released")
            m.d.sync += free.eq(free - (begin & uses) + released)
            fresh = step.first_part & (step.sub == 0) & (step.a_first == 0)
            pointer_pair = []
            for region in ("codes", "runs"):
                p = TilePointer()
                m.submodules[f"{name}_{region}"] = p
                if name == "a":
                    to_base, next_group = fresh, step.first_part & (step.sub == 0) & (step.a_first != 0)
                else:
                    to_base, next_group = fresh & (step.w_first == 0), fresh & (step.w_first != 0)
                m.d.comb += [
                    p.base.eq(getattr(operand, region)),
                    p.k_step.eq(getattr(operand, f"{region}_k_step")),
                    p.panel_step.eq(getattr(operand, f"{region}_panel_step")),
                    p.chunked.eq(job.chunked),
                    p.to_base.eq(begin & uses & to_base),
                    p.next_group.eq(begin & uses & next_group),
                    p.to_group.eq(begin & uses & step.first_part & ~to_base & ~next_group),
                    p.next_tile.eq(advance & (side == number)),
                    p.next_panel.eq(advance & end_of_panel & (side == number)),
                ]
                pointer_pair.append(p)
            # The panel's place in its half, then the tile's place in the panel.
            panel_start = Signal(16, name=f"{name}_panel_start")
            panel_words = Signal(16, name=f"{name}_panel_words")
            m.d.comb += panel_words.eq(((job.chunk_tiles * (config.tile // config.block)) << job.eight_bit) * parts)
            with m.If(begin & uses):
                m.d.sync += [which.eq(~which), panel_start.eq(Mux(which, half, 0)), first.eq(Mux(which, half, 0))]
            with m.Elif(advance & (side == number)):
                m.d.sync += first.eq(first + tile_words)
                with m.If(end_of_panel):
                    m.d.sync += [panel_start.eq(panel_start + panel_words), first.eq(panel_start + panel_words)]
            halves_free.append(free)
            half_of.append(which)
            bank.append(first)
            pointers.append(pointer_pair)

        w_count = Mux(step.new_w, step.w_count, 0)
        last_panel = Signal()
        has_w = Signal()
        m.d.comb += [
            self.o.payload.side.eq(side),
            self.o.payload.codes.eq(Mux(side, pointers[1][0].address, pointers[0][0].address)),
            self.o.payload.runs.eq(Mux(side, pointers[1][1].address, pointers[0][1].address)),
            self.o.payload.bank.eq(Mux(side, bank[1], bank[0])),
            end_of_panel.eq(tile == step.tiles - 1),
            advance.eq(self.o.valid & self.o.ready),
            panel.eq(advance & end_of_panel),
            has_w.eq(index < w_count),
            last_panel.eq(Mux(side, (index + 1 >= step.a_count) & (index + 1 >= w_count), (index + 1 >= step.a_count) & ~has_w)),
        ]
        with m.FSM():
            with m.State("STEP"):
                can_begin = walker.o.valid & (halves_free[0] != 0) & (~step.new_w | (halves_free[1] != 0))
                m.d.comb += begin.eq(can_begin)
                m.d.sync += [index.eq(0), tile.eq(0), side.eq(0)]
                with m.If(can_begin):
                    m.next = "TILES"
            with m.State("TILES"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(advance):
                    m.d.sync += tile.eq(tile + 1)
                with m.If(panel):
                    m.d.sync += tile.eq(0)
                    # A and W panels alternate while both last.
                    with m.If(~side & has_w):
                        m.d.sync += side.eq(1)
                    with m.Else():
                        m.d.sync += [index.eq(index + 1), side.eq(index + 1 >= step.a_count)]
                    with m.If(last_panel):
                        m.d.comb += walker.o.ready.eq(1)
                        m.next = "STEP"
        return m


_INFO = data.StructLayout({"codes": 1, "side": 1, "bank": 16})
"""What is on its way: codes or a segment, whose, and where codes go."""


class Loader(wiring.Component):
    """Runs ahead of the sequencer: fetches each tile's run-length segment and codes, and writes flagged codes into the buffers,
    residuals clipped (`ResidualClip`).

    A tile's segment is requested before the codes of the tile ahead of it, so that its flags are ready when its codes
    arrive.

    Latency: the first read command 3 cycles after ``start``; a beat of codes is written in the cycle in which it is taken, and a tile
    reported in that of its last write. Beats of a transposed 8-bit block are taken as by `Transposer`.
    Throughput: a beat a cycle from the read DMA as long as the decoder keeps up (`Decoder`) and halves are free; of transposed 8-bit codes
    two beats in three cycles.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    job : In(GemmJob)
    a, w : In(OperandJob)
        All three constant from ``start`` on.
    start : In(1)
        Once after each reset.
    a_format, w_format : In(OperandFormat)
        Constant from ``start`` on.
    a_released, w_released : In(1)
        A half of that buffer is free again.
    a_loaded, w_loaded : Out(1)
        A tile is complete in the buffer; one cycle.
    read_command : Out(stream of `command_layout`)
    read_data : In(stream of bus_bits)
        To and from the read DMA.
    write_a, write_w : Out(1)
        Write to that buffer.
    write_group : Out(group of banks)
    write_address : Out(⌈log2 bank_words⌉)
    write_data : Out(block * 5 * block)
        As `OperandBuffer` takes them.
    malformed : Out(1)
        Sticky: a segment was malformed; nothing is written after that.
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        groups = max(config.rows, config.output_cols) // config.block
        super().__init__(
            {
                "job": In(GemmJob),
                "a": In(OperandJob),
                "w": In(OperandJob),
                "start": In(1),
                "a_format": In(OperandFormat),
                "w_format": In(OperandFormat),
                "a_released": In(1),
                "w_released": In(1),
                "a_loaded": Out(1),
                "w_loaded": Out(1),
                "read_command": Out(stream.Signature(command_layout())),
                "read_data": In(stream.Signature(config.bus_bits)),
                "write_a": Out(1),
                "write_w": Out(1),
                "write_group": Out(max(1, (groups - 1).bit_length())),
                "write_address": Out((config.bank_words - 1).bit_length()),
                "write_data": Out(config.block * word_bits(config.block)),
                "malformed": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.walker = walker = TileWalker(config)
        m.submodules.pending = pending = SyncFIFOBuffered(width=_INFO.size, depth=16)
        # The sides of the segments on their way: a segment is announced to the decoder while the codes before it still pass.
        m.submodules.segments = segments = SyncFIFOBuffered(width=1, depth=16)
        m.d.comb += [
            walker.job.eq(self.job),
            walker.a.eq(self.a),
            walker.w.eq(self.w),
            walker.start.eq(self.start),
            walker.a_released.eq(self.a_released),
            walker.w_released.eq(self.w_released),
        ]
        self._request(m, walker, pending, segments)
        self._receive(m, pending, segments)
        return m

    def _request(self, m: Module, walker: TileWalker, pending: SyncFIFOBuffered, segments: SyncFIFOBuffered) -> None:
        config = self.config
        command = self.read_command
        tile = walker.o.payload
        held = Signal(TileRequest)
        coming = Signal(TileRequest)
        holds = Signal()
        info = Signal(_INFO)
        send_runs = Signal()
        send_codes = Signal()
        sent = Signal()
        tile_beats = Signal(16)
        m.d.comb += [
            tile_beats.eq(Mux(self.job.eight_bit, config.tile_beats(8), config.tile_beats(4))),
            command.valid.eq((send_runs | send_codes) & pending.w_rdy),
            sent.eq(command.valid & command.ready),
            pending.w_en.eq(sent),
            pending.w_data.eq(info),
            segments.w_en.eq(sent & ~info.codes),
            segments.w_data.eq(info.side),
        ]
        with m.If(send_codes):
            m.d.comb += [
                command.payload.address.eq(held.codes),
                command.payload.beats.eq(tile_beats),
                info.codes.eq(1),
                info.side.eq(held.side),
                info.bank.eq(held.bank),
            ]
        with m.Else():
            m.d.comb += [
                command.payload.address.eq(tile.runs),
                info.side.eq(tile.side),
                command.payload.beats.eq(Mux(tile.side, self.w.run_beats, self.a.run_beats)),
            ]
        with m.FSM():
            with m.State("RUNS"):
                m.d.comb += [send_runs.eq(walker.o.valid), walker.o.ready.eq(sent)]
                # While codes are asked for, the walker has gone on to its next step, unless that waits for a half or there is none.
                with m.If(~walker.o.valid & holds):
                    m.next = "LAST_CODES"
                with m.If(sent):
                    with m.If(holds):
                        m.d.sync += coming.eq(tile)
                        m.next = "CODES"
                    with m.Else():
                        m.d.sync += [held.eq(tile), holds.eq(1)]
            with m.State("CODES"):
                m.d.comb += send_codes.eq(1)
                with m.If(sent):
                    m.d.sync += held.eq(coming)
                    m.next = "RUNS"
            with m.State("LAST_CODES"):
                m.d.comb += send_codes.eq(1)
                with m.If(sent):
                    m.d.sync += holds.eq(0)
                    m.next = "RUNS"

    def _receive(self, m: Module, pending: SyncFIFOBuffered, segments: SyncFIFOBuffered) -> None:
        config = self.config
        m.submodules.decoder = decoder = Decoder.of(config)
        m.submodules.clip = clip = ResidualClip(config.block)
        m.submodules.transposer = transposer = Transposer(config.block)
        info = Signal(_INFO)
        operand_transposed = Signal()
        run_beats = Signal(16)
        tile_beats = Signal(16)
        taken = Signal(16)
        written = Signal(16)
        done = Signal()
        m.d.comb += [
            info.eq(pending.r_data),
            pending.r_en.eq(done),
            operand_transposed.eq(Mux(info.side, self.w.transposed, self.a.transposed)),
            run_beats.eq(Mux(info.side, self.w.run_beats, self.a.run_beats)),
            tile_beats.eq(Mux(self.job.eight_bit, config.tile_beats(8), config.tile_beats(4))),
            transposer.eight_bit.eq(self.job.eight_bit),
            transposer.transposed.eq(operand_transposed),
            decoder.eight_bit.eq(self.job.eight_bit),
            self.malformed.eq(decoder.malformed),
            decoder.start.payload.run_beats.eq(Mux(segments.r_data[0], self.w.run_beats, self.a.run_beats)),
            decoder.start.payload.words.eq(tile_beats),
            decoder.start.valid.eq(segments.r_rdy),
            segments.r_en.eq(decoder.start.ready),
            decoder.runs.payload.eq(self.read_data.payload),
            clip.eight_bit.eq(self.job.eight_bit),
            clip.format.eq(Mux(info.side, self.w_format, self.a_format)),
            clip.i.codes.eq(self.read_data.payload),
            clip.i.flags.eq(decoder.flags.payload),
            transposer.i.payload.eq(clip.o),
        ]
        active = Signal()
        m.d.comb += active.eq(pending.r_rdy & ~decoder.malformed)
        with m.If(active & ~info.codes):
            m.d.comb += [
                decoder.runs.valid.eq(self.read_data.valid),
                self.read_data.ready.eq(decoder.runs.ready),
                done.eq(decoder.runs.valid & decoder.runs.ready & (taken == run_beats - 1)),
            ]
            with m.If(decoder.runs.valid & decoder.runs.ready):
                m.d.sync += taken.eq(taken + 1)
        with m.Elif(active):
            feeding = Signal()
            m.d.comb += [
                feeding.eq(taken != tile_beats),
                transposer.i.valid.eq(feeding & self.read_data.valid & decoder.flags.valid),
                self.read_data.ready.eq(feeding & transposer.i.ready & decoder.flags.valid),
                decoder.flags.ready.eq(feeding & transposer.i.ready & self.read_data.valid),
                transposer.o.ready.eq(1),
                done.eq(transposer.o.valid & (written == tile_beats - 1)),
            ]
            with m.If(transposer.i.valid & transposer.i.ready):
                m.d.sync += taken.eq(taken + 1)
            with m.If(transposer.o.valid):
                m.d.sync += written.eq(written + 1)
        with m.If(done):
            m.d.sync += [taken.eq(0), written.eq(0)]
        m.d.comb += [self.a_loaded.eq(done & info.codes & ~info.side), self.w_loaded.eq(done & info.codes & info.side)]
        self._place(m, info, written, transposer.o.valid, operand_transposed)
        m.d.comb += self.write_data.eq(transposer.o.payload)

    def _place(self, m: Module, info: data.View, written: Signal, valid: Signal, transposed: Signal) -> None:
        """Bank group and address of the beat that leaves the transposer; beats come block row by block row."""
        config = self.config
        edge = (config.tile // config.block - 1).bit_length()
        half_word = Signal()
        block = Signal(2 * edge)
        m.d.comb += [half_word.eq(written[0] & self.job.eight_bit), block.eq(Mux(self.job.eight_bit, written >> 1, written))]
        block_row, block_col = block[edge:], block[:edge]
        along_array = Signal(max(1, edge))
        along_k = Signal(max(1, edge))
        m.d.comb += [along_array.eq(Mux(transposed, block_col, block_row)), along_k.eq(Mux(transposed, block_row, block_col))]
        sub_words = Signal(16)
        m.d.comb += sub_words.eq((self.job.chunk_tiles * (config.tile // config.block)) << self.job.eight_bit)

        def split(banks: int) -> tuple[object, object]:
            group_bits = (banks // config.block - 1).bit_length()
            return along_array[:group_bits], along_array[group_bits:]

        a_group, a_sub = split(config.rows)
        w_group, w_sub = split(config.output_cols)
        m.d.comb += [
            self.write_a.eq(valid & ~info.side),
            self.write_w.eq(valid & info.side),
            self.write_group.eq(Mux(info.side, Cat(w_group, Const(0, 1)), Cat(a_group, Const(0, 1)))),
            self.write_address.eq(
                info.bank + (Cat(half_word, along_k) >> ~self.job.eight_bit) + Mux(info.side, w_sub, a_sub) * sub_words
            ),
        ]
