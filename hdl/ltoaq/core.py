"""Everything between the controller and the two DMAs: what brings operands, the array, and what becomes of its tiles."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import choose, command_layout, connect, share, write_layout
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.array.sequencer import Sequencer
from nibblecore.hdl.ltoaq.array.wide_engine import WideEngine
from nibblecore.hdl.ltoaq.command.descriptor import Opcode
from nibblecore.hdl.ltoaq.command.descriptor_checker import descriptor_layout
from nibblecore.hdl.ltoaq.command.job import GemmJob, MatrixShape, OperandJob, OutputJob, RawJob, TensorSummary
from nibblecore.hdl.ltoaq.fused.fused_engine import FusedEngine
from nibblecore.hdl.ltoaq.operands.loader import Loader
from nibblecore.hdl.ltoaq.operands.operand_buffer import OperandBuffer
from nibblecore.hdl.ltoaq.output.output_stage import OutputStage
from nibblecore.hdl.ltoaq.output.raw_loader import RawLoader
from nibblecore.hdl.ltoaq.output.tile_buffer import TileBuffer

__all__ = ["Core"]


class Core(wiring.Component):
    """The units that carry out a command, in a clock domain whose reset the controller pulls before every command.

    Latency: the first read command 3 cycles after ``start``; from there on as the units take. Throughput: a command at a time, as fast as the
    slowest of its units.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    descriptor : In(descriptor_layout())
    gemm : In(GemmJob)
    a, w : In(OperandJob)
    target : In(OutputJob)
    raw0, raw1 : In(RawJob)
    shape : In(MatrixShape)
    q_max : In(8)
        The running command, constant from ``start`` until the next reset.
    start : In(1)
        Once after each reset.
    idle : Out(1)
        Nothing is under way; ``summary`` is final once it has been so for ``settle_cycles`` cycles.
    malformed, run_overflow : Out(1)
        Sticky: a segment of an operand is malformed, one of the result is longer than its stride.
    summary : Out(TensorSummary)
    working, waits_for_operands, waits_for_room : Out(1)
        For the counters: the array works, waits for operands, waits for the tile buffer.
    read_command : Out(stream of `command_layout`)
    read_data : In(stream of bus_bits)
    write_command : Out(stream of `command_layout`)
    write_data : Out(stream of `write_layout`)
        To and from the DMAs.
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        self.settle_cycles = OutputStage.settle_cycles(config)
        super().__init__(
            {
                "descriptor": In(descriptor_layout()),
                "gemm": In(GemmJob),
                "a": In(OperandJob),
                "w": In(OperandJob),
                "target": In(OutputJob),
                "raw0": In(RawJob),
                "raw1": In(RawJob),
                "shape": In(MatrixShape),
                "q_max": In(8),
                "start": In(1),
                "idle": Out(1),
                "malformed": Out(1),
                "run_overflow": Out(1),
                "summary": Out(TensorSummary),
                "working": Out(1),
                "waits_for_operands": Out(1),
                "waits_for_room": Out(1),
                "read_command": Out(stream.Signature(command_layout())),
                "read_data": In(stream.Signature(config.bus_bits)),
                "write_command": Out(stream.Signature(command_layout())),
                "write_data": Out(stream.Signature(write_layout(config.bus_bytes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.loader = loader = Loader(config)
        m.submodules.raw_loader = raw_loader = RawLoader(config)
        m.submodules.sequencer = sequencer = Sequencer(config)
        m.submodules.engine = engine = FusedEngine(config) if config.fused else WideEngine(config)
        m.submodules.tiles = tiles = TileBuffer(config)
        m.submodules.output = output = OutputStage(config)
        is_gemm = Signal()
        m.d.comb += [
            is_gemm.eq(self.descriptor.opcode == Opcode.GEMM),
            self.idle.eq(~(sequencer.busy | engine.command.valid | engine.busy | raw_loader.busy | tiles.full | output.busy)),
        ]
        self._multiply(m, is_gemm, loader, sequencer, engine)
        self._load_raw(m, is_gemm, raw_loader, tiles)
        self._put_out(m, engine, tiles, output)
        # Tiles of a product are announced by the sequencer, tiles of a matrix by its loader.
        choose(m, is_gemm, [raw_loader.tile, sequencer.tile], output.tile)
        choose(m, is_gemm, [raw_loader.read_command, loader.read_command], self.read_command)
        share(m, is_gemm, self.read_data, [raw_loader.read_data, loader.read_data])
        connect(m, output.write_command, self.write_command)
        connect(m, output.write_data, self.write_data)
        return m

    def _multiply(self, m: Module, is_gemm: Signal, loader: Loader, sequencer: Sequencer, engine: WideEngine | FusedEngine) -> None:
        """Loader, operand buffers, sequencer, engine."""
        config = self.config
        m.submodules.a_buffer = a_buffer = OperandBuffer(config.rows, config.bank_words, config.block)
        m.submodules.w_buffer = w_buffer = OperandBuffer(config.output_cols, config.bank_words, config.block)
        for name, buffer in (("a", a_buffer), ("w", w_buffer)):
            operand_format = getattr(engine, f"{name}_format")
            m.d.comb += [
                buffer.write_enable.eq(getattr(loader, f"write_{name}")),
                buffer.write_group.eq(loader.write_group),
                buffer.write_address.eq(loader.write_address),
                buffer.write_data.eq(loader.write_data),
                buffer.read_enable.eq(getattr(engine, f"{name}_enable")),
                buffer.read_address.eq(getattr(engine, f"{name}_address")),
                getattr(engine, f"{name}_data").eq(buffer.read_data),
                getattr(loader, name).eq(getattr(self, name)),
                getattr(loader, f"{name}_released").eq(getattr(engine, f"released_{name}")),
                getattr(sequencer, f"{name}_loaded").eq(getattr(loader, f"{name}_loaded")),
                operand_format.signed.eq(self.descriptor[f"{name}_signed"]),
                operand_format.k.eq(self.descriptor[f"{name}_k"]),
                operand_format.threshold.eq(self.descriptor[f"{name}_threshold"]),
                getattr(loader, f"{name}_format").eq(operand_format),
            ]
        m.d.comb += [
            loader.job.eq(self.gemm),
            loader.start.eq(self.start & is_gemm),
            sequencer.job.eq(self.gemm),
            sequencer.start.eq(self.start & is_gemm),
            engine.eight_bit.eq(self.gemm.eight_bit),
            self.malformed.eq(loader.malformed),
            self.working.eq(engine.working),
            self.waits_for_operands.eq(sequencer.waits & ~engine.working),
            self.waits_for_room.eq(engine.waits_for_room),
        ]
        connect(m, sequencer.command, engine.command)

    def _load_raw(self, m: Module, is_gemm: Signal, raw_loader: RawLoader, tiles: TileBuffer) -> None:
        """The 32-bit operands of QUANTIZE and THRESHOLD_GRAD."""
        m.d.comb += [
            raw_loader.shape.eq(self.shape),
            raw_loader.x.eq(self.raw0),
            raw_loader.g.eq(self.raw1),
            raw_loader.pair.eq(self.descriptor.opcode == Opcode.THRESHOLD_GRAD),
            raw_loader.start.eq(self.start & ~is_gemm),
            raw_loader.raw_ready.eq(tiles.raw_ready),
        ]
        for name in ("raw_enable", "raw_row", "raw_part", "raw_data", "raw_done"):
            m.d.comb += getattr(tiles, name).eq(getattr(raw_loader, name))

    def _put_out(self, m: Module, engine: WideEngine | FusedEngine, tiles: TileBuffer, output: OutputStage) -> None:
        """From the array through the tile buffer to memory."""
        m.d.comb += [
            engine.credit.eq(tiles.credit),
            tiles.take.eq(engine.take),
            tiles.result_valid.eq(engine.result_valid),
            tiles.result.eq(engine.result),
            output.descriptor.eq(self.descriptor),
            output.q_max.eq(self.q_max),
            output.target.eq(self.target),
            output.raw.eq(self.raw0),
            output.shape.eq(self.shape),
            self.summary.eq(output.summary),
            self.run_overflow.eq(output.run_overflow),
        ]
        for name in ("full", "full_next", "overflow", "read_data"):
            m.d.comb += getattr(output, name).eq(getattr(tiles, name))
        for name in ("consumed", "read_enable", "read_other", "read_row", "read_part"):
            m.d.comb += getattr(tiles, name).eq(getattr(output, name))
