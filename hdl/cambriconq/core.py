"""The lanes that carry out instructions, with NBin, SB and NBout between them."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import command_layout
from nibblecore.hdl.cambriconq.buffers.nbout import Nbout
from nibblecore.hdl.cambriconq.buffers.qbc import Qbc
from nibblecore.hdl.cambriconq.control.controller import Constants, Lane
from nibblecore.hdl.cambriconq.control.load_unit import LoadUnit
from nibblecore.hdl.cambriconq.control.store_unit import StoreUnit
from nibblecore.hdl.cambriconq.matrix.matrix_unit import MatrixUnit
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, Opcode, Side
from nibblecore.hdl.cambriconq.program.job import InstructionFields
from nibblecore.hdl.cambriconq.update.bus_updater import BusUpdater
from nibblecore.hdl.cambriconq.update.dram_port import DramPort
from nibblecore.hdl.cambriconq.update.weight_updater import WeightUpdater
from nibblecore.hdl.cambriconq.vector.sfu import Operation
from nibblecore.hdl.cambriconq.vector.vector_unit import VectorUnit
from nibblecore.hdl.config import CambriconqConfig

__all__ = ["Core"]

_OPERATIONS = {
    Opcode.VADD: Operation.ADD,
    Opcode.VSUB: Operation.SUB,
    Opcode.VMUL: Operation.MUL,
    Opcode.VMAX: Operation.MAX,
    Opcode.VSTEP: Operation.STEP,
    Opcode.VFMUL: Operation.MUL,
    Opcode.VFUN: Operation.FUNCTION,
    Opcode.HADD: Operation.ADD,
    Opcode.HMUL: Operation.MUL,
    Opcode.HMAX: Operation.MAX,
}
_HORIZONTAL = (Opcode.HADD, Opcode.HMUL, Opcode.HMAX)


class Core(wiring.Component):
    """Carries out checked instructions, one in each `Lane`. What the caller starts side by side must not conflict (`Controller`).

    The lanes share NBout's ports and the write ports of NBin and SB: computing goes first in NBout, where its timing is fixed, and loads and
    stores wait; in NBin and SB moves go before loads. So no lane waits for one that waits for it.

    After a reset NBin and SB forget their lines, one a cycle; until then they take none.

    Latency: the unit of a lane starts in the cycle of its `starts` and has ended in that of its `ended`; MM and CONV have ended in the first
    cycle in which `MatrixUnit` is not busy. Throughput: that of the units, less where the ports are taken.

    Parameters
    ----------
    config : CambriconqConfig

    Members
    -------
    instructions : In, 512 bits a lane
        Constant from their start until they have ended.
    starts : In; ended : Out
        One cycle, a bit for each lane; a lane starts nothing until it has ended.
    codes : Out
        With `ended`: why it was stopped, 0 if all went well. MM and CONV leave their results in NBout undefined then, WGSTORE has
        updated the rows before the one that was refused, and what the bus refused has been done as far as the bus let it; else nothing
        has been moved.
    constants : In
        Constant while a lane that reads them is at work: `memory_squ` the LOAD lane, all others the STORE lane.
    clear_flags : In; nan_seen, infinity_seen : Out
        What the SQUs met; sticky until `clear_flags`.
    array_working : Out
        A line entered the PE array.
    read_command, read_data, write_command, write_data : streams to and from the DMAs
    read_error, write_error : In
        Sticky, of the DMAs.
    writer_idle : In
    dram : Out, `DramPort`
        Of the engine beside the memory, if the configuration has one.
    update_command, update_data, update_error : streams and In
        Only if there is no engine: the bus updater's own reader.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        command, beats = stream.Signature(command_layout()), stream.Signature(8 * config.bus_bytes)
        super().__init__(
            {
                "instructions": In(8 * INSTRUCTION_BYTES).array(len(Lane)),
                "starts": In(len(Lane)),
                "ended": Out(len(Lane)),
                "codes": Out(4).array(len(Lane)),
                "constants": In(Constants),
                "clear_flags": In(1),
                "nan_seen": Out(1),
                "infinity_seen": Out(1),
                "array_working": Out(1),
                "read_command": Out(command),
                "read_data": In(beats),
                "write_command": Out(command),
                "write_data": Out(stream.Signature(data.StructLayout({"data": 8 * config.bus_bytes, "strobe": config.bus_bytes}))),
                "read_error": In(1),
                "write_error": In(1),
                "writer_idle": In(1),
                **(
                    {"dram": Out(DramPort(config.dram))}
                    if config.dram
                    else {"update_command": Out(command), "update_data": In(beats), "update_error": In(1)}
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.load_unit = load = LoadUnit(config)
        m.submodules.store_unit = store = StoreUnit(config)
        m.submodules.vector_unit = vector_unit = VectorUnit(config.nbout_words, config.nbout_lanes)
        m.submodules.matrix_unit = matrix_unit = MatrixUnit(
            config.rows, config.cols, config.nbin_lines, config.sb_lines, config.nbout_words
        )
        m.submodules.updater = updater = WeightUpdater(config.dram) if config.dram else BusUpdater(config.bus_bytes)
        self._load(m, load)
        self._store(m, store, updater)
        computes = self._compute(m, matrix_unit, vector_unit)
        self._buffers(m, load, store, matrix_unit)
        self._nbout(m, load, store, vector_unit, matrix_unit, computes)
        m.d.comb += [
            self.nan_seen.eq(load.nan_seen | store.nan_seen),
            self.infinity_seen.eq(load.infinity_seen | store.infinity_seen),
            load.clear_flags.eq(self.clear_flags),
            store.clear_flags.eq(self.clear_flags),
            self.array_working.eq(matrix_unit.working),
        ]
        return m

    def _load(self, m: Module, unit: LoadUnit) -> None:
        wiring.connect(m, unit.read_command, wiring.flipped(self.read_command))
        wiring.connect(m, wiring.flipped(self.read_data), unit.read_data)
        m.d.comb += [
            unit.instruction.eq(self.instructions[Lane.LOAD]),
            unit.start.eq(self.starts[Lane.LOAD]),
            unit.squ.eq(self.constants.memory_squ),
            self.ended[Lane.LOAD].eq(unit.done),
            self.codes[Lane.LOAD].eq(Mux(self.read_error, ErrorCode.BUS_READ, unit.code)),
        ]

    def _store(self, m: Module, unit: StoreUnit, updater: WeightUpdater | BusUpdater) -> None:
        instruction, starts = self.instructions[Lane.STORE], self.starts[Lane.STORE]
        fields, updates = InstructionFields(instruction, Opcode.WGSTORE), Signal()
        wiring.connect(m, unit.gradients, updater.i)
        m.d.comb += [
            updates.eq(instruction[:8] == int(Opcode.WGSTORE)),
            unit.instruction.eq(instruction),
            unit.start.eq(starts),
            unit.squ.eq(self.constants.core_squ),
            unit.writer_idle.eq(self.writer_idle),
            updater.start.eq(starts & updates),
            updater.shape.rows.eq(fields["rows"]),
            updater.shape.cols.eq(fields["cols"]),
            *(getattr(updater, name).eq(fields[name]) for name in ("w", "m", "v", "mem_row")),
            *(getattr(updater, name).eq(self.constants[name]) for name in ("optimizer", "use_m", "use_rsqrt")),
            self.ended[Lane.STORE].eq(Mux(updates, updater.done, unit.done)),
        ]
        code = self.codes[Lane.STORE]
        if isinstance(updater, WeightUpdater):
            wiring.connect(m, wiring.flipped(self.dram), updater.dram)
            wiring.connect(m, unit.write_command, wiring.flipped(self.write_command))
            wiring.connect(m, unit.write_data, wiring.flipped(self.write_data))
            m.d.comb += [
                unit.abandon.eq(updater.done & (updater.code != ErrorCode.NONE)),
                code.eq(Mux(self.write_error, ErrorCode.BUS_WRITE, Mux(updates, updater.code, unit.code))),
            ]
            return
        wiring.connect(m, updater.read_command, wiring.flipped(self.update_command))
        wiring.connect(m, wiring.flipped(self.update_data), updater.read_data)
        m.d.comb += [
            updater.writer_idle.eq(self.writer_idle),
            code.eq(
                Mux(
                    self.update_error,
                    ErrorCode.BUS_READ,
                    Mux(self.write_error, ErrorCode.BUS_WRITE, Mux(updates, ErrorCode.NONE, unit.code)),
                )
            ),
        ]
        for name in ("write_command", "write_data"):
            target, first, second = getattr(self, name), getattr(unit, name), getattr(updater, name)
            m.d.comb += [
                target.payload.eq(Mux(updates, second.payload, first.payload)),
                target.valid.eq(Mux(updates, second.valid, first.valid)),
                first.ready.eq(~updates & target.ready),
                second.ready.eq(updates & target.ready),
            ]

    def _compute(self, m: Module, matrix_unit: MatrixUnit, vector_unit: VectorUnit) -> Signal:
        """Returns whether the matrix unit's turn it is."""
        opcode, starts = self.instructions[Lane.COMPUTE][:8], self.starts[Lane.COMPUTE]
        products, working = Signal(), Signal()
        m.d.comb += [
            products.eq((opcode == int(Opcode.MM)) | (opcode == int(Opcode.CONV))),
            matrix_unit.start.eq(starts & products),
            vector_unit.start.eq(starts & ~products),
        ]
        done, code = self._matrix(m, matrix_unit, working)
        self._vectors(m, vector_unit)
        with m.If(starts):
            m.d.sync += working.eq(products)
        with m.Elif(done):
            m.d.sync += working.eq(0)
        m.d.comb += [
            self.ended[Lane.COMPUTE].eq(done | vector_unit.done),
            self.codes[Lane.COMPUTE].eq(Mux(products, code, ErrorCode.NONE)),
        ]
        return products

    def _matrix(self, m: Module, unit: MatrixUnit, working: Signal) -> tuple[Value, Value]:
        """Its job; whether it is done, and why it was stopped."""
        instruction = self.instructions[Lane.COMPUTE]
        job, lane_bits = unit.job, self.config.nbout_lanes.bit_length() - 1
        mm, conv = (InstructionFields(instruction, opcode) for opcode in (Opcode.MM, Opcode.CONV))
        windows = Signal()
        m.d.comb += [
            windows.eq(instruction[:8] == int(Opcode.CONV)),
            job.dest.eq(mm["dest"] >> lane_bits),
            job.dest_row.eq(mm["dest_row"] >> lane_bits),
            *(job[name].eq(mm[name]) for name in _MATRIX_FIELDS),
            *(job[name].eq(Mux(windows, conv[name], plain)) for name, plain in _WINDOW_FIELDS.items()),
        ]
        # A longer step leaves NBin from any line of it; one as long as NBin, seldom as it fits, does too, and no sum of steps wraps round.
        for name in ("a_row", "a_col"):
            with m.If(windows & (conv[name] > self.config.nbin_lines)):
                m.d.comb += job[name].eq(self.config.nbin_lines)
        started, code = Signal(), Signal(4)
        m.d.sync += started.eq(working)
        with m.If(unit.error.tag_mismatch):
            m.d.comb += code.eq(ErrorCode.TAG_MISMATCH)
        with m.If(unit.error.no_tag):
            m.d.comb += code.eq(ErrorCode.NO_TAG)
        with m.If(unit.error.out_of_range):
            m.d.comb += code.eq(ErrorCode.BUFFER_RANGE)
        return working & started & ~unit.busy, code

    def _vectors(self, m: Module, unit: VectorUnit) -> None:
        instruction = self.instructions[Lane.COMPUTE]
        job = unit.job
        binary, scaled, function = (InstructionFields(instruction, o) for o in (Opcode.VADD, Opcode.VFMUL, Opcode.VFUN))
        m.d.comb += [
            job.size.rows.eq(binary["rows"]),
            job.size.cols.eq(binary["cols"]),
            job.function.eq(function["function"]),
            job.value.eq(scaled["value"]),
        ]
        for name in ("dest", "a", "b"):
            place = job[name]
            m.d.comb += [place.at.eq(binary[name]), place.row.eq(binary[f"{name}_row"]), place.col.eq(binary[f"{name}_col"])]
        with m.Switch(instruction[:8]):
            for opcode, operation in _OPERATIONS.items():
                with m.Case(int(opcode)):
                    m.d.comb += [
                        job.operation.eq(operation),
                        job.horizontal.eq(opcode in _HORIZONTAL),
                        job.immediate.eq(opcode == Opcode.VFMUL),
                    ]

    def _buffers(self, m: Module, load: LoadUnit, store: StoreUnit, matrix_unit: MatrixUnit) -> None:
        """NBin and SB: read by the array or by the stores' lane, written by loads, moves and transposes."""
        for side, name, lines, port in (
            (Side.NBIN, "nbin", self.config.nbin_lines, matrix_unit.nbin),
            (Side.SB, "sb", self.config.sb_lines, matrix_unit.sb),
        ):
            m.submodules[name] = buffer = Qbc(lines, self.config.cols, generation_bits=1)
            moved, loaded, stored = Signal(name=f"{name}_moved"), Signal(name=f"{name}_loaded"), Signal(name=f"{name}_stored")
            write, element = buffer.write, store.element
            m.d.comb += [
                moved.eq(store.line.valid & (store.line.payload.side == int(side))),
                loaded.eq(load.line.valid & (load.line.payload.side == int(side)) & ~moved),
                write.valid.eq(moved | loaded),
                *(
                    write.payload[field].eq(Mux(moved, store.line.payload[field], load.line.payload[field]))
                    for field in ("line", "tag", "data")
                ),
                *(buffer.element.payload[field].eq(element.payload[field]) for field in ("line", "slot", "index", "tag", "value")),
                stored.eq(store.port.enable & (store.read_side == int(side))),
                buffer.read_enable.eq(port.enable | stored),
                buffer.read_line.eq(Mux(stored, store.port.address, port.address)),
                port.line.eq(buffer.read_data),
                port.tag.eq(buffer.read_tag),
                port.written.eq(buffer.read_valid),
            ]
            with m.If(moved):
                m.d.comb += store.line.ready.eq(write.ready)
            with m.If(loaded):
                m.d.comb += load.line.ready.eq(write.ready)
            with m.If(store.side == int(side)):
                m.d.comb += [
                    buffer.element.valid.eq(element.valid),
                    element.ready.eq(buffer.element.ready),
                    buffer.flush.eq(store.flush),
                    store.clean.eq(buffer.clean),
                ]
            with m.If(store.read_side == int(side)):
                m.d.comb += [
                    store.port.line.eq(buffer.read_data),
                    store.port.tag.eq(buffer.read_tag),
                    store.port.written.eq(buffer.read_valid),
                ]

    def _nbout(
        self, m: Module, load: LoadUnit, store: StoreUnit, vector_unit: VectorUnit, matrix_unit: MatrixUnit, products: Signal
    ) -> None:
        m.submodules.nbout = nbout = Nbout(self.config.nbout_words, self.config.nbout_lanes)
        computing = {name: Mux(products, getattr(matrix_unit, name), getattr(vector_unit, name)) for name in _NBOUT_PORTS}
        reads, writes = Signal(), Signal()
        m.d.comb += [
            reads.eq(computing["read_enable"]),
            store.nbout_read.ready.eq(~reads),
            nbout.read_enable.eq(reads | store.nbout_read.valid),
            nbout.read_row.eq(Mux(reads, computing["read_row"], store.nbout_read.payload)),
            writes.eq(computing["write_enable"].any()),
            load.nbout_free.eq(~writes),
            *(
                getattr(nbout, name).eq(Mux(writes, computing[name], getattr(load, f"nbout_{name}")))
                for name in ("write_enable", "write_row", "write_data")
            ),
            *(port.eq(nbout.read_data) for port in (matrix_unit.read_data, vector_unit.read_data, store.nbout_read_data)),
        ]


_NBOUT_PORTS = ("read_enable", "read_row", "write_enable", "write_row", "write_data")
_MATRIX_FIELDS = ("accumulate", "group", "rows", "cols", "a", "a_row", "a_slot", "w", "w_row", "w_slot", "vectors")
_WINDOW_FIELDS = {"a_col": 0, "out_width": 1, "stride": 1, "kernel_rows": 1, "kernel_cols": 1}
"""Of CONV, and what they are of MM."""
