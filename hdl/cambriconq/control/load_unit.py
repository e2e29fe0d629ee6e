"""The lane of loads: from memory to NBout, NBin and SB, quantized beside the memory or not."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import choose, command_layout, share
from nibblecore.hdl.cambriconq.buffers.nbout import row_bits
from nibblecore.hdl.cambriconq.buffers.tag import Tag
from nibblecore.hdl.cambriconq.movers.memory_commands import WORD_BYTES
from nibblecore.hdl.cambriconq.movers.memory_gather import MemoryGather
from nibblecore.hdl.cambriconq.movers.scatter import Scatter
from nibblecore.hdl.cambriconq.movers.vector_loader import VectorLoader
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, Opcode
from nibblecore.hdl.cambriconq.program.job import InstructionFields, place_fields
from nibblecore.hdl.cambriconq.quantize.quantize_unit import QuantizeUnit, line_layout
from nibblecore.hdl.cambriconq.quantize.squ_setup import SquSettings
from nibblecore.hdl.config import CambriconqConfig

__all__ = ["LoadUnit", "buffer_line"]


def buffer_line(config: CambriconqConfig) -> data.StructLayout:
    """A line to write to NBin or SB."""
    return data.StructLayout({"side": 1, "line": 32, "tag": Tag, "data": 4 * config.cols})


class LoadUnit(wiring.Component):
    """Carries out SLOAD, VLOAD and QLOAD::

        memory ─┬─ MemoryGather ─┬─ Scatter ─ NBout
                │                └─ QuantizeUnit ─┐
                └─ VectorLoader ──────────────────┴─ NBin, SB

    An instruction that fails has moved nothing; what the bus refuses has been done as far as the bus let it.

    Latency: the first command is on offer the cycle after ``start``; ``done`` comes the cycle after the last word or line was taken.
    Throughput: SLOAD a word a cycle while NBout's write port is free, VLOAD slot lines in slot + 1 cycles, QLOAD as `QuantizeUnit`. Where
    rows are of neighbours and begin with a beat, and in NBout with a group of as many words, a beat of words counts as a word.

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
        With ``done``, an `ErrorCode`: 0, BAD_FORMAT where a tag in memory does not fit, or BUS_READ.
    squ : In(SquSettings)
        Constant from ``start`` until ``done``.
    clear_flags : In(1)
    nan_seen, infinity_seen : Out(1)
        What the SQU met; sticky until ``clear_flags``.
    read_command : Out(stream of `command_layout`)
    read_data : In(stream of 8·bus_bytes bits)
        To and from an `AxiReader`.
    read_error : In(1)
        Sticky, of that reader.
    nbout_free : In(1)
        Nobody else writes to NBout in this cycle.
    nbout_write_enable : Out(NBout's lanes)
    nbout_write_row : Out(row of NBout)
    nbout_write_data : Out(32 * NBout's lanes)
        To `Nbout`.
    line : Out(stream of `buffer_line`)
        To the `Qbc` of its side.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        lanes = config.nbout_lanes
        super().__init__(
            {
                "instruction": In(8 * INSTRUCTION_BYTES),
                "start": In(1),
                "done": Out(1),
                "code": Out(4),
                "squ": In(SquSettings),
                "clear_flags": In(1),
                "nan_seen": Out(1),
                "infinity_seen": Out(1),
                "read_command": Out(stream.Signature(command_layout())),
                "read_data": In(stream.Signature(8 * config.bus_bytes)),
                "read_error": In(1),
                "nbout_free": In(1),
                "nbout_write_enable": Out(lanes),
                "nbout_write_row": Out(row_bits(config.nbout_words, lanes)),
                "nbout_write_data": Out(32 * lanes),
                "line": Out(stream.Signature(buffer_line(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.gather = gather = MemoryGather(config.bus_bytes)
        words = config.beat_words
        m.submodules.scatter = scatter = Scatter(config.nbout_lanes, (config.nbout_words - 1).bit_length(), words)
        m.submodules.quantizer = quantizer = QuantizeUnit(config.cols, words)
        m.submodules.loader = loader = VectorLoader(config.cols)
        stripes, vectors, quantizes = (self.instruction[:8] == int(opcode) for opcode in (Opcode.SLOAD, Opcode.VLOAD, Opcode.QLOAD))
        sload, vload, qload = (InstructionFields(self.instruction, opcode) for opcode in (Opcode.SLOAD, Opcode.VLOAD, Opcode.QLOAD))

        from_groups = Signal()
        to_groups = Signal()
        wide = Signal()
        m.d.comb += [
            gather.start.eq(self.start & ~vectors),
            *place_fields(gather.place, qload, "src"),
            scatter.start.eq(self.start & stripes),
            *place_fields(scatter.place, sload, "dest"),
            *(part.shape[name].eq(sload[name]) for part in (gather, scatter) for name in ("rows", "cols")),
            from_groups.eq(gather.place.wide(gather.shape, words, WORD_BYTES)),
            to_groups.eq(scatter.place.wide(scatter.shape, words, 1)),
            wide.eq(from_groups & (to_groups | quantizes)),
            gather.wide.eq(wide),
            scatter.wide.eq(wide),
            quantizer.wide.eq(wide),
            scatter.i.payload.eq(gather.o.payload),
            scatter.i.valid.eq(gather.o.valid & stripes & self.nbout_free),
            quantizer.i.payload.eq(gather.o.payload),
            quantizer.i.valid.eq(gather.o.valid & quantizes),
            gather.o.ready.eq(Mux(stripes, scatter.i.ready & self.nbout_free, quantizer.i.ready)),
            quantizer.settings.eq(self.squ),
            quantizer.slot.eq(qload["slot"]),
            quantizer.clear.eq(self.clear_flags),
            self.nan_seen.eq(quantizer.nan_seen),
            self.infinity_seen.eq(quantizer.infinity_seen),
            loader.start.eq(self.start & vectors),
            loader.vectors.eq(vload["vectors"]),
            loader.slot.eq(vload["slot"]),
            loader.at.eq(vload["src"]),
            loader.tags.eq(vload["src_tags"]),
            self.nbout_write_enable.eq(scatter.write_enable),
            self.nbout_write_row.eq(scatter.write_row),
            self.nbout_write_data.eq(scatter.write_data),
        ]
        with m.If(stripes):
            m.d.comb += gather.place.col.eq(WORD_BYTES)
        # Words and vectors share the DMA and the way to the buffers; only one kind is at work.
        choose(m, vectors, [gather.command, loader.command], self.read_command)
        share(m, vectors, self.read_data, [gather.data, loader.data])

        lines = stream.Signature(line_layout(config.cols)).create()
        line = Signal(32)
        stored = Signal()
        choose(m, vectors, [quantizer.o, loader.o], lines)
        m.d.comb += [
            lines.ready.eq(self.line.ready),
            self.line.valid.eq(lines.valid),
            self.line.payload.side.eq(vload["side"]),
            self.line.payload.line.eq(line),
            self.line.payload.tag.eq(lines.payload.tag),
            self.line.payload.data.eq(lines.payload.line),
        ]
        with m.If(self.start):
            m.d.sync += line.eq(vload["dest"])
        with m.Elif(lines.valid & lines.ready):
            m.d.sync += line.eq(line + 1)
        m.d.sync += stored.eq(lines.valid & lines.ready & lines.payload.last)
        malformed = loader.done & loader.bad_tag
        m.d.comb += self.done.eq(stored | malformed | scatter.done)
        with m.If(malformed):
            m.d.comb += self.code.eq(ErrorCode.BAD_FORMAT)
        with m.If(self.read_error):
            m.d.comb += self.code.eq(ErrorCode.BUS_READ)
        return m
