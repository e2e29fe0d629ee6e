"""The lane of stores, moves and updates: from NBout and the tagged buffers to memory, to the buffers and to the optimizer."""

from typing import Any

from amaranth import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import choose, command_layout, connect, share, write_layout
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
from nibblecore.hdl.cambriconq.program.job import InstructionFields, elements_layout, place_fields
from nibblecore.hdl.cambriconq.quantize.quantize_unit import QuantizeUnit, line_layout
from nibblecore.hdl.cambriconq.update.bus_updater import BusUpdater
from nibblecore.hdl.cambriconq.update.dram_port import DramPort
from nibblecore.hdl.cambriconq.update.weight_updater import WeightUpdater
from nibblecore.hdl.config import CambriconqConfig

from .controller import Constants
from .load_unit import buffer_line

__all__ = ["StoreUnit"]

_VECTORS, _WORDS, _UPDATES = range(3)
"""What an instruction sends to memory, where it sends anything there."""


class StoreUnit(wiring.Component):
    """Carries out SSTORE, VSTORE, QSTORE, QMOVE, VTURN and WGSTORE::

        NBout ─ Gather ─┬─ MemoryScatter ─ memory
                        ├─ WeightUpdater ─ banks, or BusUpdater ─ memory
                        └─ QuantizeUnit ─┬─ VectorStorer ─ memory
        NBin, SB ─┬─ VectorReader ───────┘
                  │                  QMOVE ─┬─ NBin, SB
                  └─ VectorTurner ──────────┘

    WGSTORE belongs here and not in a lane of its own because it takes the gradient out of NBout, and over the bus writes to memory, by the
    same way as the others, which could not go on beside it.

    An instruction that fails has moved nothing, but for WGSTORE, which has updated the rows before the one that was refused, and for what the
    bus refuses, which has been done as far as the bus let it.

    Latency: NBout's first row, or a buffer's first line, is asked for the cycle after ``start``. A row that is granted at once gives its
    first word two cycles later; lines leave only after all have been looked at (`VectorReader`, `VectorTurner`). ``done`` comes the cycle
    after the last line was taken by a buffer, for VTURN once that is clean, when memory has answered every write, and with that of the
    updater.
    Throughput: a word a cycle while NBout's banks are free; quantized, `QuantizeUnit`'s. Where rows are of neighbours and begin
    with a group of as many words as a beat has, and in memory with a beat, such a group counts as a word; not for gradients, which
    the optimizer takes one by one. VSTORE: `VectorReader`'s and `VectorStorer`'s; VTURN: `VectorTurner`'s; WGSTORE: the updater's.

    Parameters
    ----------
    config : CambriconqConfig

    Members
    -------
    instruction : In(512)
        Checked; constant from ``start`` until ``done``.
    start : In(1)
        One cycle, not from one start until its ``done``.
    done : Out(1)
        One cycle.
    code : Out(4)
        With ``done``, an `ErrorCode`: 0, NO_TAG, BUS_WRITE, without an engine BUS_READ, with one what `WeightUpdater` reports.
    constants : In(Constants)
        All but ``memory_squ``; constant from ``start`` until ``done``.
    clear_flags : In(1)
    nan_seen, infinity_seen : Out(1)
        What the SQU met; sticky until ``clear_flags``.
    write_command : Out(stream of `command_layout`)
    write_data : Out(stream of `write_layout`)
        To an `AxiWriter`.
    write_error, writer_idle : In(1)
        Of that writer, the error sticky.
    dram : Out(DramPort)
        Of the engine beside the memory, if the configuration has one.
    update_command : Out(stream of `command_layout`), if there is no engine
    update_data : In(stream of 8·bus_bytes bits), if there is no engine
        To and from the bus updater's own `AxiReader`.
    update_error : In(1), if there is no engine
        Sticky, of that reader.
    nbout_read : Out(stream of rows of NBout)
    nbout_read_data : In(32 * NBout's lanes)
        As of `Gather`.
    read_side : Out(1)
        Of which buffer ``port`` is.
    port : In(`line_read`)
        Answered in the next cycle; no read may be refused.
    line : Out(stream of `buffer_line`)
        To the `Qbc` of its side.
    element : Out(stream of `element_layout`)
        To the `Qbc` of ``side``.
    side : Out(1)
    flush : Out(1)
    clean : In(1)
        To and from the `Qbc` of ``side``.
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
                "constants": In(Constants),
                "clear_flags": In(1),
                "nan_seen": Out(1),
                "infinity_seen": Out(1),
                "write_command": Out(stream.Signature(command_layout())),
                "write_data": Out(stream.Signature(write_layout(config.bus_bytes))),
                "write_error": In(1),
                "writer_idle": In(1),
                **(
                    {"dram": Out(DramPort(config.dram))}
                    if config.dram
                    else {
                        "update_command": Out(stream.Signature(command_layout())),
                        "update_data": In(stream.Signature(8 * config.bus_bytes)),
                        "update_error": In(1),
                    }
                ),
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
        self._updater = WeightUpdater(config.dram) if config.dram else BusUpdater(config.bus_bytes)
        self._route = Signal(range(3))
        self._refused = Signal()
        self._is = {opcode: Signal(name=f"is_{opcode.name.lower()}") for opcode in _OPCODES}
        self._fields = {opcode: InstructionFields(self.instruction, opcode) for opcode in _OPCODES}

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name in ("scatter", "quantizer", "reader", "turner", "storer", "updater"):
            m.submodules[name] = getattr(self, f"_{name}")
        m.submodules.gather = ResetInserter(self._refused)(self._gather)
        for opcode, signal in self._is.items():
            m.d.comb += signal.eq(self.instruction[:8] == int(opcode))
        m.d.comb += self._route.eq(Mux(self._is[Opcode.WGSTORE], _UPDATES, Mux(self._is[Opcode.SSTORE], _WORDS, _VECTORS)))
        self._update(m, self._words(m))
        moved = self._lines_to(m)
        self._buffers(m)
        self._memory(m)
        absent = (self._reader.done & self._reader.no_tag) | (self._turner.done & self._turner.no_tag)
        m.d.comb += self.done.eq(absent | moved | self._turner.done | self._scatter.done | self._storer.done | self._updater.done)
        with m.If(absent):
            m.d.comb += self.code.eq(ErrorCode.NO_TAG)
        if isinstance(self._updater, WeightUpdater):
            with m.If(self._refused):
                m.d.comb += self.code.eq(self._updater.code)
        with m.If(self.write_error):
            m.d.comb += self.code.eq(ErrorCode.BUS_WRITE)
        if not self.config.dram:
            with m.If(self.update_error):
                m.d.comb += self.code.eq(ErrorCode.BUS_READ)
        return m

    def _any(self, *opcodes: Opcode) -> Value:
        return Cat(self._is[opcode] for opcode in opcodes).any()

    def _words(self, m: Module) -> Any:
        """Words of NBout to memory and to the quantizer; returns a stream of those for the updater."""
        f, gather, scatter, quantizer = self._fields, self._gather, self._scatter, self._quantizer
        from_groups = Signal()
        to_groups = Signal()
        wide = Signal()
        gradients = stream.Signature(elements_layout(self.config.beat_words)).create(path=("gradients",))
        connect(m, gather.read, self.nbout_read)
        share(m, self._route, gather.o, [quantizer.i, scatter.i, gradients])
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
            quantizer.settings.eq(self.constants.core_squ),
            quantizer.slot.eq(f[Opcode.QMOVE]["slot"]),
            quantizer.clear.eq(self.clear_flags),
            self.nan_seen.eq(quantizer.nan_seen),
            self.infinity_seen.eq(quantizer.infinity_seen),
        ]
        return gradients

    def _update(self, m: Module, gradients: Any) -> None:
        """WGSTORE, by the engine beside the memory or over the bus."""
        updater, f = self._updater, self._fields[Opcode.WGSTORE]
        m.d.comb += [
            updater.start.eq(self.start & self._is[Opcode.WGSTORE]),
            updater.shape.rows.eq(f["rows"]),
            updater.shape.cols.eq(f["cols"]),
            *(getattr(updater, name).eq(f[name]) for name in ("w", "m", "v", "mem_row")),
            *(getattr(updater, name).eq(self.constants[name]) for name in ("optimizer", "use_m", "use_rsqrt")),
            updater.i.payload.eq(gradients.payload.words[:32]),
            updater.i.valid.eq(gradients.valid),
            gradients.ready.eq(updater.i.ready),
        ]
        if isinstance(updater, WeightUpdater):
            wiring.connect(m, wiring.flipped(self.dram), updater.dram)
            m.d.comb += self._refused.eq(updater.done & (updater.code != ErrorCode.NONE))
        else:
            connect(m, updater.read_command, self.update_command)
            connect(m, self.update_data, updater.read_data)
            m.d.comb += updater.writer_idle.eq(self.writer_idle)

    def _lines_to(self, m: Module) -> Signal:
        """Lines of the quantizer and of a buffer to a buffer and to memory; returns whether the last one has reached a buffer."""
        f, quantizer, reader, storer, turner = self._fields, self._quantizer, self._reader, self._storer, self._turner
        vstore, qstore, qmove = f[Opcode.VSTORE], f[Opcode.QSTORE], f[Opcode.QMOVE]
        lines, moves = (stream.Signature(line_layout(self.config.cols)).create(path=(name,)) for name in ("lines", "moves"))
        stores = self._is[Opcode.VSTORE]
        packed = Signal()
        line = Signal(32)
        moved = Signal()
        choose(m, stores, [quantizer.o, reader.o], lines)
        share(m, packed, lines, [moves, storer.i])
        m.d.comb += [
            packed.eq(self._any(Opcode.QSTORE, Opcode.VSTORE)),
            reader.start.eq(self.start & stores),
            reader.vectors.eq(vstore["vectors"]),
            reader.slot.eq(vstore["slot"]),
            reader.at.eq(vstore["src"]),
            storer.start.eq(self.start & packed),
            storer.slot.eq(vstore["slot"]),
            storer.at.eq(Mux(stores, vstore["dest"], qstore["dest"])),
            storer.tags.eq(Mux(stores, vstore["dest_tags"], qstore["dest_tags"])),
            storer.writer_idle.eq(self.writer_idle),
            moves.ready.eq(self.line.ready),
            self.line.payload.side.eq(self.side),
            self.line.payload.line.eq(line),
            self.line.payload.tag.eq(moves.payload.tag),
            self.line.payload.data.eq(moves.payload.line),
            self.line.valid.eq(moves.valid),
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
        with m.Elif(moves.valid & moves.ready):
            m.d.sync += line.eq(line + 1)
        m.d.sync += moved.eq(moves.valid & moves.ready & moves.payload.last)
        return moved

    def _buffers(self, m: Module) -> None:
        """VSTORE and VTURN read a buffer, QMOVE and VTURN write one."""
        turner, reader, f = self._turner, self._reader, self._fields[Opcode.VTURN]
        turns = self._is[Opcode.VTURN]
        connect(m, turner.element, self.element)
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
        """Vectors, words and updates share the DMA; only one kind is at work."""
        scatter, storer, updater = self._scatter, self._storer, self._updater
        commands, beats = [storer.command, scatter.command], [storer.data, scatter.data]
        if isinstance(updater, BusUpdater):
            commands.append(updater.write_command)
            beats.append(updater.write_data)
        choose(m, self._route, commands, self.write_command)
        choose(m, self._route, beats, self.write_data)
        m.d.comb += scatter.writer_idle.eq(self.writer_idle)


_OPCODES = (Opcode.SSTORE, Opcode.VSTORE, Opcode.QSTORE, Opcode.QMOVE, Opcode.VTURN, Opcode.WGSTORE)
