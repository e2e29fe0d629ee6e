"""What becomes of finished tiles: quantized or as they are to memory, or into the threshold's gradient."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from nibblecore.hdl.bus.streams import choose, command_layout, share, write_layout
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.descriptor import Opcode
from nibblecore.hdl.ltoaq.command.descriptor_checker import descriptor_layout
from nibblecore.hdl.ltoaq.command.job import MatrixShape, OutputJob, RawJob, TensorSummary, TileIndex

from .gradient_reader import GradientReader
from .quantizer import Quantizer
from .quantizer_setup import QuantizerSetup
from .raw_writer import RawWriter
from .tensor_statistics import TensorStatistics
from .tensor_writer import TensorWriter
from .threshold_gradient import ThresholdGradient
from .tile_buffer import TileBuffer

__all__ = ["OutputStage"]


class OutputStage(wiring.Component):
    """Three readers of the tile buffer, of which the command chooses one, and the quantizers that two of them share.

    A tensor's tiles go through the quantizers to memory (`TensorWriter`), a product's 32-bit tiles straight to memory (`RawWriter`),
    pairs of tiles of x and g through the first quantizers into the threshold's gradient (`GradientReader`). Every command starts
    from reset.

    Latency: a word read from the tile buffer is in ``summary`` at most `settle_cycles` cycles later. Throughput: the reader's.

    Parameters
    ----------
    config : LtoaqConfig

    Members
    -------
    descriptor : In(descriptor_layout())
    q_max : In(8)
    target : In(OutputJob)
        Of a tensor.
    raw : In(RawJob)
    shape : In(MatrixShape)
        Of a 32-bit matrix. All five are constant while a command runs.
    tile : In(stream of TileIndex)
        One for each tile, or pair of tiles, before it is full.
    full, full_next, overflow : In(1)
    consumed, read_enable, read_other : Out(1)
    read_row : Out(⌈log2 tile⌉)
    read_part : Out(part of a row)
    read_data : In(32 * output_cols)
        To and from `TileBuffer`.
    write_command : Out(stream of `command_layout`)
    write_data : Out(stream of `write_layout`)
        To the write DMA.
    summary : Out(TensorSummary)
        Members that the command does not ask for mean nothing.
    run_overflow : Out(1)
        Sticky: a segment is longer than its stride; nothing is written after that.
    busy : Out(1)
        A tile is announced, read or written.
    """

    def __init__(self, config: LtoaqConfig) -> None:
        self.config = config
        cols = config.output_cols
        super().__init__(
            {
                "descriptor": In(descriptor_layout()),
                "q_max": In(8),
                "target": In(OutputJob),
                "raw": In(RawJob),
                "shape": In(MatrixShape),
                "tile": In(stream.Signature(TileIndex)),
                "full": In(1),
                "full_next": In(1),
                "overflow": In(1),
                "consumed": Out(1),
                "read_enable": Out(1),
                "read_other": Out(1),
                "read_row": Out((config.tile - 1).bit_length()),
                "read_part": Out(max(1, (config.tile // cols - 1).bit_length())),
                "read_data": In(32 * cols),
                "write_command": Out(stream.Signature(command_layout())),
                "write_data": Out(stream.Signature(write_layout(config.bus_bytes))),
                "summary": Out(TensorSummary),
                "run_overflow": Out(1),
                "busy": Out(1),
            }
        )

    @staticmethod
    def settle_cycles(config: LtoaqConfig) -> int:
        """Cycles on the longest way of a word from the tile buffer's read port into ``summary``."""
        return TileBuffer.READ_LATENCY + max(
            TensorStatistics.magnitude_latency(config.output_cols),
            Quantizer.LATENCY + TensorStatistics.COUNT_LATENCY,
            Quantizer.LATENCY + ThresholdGradient.LATENCY,
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, descriptor = self.config, self.descriptor
        m.submodules.tensor_writer = tensor_writer = TensorWriter(config)
        m.submodules.raw_writer = raw_writer = RawWriter(config)
        m.submodules.gradient_reader = gradient_reader = GradientReader(config, Quantizer.LATENCY)
        raw = Signal()
        m.d.comb += [
            raw.eq((descriptor.opcode == Opcode.GEMM) & descriptor.raw_output),
            tensor_writer.job.eq(self.target),
            tensor_writer.eight_bit.eq(descriptor.out_eight_bit),
            raw_writer.job.eq(self.raw),
            raw_writer.shape.eq(self.shape),
            self.run_overflow.eq(tensor_writer.overflow),
            self.summary.run_beats.eq(tensor_writer.run_beats),
            self.summary.overflow.eq(self.overflow),
            self.busy.eq(tensor_writer.busy | raw_writer.busy | gradient_reader.busy),
        ]
        choose(m, raw, [tensor_writer.write_command, raw_writer.write_command], self.write_command)
        choose(m, raw, [tensor_writer.write_data, raw_writer.write_data], self.write_data)
        self._read(m, raw, tensor_writer, raw_writer, gradient_reader)
        self._quantize(m, tensor_writer, gradient_reader)
        return m

    def _read(
        self, m: Module, raw: Signal, tensor_writer: TensorWriter, raw_writer: RawWriter, gradient_reader: GradientReader
    ) -> None:
        """The tile buffer belongs to one reader during a command."""
        readers: tuple[TensorWriter | RawWriter | GradientReader, ...] = (tensor_writer, raw_writer, gradient_reader)
        reader_number = Signal(range(len(readers)))
        m.d.comb += [
            reader_number.eq(Mux(self.descriptor.opcode == Opcode.THRESHOLD_GRAD, readers.index(gradient_reader), raw)),
            raw_writer.read_data.eq(self.read_data),
            gradient_reader.read_data.eq(self.read_data),
            *(reader.full.eq(self.full) for reader in (tensor_writer, raw_writer)),
            gradient_reader.full_next.eq(self.full_next),
            self.read_other.eq(gradient_reader.read_other),
        ]
        share(m, reader_number, self.tile, [reader.tile for reader in readers])
        with m.Switch(reader_number):
            for number, reader in enumerate(readers):
                with m.Case(number):
                    m.d.comb += [
                        reader.enable.eq(1),
                        self.consumed.eq(reader.consumed),
                        self.read_enable.eq(reader.read_enable),
                        self.read_row.eq(reader.read_row),
                        self.read_part.eq(reader.read_part),
                    ]

    def _quantize(self, m: Module, tensor_writer: TensorWriter, gradient_reader: GradientReader) -> None:
        """One quantizer a column; the first ones also serve the threshold's gradient."""
        cols, lanes, descriptor = self.config.output_cols, gradient_reader.lanes, self.descriptor
        m.submodules.quantizer_setup = setup = QuantizerSetup()
        m.submodules.statistics = statistics = TensorStatistics(cols)
        m.submodules.threshold_gradient = gradient = ThresholdGradient(lanes)
        quantizers = [Quantizer(gradient=column < lanes) for column in range(cols)]
        entering = tensor_writer.row_valid
        leaving = Signal()
        for column, quantizer in enumerate(quantizers):
            m.submodules[f"quantizer{column}"] = quantizer
            word, valid = self.read_data.word_select(column, 32), entering
            if quantizer.gradient:
                word = Mux(gradient_reader.x_valid, gradient_reader.x.word_select(column, 32), word)
                valid = entering | gradient_reader.x_valid
                m.d.comb += [
                    gradient.error.word_select(column, 8).eq(quantizer.error),
                    gradient.subtract[column].eq(quantizer.subtract),
                ]
            m.d.comb += [quantizer.settings.eq(setup.settings), quantizer.i_valid.eq(valid), quantizer.i.eq(word)]
        m.d.comb += [
            setup.alpha.eq(descriptor.alpha),
            setup.multiplier.eq(descriptor.multiplier),
            setup.shift.eq(descriptor.shift),
            setup.k.eq(descriptor.out_k),
            setup.q_max.eq(self.q_max),
            setup.eight_bit.eq(descriptor.out_eight_bit),
            setup.is_signed.eq(descriptor.out_signed),
            setup.relu.eq(descriptor.relu),
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
