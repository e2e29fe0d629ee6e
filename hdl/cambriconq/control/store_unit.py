"""The lane of stores and moves: from NBout and the tagged buffers to memory, to the buffers and to the optimizer."""

from amaranth import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout
from nibblecore.hdl.cambriconq.buffers.nbout import row_bits
from nibblecore.hdl.cambriconq.buffers.qbc import element_layout, line_read
from nibblecore.hdl.cambriconq.movers.gather import Gather
from nibblecore.hdl.cambriconq.movers.memory_commands import WORD_BYTES
from nibblecore.hdl.cambriconq.movers.memory_scatter import MemoryScatter
from nibblecore.hdl.cambriconq.movers.vector_reader import VectorReader
from nibblecore.hdl.cambriconq.movers.vector_storer import VectorStorer
from nibblecore.hdl.cambriconq.movers.vector_turner import VectorTurner
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, Opcode
from nibblecore.hdl.cambriconq.program.job import InstructionFields, place_fields
from nibblecore.hdl.cambriconq.quantize.quantize_unit import QuantizeUnit, line_layout
from nibblecore.hdl.cambriconq.quantize.squ_setup import SquSettings
from nibblecore.hdl.config import CambriconqConfig

from .load_unit import buffer_line

__all__ = ["StoreUnit"]


