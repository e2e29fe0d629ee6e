"""Everything between the controller and the two DMAs: loaders, buffers, engine, quantizers, writers."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.array.sequencer import Sequencer
from nibblecore.hdl.ltoaq.array.wide_engine import WideEngine
from nibblecore.hdl.ltoaq.command.descriptor_checker import descriptor_layout
from nibblecore.hdl.ltoaq.command.job import GemmJob, MatrixShape, OperandJob, OutputJob, RawJob, TensorSummary
from nibblecore.hdl.ltoaq.fused.fused_engine import FusedEngine
from nibblecore.hdl.ltoaq.operands.loader import Loader
from nibblecore.hdl.ltoaq.operands.operand_buffer import OperandBuffer
from nibblecore.hdl.ltoaq.output.gradient_reader import GradientReader
from nibblecore.hdl.ltoaq.output.quantizer import Quantizer
from nibblecore.hdl.ltoaq.output.quantizer_setup import QuantizerSetup
from nibblecore.hdl.ltoaq.output.raw_loader import RawLoader
from nibblecore.hdl.ltoaq.output.raw_writer import RawWriter
from nibblecore.hdl.ltoaq.output.tensor_statistics import TensorStatistics
from nibblecore.hdl.ltoaq.output.tensor_writer import TensorWriter
from nibblecore.hdl.ltoaq.output.threshold_gradient import ThresholdGradient
from nibblecore.hdl.ltoaq.output.tile_buffer import TileBuffer

__all__ = ["Core"]


class Core(wiring.Component):
    """The units that carry out a command, in a clock domain whose reset the controller pulls before every command.

    Members
    -------
    descriptor, gemm, a, w, target, raw0, raw1, shape, q_max : In
        The running command, constant.
    start_gemm, start_quantize, start_gradient : In
    idle : Out
        Nothing is under way.
    malformed, run_overflow : Out
        Sticky until reset.
    summary : Out
    working, waits_for_operands, waits_for_room : Out
        For the counters.
    read_command, read_data, write_command, write_data : streams to and from the DMAs
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        command = stream.Signature(data.StructLayout({"address": 32, "beats": 16}))
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
                "start_gemm": In(1),
                "start_quantize": In(1),
                "start_gradient": In(1),
                "idle": Out(1),
                "malformed": Out(1),
                "run_overflow": Out(1),
                "summary": Out(TensorSummary),
                "working": Out(1),
                "waits_for_operands": Out(1),
                "waits_for_room": Out(1),
                "read_command": Out(command),
                "read_data": In(stream.Signature(config.bus_bits)),
                "write_command": Out(command),
                "write_data": Out(stream.Signature(data.StructLayout({"data": config.bus_bits, "strobe": config.bus_bytes}))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        gemm_runs, quantize_runs, gradient_runs = (Signal(name=f"{n}_runs") for n in ("gemm", "quantize", "gradient"))
        for runs, start in (
            (gemm_runs, self.start_gemm),
            (quantize_runs, self.start_quantize),
            (gradient_runs, self.start_gradient),
        ):
            with m.If(start):
                m.d.sync += runs.eq(1)
        raw_output, tensor_output = Signal(), Signal()
        m.d.comb += [
            raw_output.eq(gemm_runs & self.descriptor.raw_output),
            tensor_output.eq((gemm_runs & ~self.descriptor.raw_output) | quantize_runs),
        ]

        m.submodules.tiles = tiles = TileBuffer(config)
        m.submodules.tensor_writer = tensor_writer = TensorWriter(config)
        m.submodules.raw_writer = raw_writer = RawWriter(config)
        m.submodules.raw_loader = raw_loader = RawLoader(config)
        m.submodules.gradient_reader = gradient_reader = GradientReader(config, Quantizer.LATENCY)
        sequencer, loader, engine = self._product(m, tiles)

        index = sequencer.tile
        m.d.comb += [
            raw_loader.shape.eq(self.shape),
            raw_loader.x.eq(self.raw0),
            raw_loader.g.eq(self.raw1),
            raw_loader.pair.eq(gradient_runs),
            raw_loader.start.eq(self.start_quantize | self.start_gradient),
            raw_loader.raw_ready.eq(tiles.raw_ready),
            tiles.raw_enable.eq(raw_loader.raw_enable),
            tiles.raw_row.eq(raw_loader.raw_row),
            tiles.raw_part.eq(raw_loader.raw_part),
            tiles.raw_data.eq(raw_loader.raw_data),
            tiles.raw_done.eq(raw_loader.raw_done),
            # Tiles of a product are announced by the sequencer, tiles of a matrix by its loader.
            tensor_writer.tile.payload.eq(Mux(gemm_runs, index.payload, raw_loader.tile.payload)),
            tensor_writer.tile.valid.eq(tensor_output & Mux(gemm_runs, index.valid, raw_loader.tile.valid)),
            raw_writer.tile.payload.eq(index.payload),
            raw_writer.tile.valid.eq(raw_output & index.valid),
            index.ready.eq(Mux(raw_output, raw_writer.tile.ready, tensor_writer.tile.ready)),
            raw_loader.tile.ready.eq(gradient_runs | tensor_writer.tile.ready),
            tensor_writer.job.eq(self.target),
            tensor_writer.eight_bit.eq(self.descriptor.out_eight_bit),
            tensor_writer.enable.eq(tensor_output),
            tensor_writer.start.eq(self.start_gemm | self.start_quantize),
            raw_writer.job.eq(self.raw0),
            raw_writer.shape.eq(self.shape),
            raw_writer.enable.eq(raw_output),
            gradient_reader.enable.eq(gradient_runs),
            self.run_overflow.eq(tensor_writer.overflow),
            self.summary.run_beats.eq(tensor_writer.run_beats),
            self.summary.overflow.eq(tiles.overflow),
        ]
        self._readers(m, tiles, (tensor_writer, raw_writer, gradient_reader))
        self._quantizers(m, tiles, tensor_writer, gradient_reader)

        m.d.comb += self.idle.eq(
            ~(
                sequencer.busy
                | engine.busy
                | raw_loader.busy
                | tiles.full
                | tensor_writer.busy
                | raw_writer.busy
                | gradient_reader.busy
                | engine.command.valid
            )
        )
        self._buses(m, gemm_runs, raw_output, loader, raw_loader, tensor_writer, raw_writer)
        return m

    def _product(self, m: Module, tiles: TileBuffer) -> tuple[Sequencer, Loader, WideEngine | FusedEngine]:
        """Loader, operand buffers, sequencer, engine."""
        config = self.config
        m.submodules.loader = loader = Loader(config)
        m.submodules.sequencer = sequencer = Sequencer(config)
        m.submodules.engine = engine = FusedEngine(config) if config.fused else WideEngine(config)
        m.submodules.a_buffer = a_buffer = OperandBuffer(config.rows, config.bank_words, config.block)
        m.submodules.w_buffer = w_buffer = OperandBuffer(config.output_cols, config.bank_words, config.block)
        for name, buffer in (("a", a_buffer), ("w", w_buffer)):
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
            ]
            operand_format = getattr(engine, f"{name}_format")
            m.d.comb += [
                operand_format.signed.eq(self.descriptor[f"{name}_signed"]),
                operand_format.k.eq(self.descriptor[f"{name}_k"]),
                operand_format.threshold.eq(self.descriptor[f"{name}_threshold"]),
            ]
        m.d.comb += [
            loader.job.eq(self.gemm),
            loader.start.eq(self.start_gemm),
            sequencer.job.eq(self.gemm),
            sequencer.start.eq(self.start_gemm),
            engine.eight_bit.eq(self.gemm.eight_bit),
            self.malformed.eq(loader.malformed),
            engine.command.payload.eq(sequencer.command.payload),
            engine.command.valid.eq(sequencer.command.valid),
            sequencer.command.ready.eq(engine.command.ready),
            engine.credit.eq(tiles.credit),
            tiles.take.eq(engine.take),
            tiles.result_valid.eq(engine.result_valid),
            tiles.result.eq(engine.result),
            self.working.eq(engine.working),
            self.waits_for_operands.eq(sequencer.waits & ~engine.working),
            self.waits_for_room.eq(engine.waits_for_room),
        ]
        return sequencer, loader, engine

    def _readers(self, m: Module, tiles: TileBuffer, readers: tuple[TensorWriter, RawWriter, GradientReader]) -> None:
        """At most one unit reads the tile buffer during a command."""
        tensor_writer, raw_writer, gradient_reader = readers
        for reader in readers:
            m.d.comb += reader.full.eq(tiles.full)
        m.d.comb += [
            gradient_reader.full_next.eq(tiles.full_next),
            gradient_reader.read_data.eq(tiles.read_data),
            raw_writer.read_data.eq(tiles.read_data),
            tiles.read_other.eq(gradient_reader.read_other),
            tiles.consumed.eq(tensor_writer.consumed | raw_writer.consumed | gradient_reader.consumed),
            tiles.read_enable.eq(tensor_writer.read_enable | raw_writer.read_enable | gradient_reader.read_enable),
        ]
        with m.If(tensor_writer.enable):
            m.d.comb += [tiles.read_row.eq(tensor_writer.read_row), tiles.read_part.eq(tensor_writer.read_part)]
        with m.Elif(raw_writer.enable):
            m.d.comb += [tiles.read_row.eq(raw_writer.read_row), tiles.read_part.eq(raw_writer.read_part)]
        with m.Else():
            m.d.comb += [tiles.read_row.eq(gradient_reader.read_row), tiles.read_part.eq(gradient_reader.read_part)]

    def _buses(
        self,
        m: Module,
        gemm_runs: Signal,
        raw_output: Signal,
        loader: Loader,
        raw_loader: RawLoader,
        tensor_writer: TensorWriter,
        raw_writer: RawWriter,
    ) -> None:
        def choose(which: Signal, command: Any, readers: tuple[Any, Any], name: str) -> None:
            one, other = (getattr(reader, name) for reader in readers)
            m.d.comb += [
                command.payload.eq(Mux(which, one.payload, other.payload)),
                command.valid.eq(Mux(which, one.valid, other.valid)),
                one.ready.eq(which & command.ready),
                other.ready.eq(~which & command.ready),
            ]

        choose(gemm_runs, self.read_command, (loader, raw_loader), "read_command")
        choose(raw_output, self.write_command, (raw_writer, tensor_writer), "write_command")
        choose(raw_output, self.write_data, (raw_writer, tensor_writer), "write_data")
        m.d.comb += [
            loader.read_data.payload.eq(self.read_data.payload),
            loader.read_data.valid.eq(gemm_runs & self.read_data.valid),
            raw_loader.read_data.payload.eq(self.read_data.payload),
            raw_loader.read_data.valid.eq(~gemm_runs & self.read_data.valid),
            self.read_data.ready.eq(Mux(gemm_runs, loader.read_data.ready, raw_loader.read_data.ready)),
        ]

    def _quantizers(self, m: Module, tiles: TileBuffer, tensor_writer: TensorWriter, gradient_reader: GradientReader) -> None:
        """One quantizer a column; the first ones also serve the threshold's gradient."""
        cols, descriptor = self.config.output_cols, self.descriptor
        lanes = gradient_reader.lanes
        m.submodules.quantizer_setup = setup = QuantizerSetup()
        m.submodules.statistics = statistics = TensorStatistics(cols)
        m.submodules.threshold_gradient = gradient = ThresholdGradient(lanes)
        m.d.comb += [
            setup.alpha.eq(descriptor.alpha),
            setup.multiplier.eq(descriptor.multiplier),
            setup.shift.eq(descriptor.shift),
            setup.k.eq(descriptor.out_k),
            setup.q_max.eq(self.q_max),
            setup.eight_bit.eq(descriptor.out_eight_bit),
            setup.is_signed.eq(descriptor.out_signed),
            setup.relu.eq(descriptor.relu),
        ]
        entering = tensor_writer.row_valid
        quantizers = []
        for column in range(cols):
            shared = column < lanes
            quantizer = Quantizer(gradient=shared)
            m.submodules[f"quantizer{column}"] = quantizer
            quantizers.append(quantizer)
            word = tiles.read_data.word_select(column, 32)
            valid = entering
            if shared:
                word = Mux(gradient_reader.x_valid, gradient_reader.x.word_select(column, 32), word)
                valid = entering | gradient_reader.x_valid
                m.d.comb += [
                    gradient.error.word_select(column, 8).eq(quantizer.error),
                    gradient.subtract[column].eq(quantizer.subtract),
                ]
            m.d.comb += [quantizer.settings.eq(setup.settings), quantizer.i_valid.eq(valid), quantizer.i.eq(word)]
        leaving = Signal()
        m.d.comb += [
            leaving.eq(quantizers[0].o_valid & tensor_writer.enable),
            tensor_writer.i_valid.eq(leaving),
            tensor_writer.i_code.eq(Cat(q.code for q in quantizers)),
            tensor_writer.i_outlier.eq(Cat(q.outlier for q in quantizers)),
            statistics.i_valid.eq(entering),
            statistics.magnitude.eq(Cat(q.magnitude for q in quantizers)),
            statistics.o_valid.eq(leaving),
            statistics.outlier.eq(Cat(q.outlier for q in quantizers)),
            statistics.saturated.eq(Cat(q.saturated for q in quantizers)),
            # Outside the matrix g is zero, so no element need be masked.
            gradient.i_valid.eq(gradient_reader.g_valid),
            gradient.mask.eq(-1),
            gradient.g.eq(gradient_reader.g),
            self.summary.x_max.eq(statistics.x_max),
            self.summary.outliers.eq(statistics.outliers),
            self.summary.saturations.eq(statistics.saturations),
            self.summary.gradient.eq(gradient.sum),
        ]
