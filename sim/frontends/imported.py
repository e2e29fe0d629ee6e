"""What comes of a model: a graph, its weights, and where they go back to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from nibblecore.sim.compiler.network import Graph
from nibblecore.sim.compiler.program import CompileError
from numpy.typing import ArrayLike, NDArray

__all__ = ["Imported", "Refused", "Tensor", "Unsupported", "missing"]


class Refused(NamedTuple):
    """A part of a model that the graph has no place for.

    Members
    -------
    place : str
        The module's path, or the node's name.
    operator : str
        As the framework calls it.
    reason : str
    """

    place: str
    operator: str
    reason: str


class Unsupported(CompileError):
    """All of a model that the graph has no place for, a line each.

    Members
    -------
    refused : tuple of Refused
        In the order of the model, each once.
    """

    def __init__(self, refused: Sequence[Refused]) -> None:
        self.refused = tuple(dict.fromkeys(refused))
        lines = [f"{each.place}: {each.operator}: {each.reason}" for each in self.refused]
        count = f"{len(lines)} part" + "s" * (len(lines) > 1)
        super().__init__("\n  ".join([f"the graph of layers has no place for {count} of this model:", *lines]))


def missing(name: str) -> ModuleNotFoundError:
    """What to raise where a framework is not installed."""
    return ModuleNotFoundError(f"{name} is missing; install it with: pip install 'nibblecore[torch]'", name=name)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model, by its name there, on its way to a matrix of the graph.

    Parameters
    ----------
    name : str
    array : array
        As it is now: a view of the model's.
    steps : tuple
        How it became so: for each step either the shape before and the shape after, or, with None, the permutation of the axes.
    learned : bool
        The model learns it.
    """

    name: str
    array: NDArray
    steps: tuple[tuple[tuple[int, ...] | None, tuple[int, ...]], ...] = ()
    learned: bool = True

    def reshaped(self, *shape: int) -> "Tensor":
        array = self.array.reshape(shape)
        return self if shape == self.array.shape else self._with(array, (self.array.shape, array.shape))

    def permuted(self, *axes: int) -> "Tensor":
        return self._with(self.array.transpose(axes), (None, axes))

    def _with(self, array: NDArray, step: tuple[tuple[int, ...] | None, tuple[int, ...]]) -> "Tensor":
        return Tensor(self.name, array, (*self.steps, step), self.learned)

    def returned(self, values: ArrayLike) -> NDArray[np.float32]:
        """Values in the shape of `array`, in the shape that the tensor has in the model."""
        array = np.asarray(values, np.float32)
        if array.shape != self.array.shape:
            raise ValueError(f"{self.name} comes from {self.array.shape} numbers, not from {array.shape}")
        for before, after in reversed(self.steps):
            array = array.transpose(np.argsort(after)) if before is None else array.reshape(before)
        return np.ascontiguousarray(array)


@dataclass(frozen=True)
class Imported:
    """A model as the compiler takes it.

    Members
    -------
    graph : Graph
        Nodes are called as their modules, or as the nodes of an ONNX file.
    parameters : list of arrays
        FP32, in the order and the shapes of `Graph.parameters`.
    statistics : dict of str to (array, array)
        Of each `BatchNorm` by its name the running mean and the running σ².
    notes : list of str
        What of the model is not in the graph, though outputs are the same without: a line each, with the place.
    tensors : list of Tensor
        Where each parameter comes from.
    running : dict of str to (Tensor, Tensor)
        Where the statistics come from.
    """

    graph: Graph
    parameters: list[NDArray[np.float32]]
    statistics: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    notes: list[str]
    tensors: list[Tensor]
    running: dict[str, tuple[Tensor, Tensor]]

    def samples(self, values: ArrayLike) -> NDArray:
        """Samples as the model takes them, channels first, as the graph does: channels last.

        Raises ValueError if they have another shape.
        """
        x, inputs = np.asarray(values), self.graph.inputs
        if isinstance(inputs, int):
            if x.shape[1:] != (inputs,):
                raise ValueError(f"samples must be {inputs} values each, not {'×'.join(map(str, x.shape[1:]))}")
            return x
        height, width, channels = inputs
        if x.shape[1:] not in ((channels, height, width), (prod(inputs),)):
            raise ValueError(
                f"samples must be {channels}×{height}×{width}, channels, rows and columns, not {'×'.join(map(str, x.shape[1:]))}"
            )
        return x.reshape(len(x), channels, height, width).transpose(0, 2, 3, 1)

    def returned(
        self, parameters: Sequence[ArrayLike], statistics: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Parameters and, where given, statistics under the names and in the shapes that the model has them.

        Raises ValueError for others than those of the graph.
        """
        if len(parameters) != len(self.tensors):
            raise ValueError(f"parameters must be the {len(self.tensors)} of the graph, not {len(parameters)}")
        found = {tensor.name: tensor.returned(values) for tensor, values in zip(self.tensors, parameters, strict=True)}
        for name, both in (statistics or {}).items():
            if name not in self.running:
                raise ValueError(f"there is no batch norm {name!r}")
            found |= {tensor.name: tensor.returned(values) for tensor, values in zip(self.running[name], both, strict=True)}
        return found
