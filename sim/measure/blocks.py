"""Every block by name, for the tools that measure them one at a time."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any

from amaranth.hdl import Fragment
from nibblecore.hdl.boards.targets import TARGETS, build_of
from nibblecore.hdl.cambriconq.control.controller import Lane
from nibblecore.hdl.cambriconq.matrix.accumulator import RESULT_BITS
from nibblecore.hdl.cambriconq.matrix.dequantizer import EXPONENT_BITS
from nibblecore.hdl.cambriconq.matrix.matrix_results import MatrixResults
from nibblecore.hdl.cambriconq.matrix.pe_array import PeArray, sum_bits
from nibblecore.hdl.cambriconq.top import BURST, BURSTS
from nibblecore.hdl.cambriconq.vector.sfu import ROWS
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.hdl.ltoaq.output.output_stage import OutputStage
from nibblecore.sim.machines import Config, machine_of

__all__ = ["BLOCKS", "BOARD_BLOCKS", "Block", "blocks_of", "build", "numbers"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """How a block is built for a configuration.

    Parameters
    ----------
    component : str
        Class in the module that the block's name stands for; ``"Decoder.of"`` where a method of it makes the component.
    arguments : callable
        The constructor's arguments for a configuration of the machine; the configuration itself if not given.
    only : callable
        Whether a configuration has the block; all have it if not given.
    """

    component: str
    arguments: Callable[[Any], tuple[Any, ...]] = lambda config: (config,)
    only: Callable[[Any], bool] = lambda config: True


_LDQ_BLOCK = 1024
"""Values that share a tag at most."""


def _wide(config: Any) -> bool:
    return not config.fused


def _fused(config: Any) -> bool:
    return bool(config.fused)


def _paired(config: Any) -> bool:
    return bool(config.paired)


def _engine(config: Any) -> bool:
    return config.dram is not None


def _bus_update(config: Any) -> bool:
    return config.dram is None


def _array_latency(config: CambriconqConfig) -> int:
    array = PeArray(config.rows, config.cols)
    array._MustUse__silence = True  # type: ignore[attr-defined]
    return array.latency


def _arbiter(config: CambriconqConfig) -> tuple[int, int, int]:
    readers = 2 if config.dram else 3
    return config.bus_bytes, readers, readers * BURSTS


def _word_bits(config: CambriconqConfig) -> int:
    return (config.nbout_words - 1).bit_length()


BLOCKS: dict[str, dict[str, Block]] = {
    "ltoaq": {
        "arith.nibble_mac": Block(component="NibbleMac", arguments=lambda c: (), only=_fused),
        "ltoaq.array.wide_pe": Block(component="WidePe", arguments=lambda c: (c.lanes, c.paired), only=_wide),
        "ltoaq.array.wide_array": Block(
            component="WideArray", arguments=lambda c: (c.rows, c.cols, 8, c.lanes, c.paired), only=_wide
        ),
        "ltoaq.array.pair_packer": Block(component="PairPacker", arguments=lambda c: ("a",), only=_paired),
        "ltoaq.array.feeder": Block(component="Feeder", arguments=lambda c: ("a", c), only=_wide),
        "ltoaq.operands.operand_decoder": Block(component="OperandDecoder", arguments=lambda c: ("a",), only=_wide),
        "ltoaq.operands.operand_setup": Block(component="OperandSetup", arguments=lambda c: (), only=_wide),
        "ltoaq.fused.cluster": Block(component="Cluster", arguments=lambda c: (c.fifo_depth,), only=_fused),
        "ltoaq.fused.fused_array": Block(component="FusedArray", arguments=lambda c: (c.rows, c.cols, c.fifo_depth), only=_fused),
        "ltoaq.output.quantizer": Block(component="Quantizer", arguments=lambda c: ()),
        "ltoaq.output.tensor_statistics": Block(component="TensorStatistics", arguments=lambda c: (c.output_cols,)),
        "ltoaq.output.threshold_gradient": Block(component="ThresholdGradient", arguments=lambda c: (c.block,)),
        "ltoaq.operands.decoder": Block(component="Decoder.of"),
        "ltoaq.operands.residual_clip": Block(component="ResidualClip", arguments=lambda c: (c.block,)),
        "ltoaq.operands.loader": Block(component="Loader"),
        "ltoaq.output.encoder": Block(component="Encoder.of"),
        "ltoaq.output.tensor_writer": Block(component="TensorWriter"),
        "ltoaq.output.output_stage": Block(component="OutputStage"),
        "ltoaq.command.controller": Block(component="Controller", arguments=lambda c: (c, OutputStage.settle_cycles(c))),
        "bus.reader": Block(component="AxiReader", arguments=lambda c: (c.bus_bytes,)),
        "bus.writer": Block(component="AxiWriter", arguments=lambda c: (c.bus_bytes,)),
        "ltoaq.top": Block(component="Accelerator"),
    },
    "cambriconq": {
        "arith.fp32_add": Block(component="Fp32Add", arguments=lambda c: ()),
        "arith.fp32_mul": Block(component="Fp32Mul", arguments=lambda c: ()),
        "arith.fp32_rsqrt": Block(component="Fp32Rsqrt", arguments=lambda c: ()),
        "arith.int_to_fp32": Block(component="IntToFp32", arguments=lambda c: (RESULT_BITS, EXPONENT_BITS + 1)),
        "cambriconq.matrix.pe": Block(component="Pe", arguments=lambda c: ()),
        "cambriconq.matrix.pe_array": Block(component="PeArray", arguments=lambda c: (c.rows, c.cols)),
        "cambriconq.matrix.accumulator": Block(component="Accumulator", arguments=lambda c: (sum_bits(c.cols),)),
        "cambriconq.matrix.dequantizer": Block(component="Dequantizer", arguments=lambda c: ()),
        "cambriconq.matrix.matrix_sequencer": Block(
            component="MatrixSequencer", arguments=lambda c: (c.rows, c.cols, c.nbin_lines, MatrixResults.REVISIT_CYCLES)
        ),
        "cambriconq.matrix.matrix_loader": Block(component="MatrixLoader", arguments=lambda c: (c.rows, c.cols, c.sb_lines)),
        "cambriconq.matrix.matrix_results": Block(
            component="MatrixResults", arguments=lambda c: (c.rows, c.cols, c.nbout_words, _array_latency(c))
        ),
        "cambriconq.matrix.matrix_unit": Block(
            component="MatrixUnit", arguments=lambda c: (c.rows, c.cols, c.nbin_lines, c.sb_lines, c.nbout_words)
        ),
        "cambriconq.vector.sfu_operand": Block(component="SfuOperand", arguments=lambda c: ()),
        "cambriconq.vector.sfu_cubic": Block(component="SfuCubic", arguments=lambda c: ()),
        "cambriconq.vector.sfu_function": Block(component="SfuFunction", arguments=lambda c: ()),
        "cambriconq.vector.sfu": Block(component="Sfu", arguments=lambda c: ()),
        "cambriconq.vector.vector_unit": Block(
            component="VectorUnit", arguments=lambda c: (c.nbout_words, c.nbout_lanes, c.vector_lanes)
        ),
        "cambriconq.quantize.squ_lane": Block(component="SquLane", arguments=lambda c: ()),
        "cambriconq.quantize.squ_statistic": Block(component="SquStatistic", arguments=lambda c: (c.beat_words,)),
        "cambriconq.quantize.squ_setup": Block(component="SquSetup", arguments=lambda c: ()),
        "cambriconq.quantize.squ_arbiter": Block(component="SquArbiter", arguments=lambda c: (c.beat_words, _LDQ_BLOCK)),
        "cambriconq.quantize.squ": Block(component="Squ", arguments=lambda c: (c.beat_words, _LDQ_BLOCK)),
        "cambriconq.quantize.quantize_unit": Block(component="QuantizeUnit", arguments=lambda c: (c.cols, c.beat_words)),
        "cambriconq.movers.rows_walk": Block(component="RowsWalk", arguments=lambda c: (_word_bits(c), ROWS)),
        "cambriconq.movers.gather": Block(component="Gather", arguments=lambda c: (c.nbout_lanes, _word_bits(c), c.beat_words)),
        "cambriconq.movers.scatter": Block(component="Scatter", arguments=lambda c: (c.nbout_lanes, _word_bits(c), c.beat_words)),
        "cambriconq.movers.memory_gather": Block(component="MemoryGather", arguments=lambda c: (c.bus_bytes,)),
        "cambriconq.movers.memory_scatter": Block(component="MemoryScatter", arguments=lambda c: (c.bus_bytes,)),
        "cambriconq.movers.vector_loader": Block(component="VectorLoader", arguments=lambda c: (c.cols,)),
        "cambriconq.movers.vector_reader": Block(
            component="VectorReader", arguments=lambda c: (c.cols, max(c.nbin_lines, c.sb_lines))
        ),
        "cambriconq.movers.vector_storer": Block(component="VectorStorer", arguments=lambda c: (c.cols,)),
        "cambriconq.control.load_unit": Block(component="LoadUnit"),
        "cambriconq.control.store_unit": Block(component="StoreUnit"),
        "cambriconq.control.compute_unit": Block(component="ComputeUnit"),
        "cambriconq.movers.vector_turner": Block(
            component="VectorTurner", arguments=lambda c: (c.cols, max(c.nbin_lines, c.sb_lines))
        ),
        "cambriconq.buffers.requantizer": Block(component="Requantizer", arguments=lambda c: ()),
        "cambriconq.buffers.tagged_memory": Block(component="TaggedMemory", arguments=lambda c: (c.nbin_lines, 4 * c.cols, 1)),
        "cambriconq.buffers.qbc": Block(component="Qbc", arguments=lambda c: (c.nbin_lines, c.cols, 1)),
        "cambriconq.buffers.nbout": Block(component="Nbout", arguments=lambda c: (c.nbout_words, c.nbout_lanes)),
        "cambriconq.update.ndpo": Block(component="Ndpo", arguments=lambda c: ()),
        "cambriconq.update.ndp_rows": Block(component="NdpRows", arguments=lambda c: (c.dram,), only=_engine),
        "cambriconq.update.ndp_engine": Block(component="NdpEngine", arguments=lambda c: (c.dram,), only=_engine),
        "cambriconq.update.weight_updater": Block(component="WeightUpdater", arguments=lambda c: (c.dram,), only=_engine),
        "cambriconq.update.bus_updater": Block(component="BusUpdater", arguments=lambda c: (c.bus_bytes,), only=_bus_update),
        "cambriconq.program.instruction_checker": Block(component="InstructionChecker"),
        "cambriconq.program.fetcher": Block(component="Fetcher", arguments=lambda c: (c.line_bytes,)),
        "cambriconq.control.scoreboard": Block(component="Scoreboard", arguments=lambda c: (len(Lane),)),
        "cambriconq.control.controller": Block(component="Controller"),
        "bus.reader": Block(component="AxiReader", arguments=lambda c: (c.bus_bytes, BURST, BURSTS)),
        "bus.read_arbiter": Block(component="AxiReadArbiter", arguments=_arbiter),
        "bus.writer": Block(component="AxiWriter", arguments=lambda c: (c.bus_bytes,)),
        "cambriconq.core": Block(component="Core"),
        "cambriconq.top": Block(component="Accelerator"),
    },
}
"""By machine and name: ``"ltoaq.array.wide_pe"`` is in ``hdl/ltoaq/array/wide_pe.py``."""

_BOARD = TARGETS["ulx3s"]
_SDRAM_BOARD = TARGETS["ulx3s_sdram"]


def _line(config: Config) -> tuple[Any, ...]:
    registers = import_module(f"nibblecore.hdl.{machine_of(config)}.registers").REGISTERS
    return _BOARD.baud, _BOARD.memory_bytes, _BOARD.clock_hz, build_of(config), registers.address_bits


BOARD_BLOCKS: dict[str, Block] = {
    "link.serial_link": Block(component="SerialLink", arguments=_line),
    "boards.block_memory": Block(
        component="BlockMemory", arguments=lambda c: (c.bus_bytes, _BOARD.memory_bytes, getattr(c, "dram", None))
    ),
    "boards.sdram_controller": Block(component="SdramController", arguments=lambda c: _SDRAM_BOARD.timed_sdram or ()),
    "boards.sdram_memory": Block(
        component="SdramMemory", arguments=lambda c: (c.bus_bytes, _SDRAM_BOARD.memory_bytes, *(_SDRAM_BOARD.timed_sdram or ()))
    ),
}
"""What a board has beside a machine, by name, as on `ulx3s` and `ulx3s_sdram`."""


def blocks_of(config: Config, *, board: bool = False) -> dict[str, Block]:
    """The blocks of a machine of this configuration; with `board` those that a board has beside it too."""
    blocks = {name: block for name, block in BLOCKS[machine_of(config)].items() if block.only(config)}
    return blocks | BOARD_BLOCKS if board else blocks


def build(name: str, config: Config) -> Any:
    """The component of block `name` for `config`."""
    block = (BLOCKS[machine_of(config)] | BOARD_BLOCKS)[name]
    return attrgetter(block.component)(import_module(f"nibblecore.hdl.{name}"))(*block.arguments(config))


def numbers(config: Config, inside: str = "") -> dict[str, int]:
    """How many of each block are in block `inside`, the whole machine by default, counted in the elaborated design."""
    found: Counter[type] = Counter()
    todo = [Fragment.get(build(inside or f"{machine_of(config)}.top", config), None)]
    while todo:
        fragment = todo.pop()
        found.update(map(type, fragment.origins or ()))
        todo += [sub for sub, _, _ in fragment.subfragments]
    by_name = Counter({f"{kind.__module__}.{kind.__name__}": number for kind, number in found.items()})
    return {
        name: by_name[f"nibblecore.hdl.{name}.{block.component.partition('.')[0]}"] for name, block in blocks_of(config).items()
    }