class StoreUnit(wiring.Component):
    """Carries out SSTORE, VSTORE, QSTORE, QMOVE and VTURN, and gathers the gradient of WGSTORE::

        NBout ─ Gather ─┬─ MemoryScatter ─ memory
                        ├─ weight updater
                        └─ QuantizeUnit ─┬─ VectorStorer ─ memory
        NBin, SB ─┬─ VectorReader ───────┘
                  │                  QMOVE ─┬─ NBin, SB
                  └─ VectorTurner ──────────┘

    An instruction that fails has moved nothing.

    Latency: NBout's first row, or a buffer's first line, is asked for the cycle after `start`. A row that is granted at once gives its first
    word two cycles later; lines leave only after all have been looked at (`VectorReader`, `VectorTurner`). `done` comes the cycle after
    the last line was taken by a buffer, for VTURN once that is clean, and when memory has answered every write.
    Throughput: a word a cycle while NBout's read port is free; quantized, `QuantizeUnit`'s. Where rows are of neighbours and begin
    with a group of as many words as a beat has, and in memory with a beat, such a group counts as a word; not for gradients, which
    the optimizer takes one by one. VSTORE: `VectorReader`'s and `VectorStorer`'s; VTURN: `VectorTurner`'s.

    Parameters
    ----------
    config : CambriconqConfig

    Members
    -------
    instruction : In, 512 bits
        Checked; constant from `start` until the unit has ended.
    start : In
        One cycle, not until the instruction before has ended.
    done : Out
        One cycle; never for WGSTORE, of which the updater says when it is done.
    code : Out
        With `done`: 0 or NO_TAG.
    abandon : In
        With WGSTORE: the updater takes no more gradients.
    squ : In, `SquSettings`
        Constant while the unit works.
    clear_flags : In; nan_seen, infinity_seen : Out
    gradients : Out stream of 32 bits
    write_command, write_data : streams to the DMA
    writer_idle : In
    nbout_read : Out stream of rows; nbout_read_data : In
        As of `Gather`.
    read_side : Out; port : to the buffer of that side
    line : Out stream of `buffer_line`
    element : Out stream of `element_layout`
        To the Qbc of the side that is `line`'s.
    side : Out
        It.
    flush : Out, clean : In
        Of that Qbc.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        self._lines = max(config.nbin_lines, config.sb_lines)
        lanes = config.nbout_lanes
        super().__init__(
            {
                "instruction": In(8 * INSTRUCTION_BYTES),
                "start": In(1),
                "done": Out(1),
                "code": Out(4),
                "abandon": In(1),
                "squ": In(SquSettings),
                "clear_flags": In(1),
                "nan_seen": Out(1),
                "infinity_seen": Out(1),
                "gradients": Out(stream.Signature(32)),
                "write_command": Out(stream.Signature(command_layout())),
                "write_data": Out(stream.Signature(data.StructLayout({"data": 8 * config.bus_bytes, "strobe": config.bus_bytes}))),
                "writer_idle": In(1),
                "nbout_read": Out(stream.Signature(row_bits(config.nbout_words, lanes))),
                "nbout_read_data": In(32 * lanes),
                "read_side": Out(1),
                "port": In(line_read(config.cols, (self._lines - 1).bit_length())),
                "line": Out(stream.Signature(buffer_line(config))),
                "element": Out(stream.Signature(element_layout(self._lines, config.cols))),
                "side": Out(1),
                "flush": Out(1),
                "clean": In(1),
            }
        )

        self._gather = Gather(lanes, (config.nbout_words - 1).bit_length(), config.beat_words)
        self._scatter = MemoryScatter(config.bus_bytes)
        self._quantizer = QuantizeUnit(config.cols, config.beat_words)
        self._reader = VectorReader(config.cols, self._lines)
        self._turner = VectorTurner(config.cols, self._lines)
        self._storer = VectorStorer(config.cols)
        self._is = {opcode: Signal(name=f"is_{opcode.name.lower()}") for opcode in _OPCODES}
        self._fields = {opcode: InstructionFields(self.instruction, opcode) for opcode in _OPCODES}

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name in ("scatter", "quantizer", "reader", "turner", "storer"):
            m.submodules[name] = getattr(self, f"_{name}")
        m.submodules.gather = ResetInserter(self.abandon)(self._gather)
        for opcode, signal in self._is.items():
            m.d.comb += signal.eq(self.instruction[:8] == int(opcode))
        self._words(m)
        moved = self._lines_to(m)
        self._buffers(m)
        self._memory(m)
        absent = (self._reader.done & self._reader.no_tag) | (self._turner.done & self._turner.no_tag)
        m.d.comb += [
            self.done.eq(absent | moved | self._turner.done | self._scatter.done | self._storer.done),
            self.code.eq(Mux(absent, ErrorCode.NO_TAG, ErrorCode.NONE)),
        ]
        return m

    def _any(self, *opcodes: Opcode) -> Value:
        return Cat(self._is[opcode] for opcode in opcodes).any()

    def _words(self, m: Module) -> None:
        """Words of NBout to memory, to the updater and to the quantizer."""
        f, gather, scatter, quantizer = self._fields, self._gather, self._scatter, self._quantizer
        words, from_groups, to_groups, wide = gather.o, Signal(), Signal(), Signal()
        m.d.comb += [
            from_groups.eq(gather.place.wide(gather.shape, self.config.beat_words, 1)),
            to_groups.eq(scatter.place.wide(scatter.shape, self.config.beat_words, WORD_BYTES)),
            wide.eq(from_groups & Mux(self._is[Opcode.SSTORE], to_groups, ~self._is[Opcode.WGSTORE])),
            gather.wide.eq(wide),
            scatter.wide.eq(wide),
            quantizer.wide.eq(wide),
            gather.start.eq(self.start & self._any(Opcode.SSTORE, Opcode.QSTORE, Opcode.QMOVE, Opcode.WGSTORE)),
            scatter.start.eq(self.start & self._is[Opcode.SSTORE]),
            *place_fields(gather.place, f[Opcode.QMOVE], "src"),
            *place_fields(scatter.place, f[Opcode.SSTORE], "dest"),
            scatter.place.col.eq(WORD_BYTES),
            *(part.shape[name].eq(f[Opcode.SSTORE][name]) for part in (gather, scatter) for name in ("rows", "cols")),
            gather.read_data.eq(self.nbout_read_data),
            self.nbout_read.payload.eq(gather.read.payload),
            self.nbout_read.valid.eq(gather.read.valid),
            gather.read.ready.eq(self.nbout_read.ready),
            scatter.i.payload.eq(words.payload),
            scatter.i.valid.eq(words.valid & self._is[Opcode.SSTORE]),
            self.gradients.payload.eq(words.payload.words[:32]),
            self.gradients.valid.eq(words.valid & self._is[Opcode.WGSTORE]),
            quantizer.i.payload.eq(words.payload),
            quantizer.i.valid.eq(words.valid & self._any(Opcode.QSTORE, Opcode.QMOVE)),
            words.ready.eq(
                Mux(
                    self._is[Opcode.SSTORE], scatter.i.ready, Mux(self._is[Opcode.WGSTORE], self.gradients.ready, quantizer.i.ready)
                )
            ),
            quantizer.settings.eq(self.squ),
            quantizer.slot.eq(f[Opcode.QMOVE]["slot"]),
            quantizer.clear.eq(self.clear_flags),
            self.nan_seen.eq(quantizer.nan_seen),
            self.infinity_seen.eq(quantizer.infinity_seen),
        ]

    def _lines_to(self, m: Module) -> Signal:
        """Lines of the quantizer and of a buffer to a buffer and to memory; returns whether the last one has reached a buffer."""
        f, quantizer, reader, storer, turner = self._fields, self._quantizer, self._reader, self._storer, self._turner
        vstore, qstore, qmove = f[Opcode.VSTORE], f[Opcode.QSTORE], f[Opcode.QMOVE]
        lines, line, moves, moved = stream.Signature(line_layout(self.config.cols)).create(), Signal(32), Signal(), Signal()
        stores, packed = self._is[Opcode.VSTORE], self._any(Opcode.QSTORE, Opcode.VSTORE)
        m.d.comb += [
            reader.start.eq(self.start & stores),
            reader.vectors.eq(vstore["vectors"]),
            reader.slot.eq(vstore["slot"]),
            reader.at.eq(vstore["src"]),
            lines.payload.eq(Mux(stores, reader.o.payload, quantizer.o.payload)),
            lines.valid.eq(Mux(stores, reader.o.valid, quantizer.o.valid)),
            reader.o.ready.eq(stores & lines.ready),
            quantizer.o.ready.eq(~stores & lines.ready),
            storer.start.eq(self.start & packed),
            storer.slot.eq(vstore["slot"]),
            storer.at.eq(Mux(stores, vstore["dest"], qstore["dest"])),
            storer.tags.eq(Mux(stores, vstore["dest_tags"], qstore["dest_tags"])),
            storer.i.payload.eq(lines.payload),
            storer.i.valid.eq(lines.valid & packed),
            storer.writer_idle.eq(self.writer_idle),
            lines.ready.eq(Mux(packed, storer.i.ready, self.line.ready)),
            moves.eq(self._is[Opcode.QMOVE] & lines.valid),
            self.line.payload.side.eq(self.side),
            self.line.payload.line.eq(line),
            self.line.payload.tag.eq(lines.payload.tag),
            self.line.payload.data.eq(lines.payload.line),
            self.line.valid.eq(moves),
            turner.line.ready.eq(self.line.ready),
        ]
        with m.If(self._is[Opcode.VTURN]):
            m.d.comb += [
                self.line.payload.line.eq(turner.line.payload.line),
                self.line.payload.tag.eq(turner.line.payload.tag),
                self.line.payload.data.eq(turner.line.payload.data),
                self.line.valid.eq(turner.line.valid),
            ]
        with m.If(self.start):
            m.d.sync += line.eq(qmove["dest"])
        with m.Elif(moves & self.line.ready):
            m.d.sync += line.eq(line + 1)
        m.d.sync += moved.eq(moves & self.line.ready & lines.payload.last)
        return moved

    def _buffers(self, m: Module) -> None:
        """VSTORE and VTURN read a buffer, QMOVE and VTURN write one."""
        turner, reader, f = self._turner, self._reader, self._fields[Opcode.VTURN]
        turns = self._is[Opcode.VTURN]
        wiring.connect(m, turner.element, wiring.flipped(self.element))
        m.d.comb += [
            turner.start.eq(self.start & turns),
            *(getattr(turner, name).eq(f[name]) for name in ("rows", "cols", "slot", "src", "src_row", "dest", "dest_row")),
            self.flush.eq(turner.flush),
            turner.clean.eq(self.clean),
            self.side.eq(f["side"]),
            self.read_side.eq(Mux(turns, f["src_side"], f["side"])),
            self.port.enable.eq(Mux(turns, turner.port.enable, reader.port.enable)),
            self.port.address.eq(Mux(turns, turner.port.address, reader.port.address)),
        ]
        for port in (turner.port, reader.port):
            m.d.comb += [port.line.eq(self.port.line), port.tag.eq(self.port.tag), port.written.eq(self.port.written)]

    def _memory(self, m: Module) -> None:
        """Words and vectors share the DMA; only one kind is at work."""
        scatter, storer, stripes = self._scatter, self._storer, self._is[Opcode.SSTORE]
        for target, words, vectors in (
            (self.write_command, scatter.command, storer.command),
            (self.write_data, scatter.data, storer.data),
        ):
            m.d.comb += [
                target.payload.eq(Mux(stripes, words.payload, vectors.payload)),
                target.valid.eq(Mux(stripes, words.valid, vectors.valid)),
                words.ready.eq(stripes & target.ready),
                vectors.ready.eq(~stripes & target.ready),
            ]
        m.d.comb += scatter.writer_idle.eq(self.writer_idle)


_OPCODES = (Opcode.SSTORE, Opcode.VSTORE, Opcode.QSTORE, Opcode.QMOVE, Opcode.VTURN, Opcode.WGSTORE)
