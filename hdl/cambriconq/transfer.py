"""Everything between memory, NBout and the tagged buffers: loads, stores and moves, quantized on the way or not."""

from amaranth import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..bus.splitter import command_layout
from ..config import CambriconqConfig
from .checker import BAD_FORMAT, NO_ERROR
from .gather import Gather
from .isa import INSTRUCTION_BYTES, Opcode
from .job import InstructionFields
from .matrix_loader import line_read
from .memory_gather import MemoryGather
from .memory_scatter import MemoryScatter
from .nbout import row_bits
from .quantize_unit import QuantizeUnit, line_layout
from .scatter import Scatter
from .squ_setup import SquSettings
from .tag import Tag
from .vector_loader import VectorLoader
from .vector_reader import VectorReader
from .vector_storer import VectorStorer

__all__ = ["NO_TAG", "Transfer", "buffer_line"]

NO_TAG = 8
"""Error code: no vector is there, or not a whole one."""


def buffer_line(config: CambriconqConfig) -> data.StructLayout:
    """A line to write to NBin or SB."""
    return data.StructLayout({"side": 1, "line": 32, "tag": Tag, "data": 4 * config.cols})


class Transfer(wiring.Component):
    """Carries out SLOAD, SSTORE, VLOAD, VSTORE, QLOAD, QSTORE and QMOVE, and gathers the gradient of WGSTORE.

    Two kinds of data travel, words of FP32 and lines of tagged vectors; an instruction joins one source to one sink::

        memory ─ MemoryGather ─┐          ┌─ MemoryScatter ─ memory
        NBout ─ Gather ────────┴─ words ──┼─ Scatter ─ NBout
                                          ├─ weight updater
                                          └─ QuantizeUnit ─┐          ┌─ NBin, SB
        memory ─ VectorLoader ─────────────────────────────┼─ lines ──┴─ VectorStorer ─ memory
        NBin, SB ─ VectorReader ───────────────────────────┘

    An instruction that fails (BAD_FORMAT, NO_TAG) has moved nothing.

    Throughput: a word a cycle through either words' route, a line a cycle from memory to a buffer but for one cycle a vector; the
    quantizer's is `QuantizeUnit`'s.

    Parameters
    ----------
    config : CambriconqConfig

    Members
    -------
    instruction : In, 512 bits
        Checked; constant from `start` until the unit has ended.
    start : In
    done : Out
        One cycle; for WGSTORE the updater says when it is done.
    code : Out
        With `done`: 0, BAD_FORMAT or NO_TAG.
    abandon : In
        With WGSTORE: the updater takes no more gradients.
    core_squ, memory_squ : In
        Settings for what comes from NBout and for what comes from memory.
    clear_flags : In; nan_seen, infinity_seen : Out
    gradients : Out stream of 32 bits
    read_command, read_data, write_command, write_data : streams to and from the DMAs
    writer_idle : In
    nbout_read_enable … nbout_write_data : NBout
    read_side : Out; port : to the buffer of that side
    line : Out stream of `buffer_line`
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        self._lines = max(config.nbin_lines, config.sb_lines)
        lanes, command = config.nbout_lanes, stream.Signature(command_layout())
        bits = row_bits(config.nbout_words, lanes)
        super().__init__({
            "instruction": In(8 * INSTRUCTION_BYTES), "start": In(1), "done": Out(1), "code": Out(4), "abandon": In(1),
            "core_squ": In(SquSettings), "memory_squ": In(SquSettings), "clear_flags": In(1), "nan_seen": Out(1), "infinity_seen": Out(1),
            "gradients": Out(stream.Signature(32)),
            "read_command": Out(command), "read_data": In(stream.Signature(8 * config.bus_bytes)), "write_command": Out(command),
            "write_data": Out(stream.Signature(data.StructLayout({"data": 8 * config.bus_bytes, "strobe": config.bus_bytes}))),
            "writer_idle": In(1),
            "nbout_read_enable": Out(1), "nbout_read_row": Out(bits), "nbout_read_data": In(32 * lanes),
            "nbout_write_enable": Out(lanes), "nbout_write_row": Out(bits), "nbout_write_data": Out(32 * lanes),
            "read_side": Out(1), "port": In(line_read(config.cols, (self._lines - 1).bit_length())),
            "line": Out(stream.Signature(buffer_line(config))),
        })  # fmt: skip

        word_bits = (config.nbout_words - 1).bit_length()
        self._memory_gather = MemoryGather(config.bus_bytes)
        self._gather = Gather(lanes, word_bits)
        self._memory_scatter = MemoryScatter(config.bus_bytes)
        self._scatter = Scatter(lanes, word_bits)
        self._quantizer = QuantizeUnit(config.cols)
        self._loader = VectorLoader(config.cols)
        self._reader = VectorReader(config.cols, self._lines)
        self._storer = VectorStorer(config.cols)
        self._is = {opcode: Signal(name=f"is_{opcode.name.lower()}") for opcode in _OPCODES}
        self._fields = {opcode: InstructionFields(self.instruction, opcode) for opcode in _OPCODES}
        self._sent_last = Signal()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name in ("memory_gather", "memory_scatter", "scatter", "quantizer", "loader", "reader", "storer"):
            m.submodules[name] = getattr(self, f"_{name}")
        m.submodules.gather = ResetInserter(self.abandon)(self._gather)
        for opcode, signal in self._is.items():
            m.d.comb += signal.eq(self.instruction[:8] == int(opcode))

        quantizes, fits, begin = Signal(), Signal(), Signal()
        settings, candidates, slot = (
            self._quantizer.settings,
            self._quantizer.settings.candidates,
            self._fields[Opcode.QLOAD]["slot"],
        )
        m.d.comb += [
            quantizes.eq(self._any(Opcode.QLOAD, Opcode.QSTORE, Opcode.QMOVE)),
            settings.eq(Mux(self._is[Opcode.QLOAD], self.memory_squ, self.core_squ)),
            fits.eq(~Cat((candidate.size >= slot) & (settings.count >= n if n else 1) for n, candidate in enumerate(candidates)).any()),
            begin.eq(self.start & (fits | ~quantizes)),
        ]  # fmt: skip
        self._words(m, begin, quantizes)
        self._lines_to(m, begin, quantizes)
        self._memory(m)
        self._nbout(m)

        refused = Signal()
        m.d.sync += refused.eq(self.start & ~begin)
        malformed, absent = self._loader.done & self._loader.bad_tag, self._reader.done & self._reader.no_tag
        stored = Signal()
        m.d.sync += stored.eq(self.line.valid & self.line.ready & self._sent_last)
        m.d.comb += [
            self.done.eq(
                refused | malformed | absent | stored | self._scatter.done | self._memory_scatter.done | self._storer.done
            ),
            self.code.eq(Mux(refused | malformed, BAD_FORMAT, Mux(absent, NO_TAG, NO_ERROR))),
        ]
        return m

    def _any(self, *opcodes: Opcode) -> Value:
        return Cat(self._is[opcode] for opcode in opcodes).any()

    def _words(self, m: Module, begin: Signal, quantizes: Signal) -> None:
        """Words from memory or NBout to where they are wanted."""
        f, memory_gather, gather = self._fields, self._memory_gather, self._gather
        memory_scatter, scatter, quantizer = self._memory_scatter, self._scatter, self._quantizer
        from_memory, from_nbout = Signal(), Signal()
        m.d.comb += [
            from_memory.eq(self._any(Opcode.SLOAD, Opcode.QLOAD)),
            from_nbout.eq(self._any(Opcode.SSTORE, Opcode.QSTORE, Opcode.QMOVE, Opcode.WGSTORE)),
            memory_gather.start.eq(begin & from_memory), gather.start.eq(begin & from_nbout),
            scatter.start.eq(begin & self._is[Opcode.SLOAD]), memory_scatter.start.eq(begin & self._is[Opcode.SSTORE]),
            *_place(memory_gather.place, f[Opcode.QLOAD], "src"), *_place(gather.place, f[Opcode.QMOVE], "src"),
            *_place(scatter.place, f[Opcode.SLOAD], "dest"), *_place(memory_scatter.place, f[Opcode.SSTORE], "dest"),
            quantizer.slot.eq(f[Opcode.QLOAD]["slot"]), quantizer.clear.eq(self.clear_flags),
            self.nan_seen.eq(quantizer.nan_seen), self.infinity_seen.eq(quantizer.infinity_seen),
        ]  # fmt: skip
        with m.If(self._is[Opcode.SLOAD]):
            m.d.comb += memory_gather.place.col.eq(4)
        for part in (memory_gather, gather, memory_scatter, scatter):
            m.d.comb += [part.shape.rows.eq(f[Opcode.SLOAD]["rows"]), part.shape.cols.eq(f[Opcode.SLOAD]["cols"])]
        words = stream.Signature(gather.o.payload.shape()).create()
        m.d.comb += [
            words.payload.eq(Mux(from_memory, memory_gather.o.payload, gather.o.payload)),
            words.valid.eq(Mux(from_memory, memory_gather.o.valid, gather.o.valid)),
            memory_gather.o.ready.eq(from_memory & words.ready), gather.o.ready.eq(from_nbout & words.ready),
            quantizer.i.payload.eq(words.payload), quantizer.i.valid.eq(words.valid & quantizes),
        ]  # fmt: skip
        routes = [(quantizes, quantizer.i.ready)]
        for sink, wanted in ((scatter.i, self._is[Opcode.SLOAD]), (memory_scatter.i, self._is[Opcode.SSTORE]),
                             (self.gradients, self._is[Opcode.WGSTORE])):  # fmt: skip
            m.d.comb += [sink.payload.eq(words.payload.word), sink.valid.eq(words.valid & wanted)]
            routes.append((wanted, sink.ready))
        m.d.comb += words.ready.eq(Cat(wanted & ready for wanted, ready in routes).any())

    def _lines_to(self, m: Module, begin: Signal, quantizes: Signal) -> None:
        """Lines from the quantizer, memory or a buffer to a buffer or memory."""
        f, quantizer, loader, reader, storer = self._fields, self._quantizer, self._loader, self._reader, self._storer
        vload, vstore = f[Opcode.VLOAD], f[Opcode.VSTORE]
        for part, opcode, at in ((loader, Opcode.VLOAD, "src"), (reader, Opcode.VSTORE, "src")):
            fields = f[opcode]
            m.d.comb += [part.start.eq(begin & self._is[opcode]), part.vectors.eq(fields["vectors"]), part.slot.eq(fields["slot"]),
                         part.at.eq(fields[at])]  # fmt: skip
        m.d.comb += [loader.tags.eq(vload["src_tags"]), self.read_side.eq(vstore["side"])]
        wiring.connect(m, reader.port, wiring.flipped(self.port))

        lines = stream.Signature(line_layout(self.config.cols)).create()
        to_memory, line = Signal(), Signal(32)
        m.d.comb += [
            lines.valid.eq(quantizer.o.valid | loader.o.valid | reader.o.valid),
            lines.payload.eq(Mux(quantizes, quantizer.o.payload, Mux(self._is[Opcode.VLOAD], loader.o.payload, reader.o.payload))),
            quantizer.o.ready.eq(lines.ready & quantizes), loader.o.ready.eq(lines.ready & self._is[Opcode.VLOAD]),
            reader.o.ready.eq(lines.ready & self._is[Opcode.VSTORE]),
            to_memory.eq(self._any(Opcode.QSTORE, Opcode.VSTORE)),
            storer.start.eq(begin & to_memory), storer.slot.eq(vstore["slot"]),
            storer.at.eq(Mux(self._is[Opcode.VSTORE], vstore["dest"], f[Opcode.QSTORE]["dest"])),
            storer.tags.eq(Mux(self._is[Opcode.VSTORE], vstore["dest_tags"], f[Opcode.QSTORE]["dest_tags"])),
            storer.i.payload.eq(lines.payload), storer.i.valid.eq(lines.valid & to_memory), storer.writer_idle.eq(self.writer_idle),
            self.line.valid.eq(lines.valid & ~to_memory), self.line.payload.side.eq(vload["side"]), self.line.payload.line.eq(line),
            self.line.payload.tag.eq(lines.payload.tag), self.line.payload.data.eq(lines.payload.line),
            lines.ready.eq(Mux(to_memory, storer.i.ready, self.line.ready)),
        ]  # fmt: skip
        with m.If(self.start):
            m.d.sync += line.eq(vload["dest"])
        with m.Elif(self.line.valid & self.line.ready):
            m.d.sync += line.eq(line + 1)
        m.d.comb += self._sent_last.eq(lines.payload.last)

    def _memory(self, m: Module) -> None:
        """The parts share the DMAs; only one of each is at work."""
        gather, scatter, loader, storer = self._memory_gather, self._memory_scatter, self._loader, self._storer
        for target, first, second, chosen in (
            (self.read_command, gather.command, loader.command, self._is[Opcode.VLOAD]),
            (self.write_command, scatter.command, storer.command, ~self._is[Opcode.SSTORE]),
            (self.write_data, scatter.data, storer.data, ~self._is[Opcode.SSTORE]),
        ):
            m.d.comb += [
                target.payload.eq(Mux(chosen, second.payload, first.payload)), target.valid.eq(Mux(chosen, second.valid, first.valid)),
                first.ready.eq(~chosen & target.ready), second.ready.eq(chosen & target.ready),
            ]  # fmt: skip
        loads = self._is[Opcode.VLOAD]
        m.d.comb += [
            gather.data.payload.eq(self.read_data.payload), gather.data.valid.eq(self.read_data.valid & ~loads),
            loader.data.payload.eq(self.read_data.payload), loader.data.valid.eq(self.read_data.valid & loads),
            self.read_data.ready.eq(Mux(loads, loader.data.ready, gather.data.ready)),
            scatter.writer_idle.eq(self.writer_idle),
        ]  # fmt: skip

    def _nbout(self, m: Module) -> None:
        gather, scatter = self._gather, self._scatter
        m.d.comb += [
            gather.read.ready.eq(1), self.nbout_read_enable.eq(gather.read.valid), self.nbout_read_row.eq(gather.read.payload),
            gather.read_data.eq(self.nbout_read_data), self.nbout_write_enable.eq(scatter.write_enable),
            self.nbout_write_row.eq(scatter.write_row), self.nbout_write_data.eq(scatter.write_data),
        ]  # fmt: skip


_OPCODES = (
    Opcode.SLOAD, Opcode.SSTORE, Opcode.VLOAD, Opcode.VSTORE, Opcode.QLOAD, Opcode.QSTORE, Opcode.QMOVE, Opcode.WGSTORE,
)  # fmt: skip


def _place(place: Value, fields: InstructionFields, name: str) -> list[Value]:
    """An instruction's place, whose columns lie side by side if it names no distance for them."""
    return [place.at.eq(fields[name]), place.row.eq(fields[f"{name}_row"]), place.col.eq(fields.get(f"{name}_col"))]
