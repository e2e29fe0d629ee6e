"""The units that carry out instructions, with NBin, SB and NBout between them."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..bus.splitter import command_layout
from ..config import CambriconqConfig
from .bus_updater import BusUpdater
from .checker import NO_ERROR
from .controller import Constants, Unit
from .dram_port import DramPort
from .isa import INSTRUCTION_BYTES, Opcode, Side
from .job import InstructionFields
from .matrix_unit import MatrixUnit
from .nbout import Nbout
from .sfu import Operation
from .tagged_memory import TaggedMemory
from .transfer import Transfer
from .vector_unit import VectorUnit
from .weight_updater import WeightUpdater

__all__ = ["Core"]

_BUFFER_RANGE, _TAG_MISMATCH, _NO_TAG = 5, 7, 8
_OPERATIONS = {
    Opcode.VADD: Operation.ADD, Opcode.VSUB: Operation.SUB, Opcode.VMUL: Operation.MUL, Opcode.VMAX: Operation.MAX,
    Opcode.VSTEP: Operation.STEP, Opcode.VFMUL: Operation.MUL, Opcode.VFUN: Operation.FUNCTION,
    Opcode.HADD: Operation.ADD, Opcode.HMUL: Operation.MUL, Opcode.HMAX: Operation.MAX,
}  # fmt: skip
_HORIZONTAL = (Opcode.HADD, Opcode.HMUL, Opcode.HMAX)


class Core(wiring.Component):
    """Carries out one checked instruction at a time; buffers and DMA ports belong to the unit at work.

    Parameters
    ----------
    config : CambriconqConfig

    Members
    -------
    instruction : In, 512 bits
        Constant from its start until `done`.
    starts : In
        One cycle, a bit for each `Unit`.
    done : Out
    code : Out
        With `done`: why it was stopped, 0 if all went well. MM and CONV leave their results in NBout undefined then, WGSTORE has
        updated the rows before the one that was refused; else nothing has been moved.
    constants : In
    clear_flags : In; nan_seen, infinity_seen : Out
        What the SQU met.
    array_working : Out
        A line entered the PE array.
    read_command, read_data, write_command, write_data : streams to and from the DMAs
    writer_idle : In
    dram : Out, `DramPort`
        Of the engine beside the memory, if the configuration has one.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        command = stream.Signature(command_layout())
        super().__init__({
            "instruction": In(8 * INSTRUCTION_BYTES), "starts": In(len(Unit)), "done": Out(1), "code": Out(4), "constants": In(Constants),
            "clear_flags": In(1), "nan_seen": Out(1), "infinity_seen": Out(1), "array_working": Out(1),
            "read_command": Out(command), "read_data": In(stream.Signature(8 * config.bus_bytes)), "write_command": Out(command),
            "write_data": Out(stream.Signature(data.StructLayout({"data": 8 * config.bus_bytes, "strobe": config.bus_bytes}))),
            "writer_idle": In(1), **({"dram": Out(DramPort(config.dram))} if config.dram else {}),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.transfer = transfer = Transfer(config)
        m.submodules.vector_unit = vector_unit = VectorUnit(config.nbout_words, config.nbout_lanes)
        m.submodules.matrix_unit = matrix_unit = MatrixUnit(
            config.rows, config.cols, config.nbin_lines, config.sb_lines, config.nbout_words
        )
        m.submodules.updater = updater = WeightUpdater(config.dram) if config.dram else BusUpdater(config.bus_bytes)
        running = Signal(len(Unit))
        with m.If(self.starts.any()):
            m.d.sync += running.eq(self.starts)
        with m.Elif(self.done):
            m.d.sync += running.eq(0)

        # Over the bus nothing can be refused that the check has let pass.
        update_code = updater.code if isinstance(updater, WeightUpdater) else Const(NO_ERROR, 4)
        moves, moved = Cat(self.starts[unit] for unit in _MOVES).any(), Signal()
        matrix_done, matrix_code = self._matrix(m, matrix_unit, running[Unit.MATRIX])
        self._vectors(m, vector_unit)
        self._update(m, transfer, updater)
        self._buffers(m, transfer, matrix_unit)
        self._nbout(m, transfer, vector_unit, matrix_unit, running)
        self._dma(m, transfer, updater, running)
        m.d.comb += [
            transfer.instruction.eq(self.instruction), transfer.start.eq(moves), transfer.clear_flags.eq(self.clear_flags),
            transfer.core_squ.eq(self.constants.core_squ), transfer.memory_squ.eq(self.constants.memory_squ),
            self.nan_seen.eq(transfer.nan_seen), self.infinity_seen.eq(transfer.infinity_seen),
            moved.eq(transfer.done & ~running[Unit.UPDATE]), self.array_working.eq(matrix_unit.working),
            self.done.eq(moved | vector_unit.done | updater.done | matrix_done),
            self.code.eq(Mux(moved, transfer.code, Mux(updater.done, update_code, Mux(matrix_done, matrix_code, 0)))),
        ]  # fmt: skip
        return m

    def _matrix(self, m: Module, unit: MatrixUnit, running: Value) -> tuple[Value, Value]:
        """Its job; whether it is done, and why it was stopped."""
        job, lane_bits = unit.job, self.config.nbout_lanes.bit_length() - 1
        mm, conv = (InstructionFields(self.instruction, opcode) for opcode in (Opcode.MM, Opcode.CONV))
        windows = Signal()
        m.d.comb += [
            unit.start.eq(self.starts[Unit.MATRIX]), windows.eq(self.instruction[:8] == int(Opcode.CONV)),
            job.dest.eq(mm["dest"] >> lane_bits), job.dest_row.eq(mm["dest_row"] >> lane_bits),
            *(job[name].eq(mm[name]) for name in _MATRIX_FIELDS),
            *(job[name].eq(Mux(windows, conv[name], plain)) for name, plain in _WINDOW_FIELDS.items()),
        ]  # fmt: skip
        started, code = Signal(), Signal(4)
        m.d.sync += started.eq(running)
        with m.If(unit.error.tag_mismatch):
            m.d.comb += code.eq(_TAG_MISMATCH)
        with m.If(unit.error.no_tag):
            m.d.comb += code.eq(_NO_TAG)
        with m.If(unit.error.out_of_range):
            m.d.comb += code.eq(_BUFFER_RANGE)
        return running & started & ~unit.busy, code

    def _vectors(self, m: Module, unit: VectorUnit) -> None:
        job = unit.job
        binary, scaled, function = (InstructionFields(self.instruction, o) for o in (Opcode.VADD, Opcode.VFMUL, Opcode.VFUN))
        m.d.comb += [
            unit.start.eq(self.starts[Unit.ARITHMETIC]), job.size.rows.eq(binary["rows"]), job.size.cols.eq(binary["cols"]),
            job.function.eq(function["function"]), job.value.eq(scaled["value"]),
        ]  # fmt: skip
        for name in ("dest", "a", "b"):
            place = job[name]
            m.d.comb += [place.at.eq(binary[name]), place.row.eq(binary[f"{name}_row"]), place.col.eq(binary[f"{name}_col"])]
        with m.Switch(self.instruction[:8]):
            for opcode, operation in _OPERATIONS.items():
                with m.Case(int(opcode)):
                    m.d.comb += [job.operation.eq(operation), job.horizontal.eq(opcode in _HORIZONTAL),
                                 job.immediate.eq(opcode == Opcode.VFMUL)]  # fmt: skip

    def _update(self, m: Module, transfer: Transfer, updater: WeightUpdater | BusUpdater) -> None:
        fields = InstructionFields(self.instruction, Opcode.WGSTORE)
        wiring.connect(m, transfer.gradients, updater.i)
        m.d.comb += [
            updater.start.eq(self.starts[Unit.UPDATE]), updater.shape.rows.eq(fields["rows"]), updater.shape.cols.eq(fields["cols"]),
            *(getattr(updater, name).eq(fields[name]) for name in ("w", "m", "v", "mem_row")),
            *(getattr(updater, name).eq(self.constants[name]) for name in ("optimizer", "use_m", "use_rsqrt")),
        ]  # fmt: skip
        if isinstance(updater, WeightUpdater):
            wiring.connect(m, wiring.flipped(self.dram), updater.dram)
            m.d.comb += transfer.abandon.eq(updater.done & (updater.code != NO_ERROR))

    def _buffers(self, m: Module, transfer: Transfer, matrix_unit: MatrixUnit) -> None:
        """NBin and SB: read by the array and by VSTORE, written by loads and moves."""
        line, ready = transfer.line.payload, []
        for side, name, lines, port in (
            (Side.NBIN, "nbin", self.config.nbin_lines, matrix_unit.nbin), (Side.SB, "sb", self.config.sb_lines, matrix_unit.sb)
        ):  # fmt: skip
            m.submodules[name] = buffer = TaggedMemory(lines, 4 * self.config.cols, generation_bits=1)
            mine, stored = Signal(name=f"{name}_written"), Signal(name=f"{name}_stored")
            m.d.comb += [
                mine.eq(line.side == int(side)), stored.eq(transfer.port.enable & (transfer.read_side == int(side))),
                buffer.write_enable.eq(transfer.line.valid & mine & ~buffer.sweeping), buffer.write_valid.eq(1),
                buffer.write_line.eq(line.line), buffer.write_tag.eq(line.tag), buffer.write_data.eq(line.data),
                buffer.read_enable.eq(port.enable | stored),
                buffer.read_line.eq(Mux(stored, transfer.port.address, port.address)),
                port.line.eq(buffer.read_data), port.tag.eq(buffer.read_tag), port.written.eq(buffer.read_valid),
            ]  # fmt: skip
            ready.append(mine & ~buffer.sweeping)
            with m.If(transfer.read_side == int(side)):
                m.d.comb += [transfer.port.line.eq(buffer.read_data), transfer.port.tag.eq(buffer.read_tag),
                             transfer.port.written.eq(buffer.read_valid)]  # fmt: skip
        m.d.comb += transfer.line.ready.eq(Cat(ready).any())

    def _nbout(self, m: Module, transfer: Transfer, vector_unit: VectorUnit, matrix_unit: MatrixUnit, running: Value) -> None:
        m.submodules.nbout = nbout = Nbout(self.config.nbout_words, self.config.nbout_lanes)
        matrix, vectors = running[Unit.MATRIX], running[Unit.ARITHMETIC]
        for name in ("read_enable", "read_row", "write_enable", "write_row", "write_data"):
            m.d.comb += getattr(nbout, name).eq(
                Mux(
                    matrix, getattr(matrix_unit, name), Mux(vectors, getattr(vector_unit, name), getattr(transfer, f"nbout_{name}"))
                )
            )
        for port in (matrix_unit.read_data, vector_unit.read_data, transfer.nbout_read_data):
            m.d.comb += port.eq(nbout.read_data)

    def _dma(self, m: Module, transfer: Transfer, updater: WeightUpdater | BusUpdater, running: Value) -> None:
        m.d.comb += transfer.writer_idle.eq(self.writer_idle)
        if isinstance(updater, WeightUpdater):
            for name in ("read_command", "write_command", "write_data"):
                wiring.connect(m, getattr(transfer, name), wiring.flipped(getattr(self, name)))
            wiring.connect(m, wiring.flipped(self.read_data), transfer.read_data)
            return
        updates = running[Unit.UPDATE]
        m.d.comb += updater.writer_idle.eq(self.writer_idle)
        for name in ("read_command", "write_command", "write_data"):
            target, first, second = getattr(self, name), getattr(transfer, name), getattr(updater, name)
            m.d.comb += [
                target.payload.eq(Mux(updates, second.payload, first.payload)), target.valid.eq(Mux(updates, second.valid, first.valid)),
                first.ready.eq(~updates & target.ready), second.ready.eq(updates & target.ready),
            ]  # fmt: skip
        m.d.comb += [
            transfer.read_data.payload.eq(self.read_data.payload), transfer.read_data.valid.eq(self.read_data.valid & ~updates),
            updater.read_data.payload.eq(self.read_data.payload), updater.read_data.valid.eq(self.read_data.valid & updates),
            self.read_data.ready.eq(Mux(updates, updater.read_data.ready, transfer.read_data.ready)),
        ]  # fmt: skip


_MOVES = (Unit.STRIPES, Unit.VECTORS, Unit.QUANTIZE, Unit.UPDATE)
_MATRIX_FIELDS = (
    "accumulate", "group", "rows", "cols", "a", "a_row", "a_slot", "w", "w_row", "w_slot", "vectors",
)  # fmt: skip
_WINDOW_FIELDS = {"a_col": 0, "out_width": 1, "stride": 1, "kernel_rows": 1, "kernel_cols": 1}
"""Of CONV, and what they are of MM."""
