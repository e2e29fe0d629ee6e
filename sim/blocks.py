"""Every block by name, for the tools that measure them one at a time."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from amaranth.hdl import Fragment
from nibblecore.hdl.config import LtoaqConfig

__all__ = ["BLOCKS", "Block", "blocks_of", "build", "numbers"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """How a block is built for a configuration.

    Parameters
    ----------
    component : str
        Class in the module that the block's name stands for.
    arguments : callable
        The constructor's arguments for a configuration; the configuration itself if not given.
    scheme : str or None
        The one way of handling outliers in which the block exists, ``"wide"`` or ``"fused"``.
    """

    component: str
    arguments: Callable[[LtoaqConfig], tuple[Any, ...]] = lambda config: (config,)
    scheme: str | None = None


BLOCKS: dict[str, Block] = {
    "arith.nibble_mac": Block(component="NibbleMac", arguments=lambda c: (), scheme="fused"),
    "ltoaq.pe": Block(component="WidePe", arguments=lambda c: (c.lanes,), scheme="wide"),
    "ltoaq.array": Block(component="WideArray", arguments=lambda c: (c.rows, c.cols, 8, c.lanes), scheme="wide"),
    "ltoaq.operand": Block(component="OperandDecoder", arguments=lambda c: ("a",), scheme="wide"),
    "ltoaq.cluster": Block(component="Cluster", arguments=lambda c: (c.fifo_depth,), scheme="fused"),
    "ltoaq.fused_array": Block(component="FusedArray", arguments=lambda c: (c.rows, c.cols, c.fifo_depth), scheme="fused"),
    "ltoaq.quantizer": Block(component="Quantizer", arguments=lambda c: ()),
    "ltoaq.statistics": Block(component="TensorStatistics", arguments=lambda c: (c.output_cols,)),
    "ltoaq.threshold_grad": Block(component="ThresholdGradient", arguments=lambda c: (c.block,)),
    "ltoaq.loader": Block(component="Loader"),
    "ltoaq.tensor_writer": Block(component="TensorWriter"),
    "ltoaq.controller": Block(component="Controller"),
    "bus.reader": Block(component="AxiReader", arguments=lambda c: (c.bus_bytes,)),
    "bus.writer": Block(component="AxiWriter", arguments=lambda c: (c.bus_bytes,)),
    "ltoaq.top": Block(component="Accelerator"),
}
"""By name: ``"ltoaq.pe"`` is in ``hdl/ltoaq/pe.py``."""


def blocks_of(config: LtoaqConfig) -> dict[str, Block]:
    """The blocks that a machine of this configuration is made of."""
    return {name: block for name, block in BLOCKS.items() if block.scheme in (None, config.outliers)}


def build(name: str, config: LtoaqConfig) -> Any:
    """The component of block `name` for `config`."""
    block = BLOCKS[name]
    return getattr(import_module(f"nibblecore.hdl.{name}"), block.component)(*block.arguments(config))


def numbers(config: LtoaqConfig) -> dict[str, int]:
    """How many of each of its blocks a machine holds, counted in the elaborated design."""
    found: Counter[type] = Counter()
    todo = [Fragment.get(build("ltoaq.top", config), None)]
    while todo:
        fragment = todo.pop()
        found.update(map(type, fragment.origins or ()))
        todo += [sub for sub, _, _ in fragment.subfragments]
    by_name = {f"{kind.__module__}.{kind.__name__}": number for kind, number in found.items()}
    return {name: by_name[f"nibblecore.hdl.{name}.{block.component}"] for name, block in blocks_of(config).items()}
