"""The lane of computing: products by the matrix unit, all else by the vector unit, both on NBout."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.cambriconq.buffers.nbout import row_bits
from nibblecore.hdl.cambriconq.buffers.qbc import line_read
from nibblecore.hdl.cambriconq.matrix.matrix_unit import MatrixUnit
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, Opcode
from nibblecore.hdl.cambriconq.program.job import InstructionFields, place_fields
from nibblecore.hdl.cambriconq.vector.sfu import Operation
from nibblecore.hdl.cambriconq.vector.vector_unit import VectorUnit
from nibblecore.hdl.config import CambriconqConfig

__all__ = ["ComputeUnit"]

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
_MATRIX_FIELDS = ("accumulate", "group", "rows", "cols", "a", "a_row", "a_slot", "w", "w_row", "w_slot", "vectors")
_WINDOW_FIELDS = {"a_col": 0, "out_width": 1, "stride": 1, "kernel_rows": 1, "kernel_cols": 1}
"""Of CONV, and what they are of MM."""


class ComputeUnit(wiring.Component):
    """Carries out MM and CONV, and the vector instructions::

        NBin, SB ─ MatrixUnit ─┬─ NBout
                   VectorUnit ─┘

    Latency: the unit of an instruction starts in the cycle of ``start``; ``done`` comes with the vector unit's, or in the first cycle in
    which the matrix unit is not busy. Throughput: that of `MatrixUnit` or `VectorUnit`.

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
        With ``done``, an `ErrorCode`: 0, or why a product was abandoned: BUFFER_RANGE, NO_TAG or TAG_MISMATCH. What NBout then holds of it
        is undefined.
    working : Out(1)
        A line enters the PE array in this cycle.
    nbin, sb : In(`line_read`)
        To the tagged buffers. Answered in the next cycle; no read may be refused.
    read_enable : Out(1)
    read_row : Out(row of NBout)
    read_data : In(32 * NBout's lanes)
    write_enable : Out(NBout's lanes)
    write_row : Out(row of NBout)
    write_data : Out(32 * NBout's lanes)
        To and from `Nbout`; neither read nor write may be refused.
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        lanes = config.nbout_lanes
        bits = row_bits(config.nbout_words, lanes)
        super().__init__(
            {
                "instruction": In(8 * INSTRUCTION_BYTES),
                "start": In(1),
                "done": Out(1),
                "code": Out(4),
                "working": Out(1),
                "nbin": In(line_read(config.cols, (config.nbin_lines - 1).bit_length())),
                "sb": In(line_read(config.cols, (config.sb_lines - 1).bit_length())),
                "read_enable": Out(1),
                "read_row": Out(bits),
                "read_data": In(32 * lanes),
                "write_enable": Out(lanes),
                "write_row": Out(bits),
                "write_data": Out(32 * lanes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.matrix_unit = matrix_unit = MatrixUnit(
            config.rows, config.cols, config.nbin_lines, config.sb_lines, config.nbout_words
        )
        m.submodules.vector_unit = vector_unit = VectorUnit(config.nbout_words, config.nbout_lanes, config.vector_lanes)
        opcode = self.instruction[:8]
        products = Signal()
        m.d.comb += products.eq((opcode == int(Opcode.MM)) | (opcode == int(Opcode.CONV)))
        multiplied = self._matrix(m, matrix_unit, products)
        self._vectors(m, vector_unit, ~products)
        m.d.comb += [
            self.done.eq(multiplied | vector_unit.done),
            self.working.eq(matrix_unit.working),
            *(
                getattr(self, name).eq(Mux(products, getattr(matrix_unit, name), getattr(vector_unit, name)))
                for name in ("read_enable", "read_row", "write_enable", "write_row", "write_data")
            ),
            *(unit.read_data.eq(self.read_data) for unit in (matrix_unit, vector_unit)),
        ]
        return m

    def _matrix(self, m: Module, unit: MatrixUnit, mine: Value) -> Value:
        """Its job, and why it was stopped; returns whether it is done."""
        job, lane_bits = unit.job, self.config.nbout_lanes.bit_length() - 1
        mm, conv = (InstructionFields(self.instruction, opcode) for opcode in (Opcode.MM, Opcode.CONV))
        windows = Signal()
        working = Signal()
        started = Signal()
        done = Signal()
        wiring.connect(m, wiring.flipped(self.nbin), unit.nbin)
        wiring.connect(m, wiring.flipped(self.sb), unit.sb)
        m.d.comb += [
            unit.start.eq(self.start & mine),
            windows.eq(self.instruction[:8] == int(Opcode.CONV)),
            job.dest.eq(mm["dest"] >> lane_bits),
            job.dest_row.eq(mm["dest_row"] >> lane_bits),
            *(job[name].eq(mm[name]) for name in _MATRIX_FIELDS),
            *(job[name].eq(Mux(windows, conv[name], plain)) for name, plain in _WINDOW_FIELDS.items()),
        ]
        # A longer step leaves NBin from any line of it; one as long as NBin, seldom as it fits, does too, and no sum of steps wraps round.
        for name in ("a_row", "a_col"):
            with m.If(windows & (conv[name] > self.config.nbin_lines)):
                m.d.comb += job[name].eq(self.config.nbin_lines)

        with m.If(self.start):
            m.d.sync += working.eq(mine)
        with m.Elif(done):
            m.d.sync += working.eq(0)
        m.d.sync += started.eq(working)
        m.d.comb += done.eq(working & started & ~unit.busy)
        with m.If(mine):
            with m.If(unit.error.tag_mismatch):
                m.d.comb += self.code.eq(ErrorCode.TAG_MISMATCH)
            with m.If(unit.error.no_tag):
                m.d.comb += self.code.eq(ErrorCode.NO_TAG)
            with m.If(unit.error.out_of_range):
                m.d.comb += self.code.eq(ErrorCode.BUFFER_RANGE)
        return done

    def _vectors(self, m: Module, unit: VectorUnit, mine: Value) -> None:
        job = unit.job
        binary, scaled, function = (InstructionFields(self.instruction, o) for o in (Opcode.VADD, Opcode.VFMUL, Opcode.VFUN))
        m.d.comb += [
            unit.start.eq(self.start & mine),
            job.size.rows.eq(binary["rows"]),
            job.size.cols.eq(binary["cols"]),
            job.function.eq(function["function"]),
            job.value.eq(scaled["value"]),
            *(assignment for name in ("dest", "a", "b") for assignment in place_fields(job[name], binary, name)),
        ]
        with m.Switch(self.instruction[:8]):
            for opcode, operation in _OPERATIONS.items():
                with m.Case(int(opcode)):
                    m.d.comb += [
                        job.operation.eq(operation),
                        job.horizontal.eq(opcode in _HORIZONTAL),
                        job.immediate.eq(opcode == Opcode.VFMUL),
                    ]
