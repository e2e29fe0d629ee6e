"""What can be trained: layers, and the graph that they are joined to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import get_args

import numpy as np
from nibblecore.hdl.config import whole
from nibblecore.sim.inputs import number
from numpy.typing import NDArray

from .program import CompileError

__all__ = [
    "INPUT",
    "Add",
    "AvgPool",
    "BatchNorm",
    "Concat",
    "Conv2d",
    "Dense",
    "Dropout",
    "Graph",
    "Image",
    "Layer",
    "LocalResponseNorm",
    "MaxPool",
    "Node",
    "Pair",
    "Parameter",
    "Relu",
    "initial_parameters",
    "pair",
]

INPUT = "input"
"""The name of what a graph is given."""
Image = tuple[int, int, int]
"""Height, width and channels."""
Pair = int | tuple[int, int]
"""Of rows and of columns; a number says both."""


def pair(value: Pair) -> tuple[int, int]:
    """Of rows and of columns."""
    return value if isinstance(value, tuple) else (value, value)


class _Checked:
    """A layer whose whole numbers are at least 1, a padding 0, and whose real ones are finite and not negative.

    A `Pair` of two equal numbers becomes one number. Raises CompileError, with the field, for other values.
    """

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            name, value = f"{type(self).__name__}: {each.name}", getattr(self, each.name)
            if each.type is bool:
                if not isinstance(value, bool):
                    raise CompileError(f"{name} must be True or False, not {value!r}")
            elif each.type is float:
                object.__setattr__(self, each.name, number(name, value, error=CompileError))
            elif not (value is None and each.default is None):
                object.__setattr__(self, each.name, _sizes(name, value, int(each.name != "padding"), each.type is int))


def _sizes(name: str, value: object, least: int, single: bool) -> Pair:
    if single or not isinstance(value, tuple | list):
        return whole(name, value, least, error=CompileError)
    if len(value) != 2:
        raise CompileError(f"{name} must be a number, or one for rows and one for columns, not {value!r}")
    rows, columns = (whole(name, each, least, error=CompileError) for each in value)
    return rows if rows == columns else (rows, columns)


@dataclass(frozen=True)
class Dense(_Checked):
    """y = W·x, W of `outputs` rows, and with `bias` a number of its own added to each output."""

    outputs: int
    bias: bool = False


@dataclass(frozen=True)
class Conv2d(_Checked):
    """`channels` kernels, `stride` pixels apart, where they lie whole in the image; with `bias` a number for each channel is added.

    `padding` pixels of zeros are put around the image before. Each of the `groups` of output channels sees its own share of the inputs'.
    """

    channels: int
    kernel: Pair
    stride: Pair = 1
    padding: Pair = 0
    groups: int = 1
    bias: bool = False


@dataclass(frozen=True)
class BatchNorm(_Checked):
    """y = scale · (x − μ) / √(σ² + epsilon) + shift, a scale and a shift for each channel, as `torch.nn.BatchNorm2d`.

    In training μ and σ² are those of all pixels of the batch, and running ones move towards them by `momentum`, to the unbiased σ²; in a test
    they are the running ones, which begin as 0 and 1.
    """

    epsilon: float = 1e-5
    momentum: float = 0.1


@dataclass(frozen=True)
class MaxPool(_Checked):
    """The largest of the pixels of each window, each channel by itself; pixels over at the edge are left out.

    Windows are `stride` apart, by default their size. `padding` pixels that are never the largest lie around the image. The gradient goes
    to the first of equals, in the order of rows.
    """

    size: Pair
    stride: Pair | None = None
    padding: Pair = 0


@dataclass(frozen=True)
class AvgPool(_Checked):
    """The mean of the pixels of each window, each channel by itself; pixels over at the edge are left out.

    Windows are `stride` apart, by default their size. `padding` pixels of 0 lie around the image, and count if `padding_counts`.
    """

    size: Pair
    stride: Pair | None = None
    padding: Pair = 0
    padding_counts: bool = True


@dataclass(frozen=True)
class LocalResponseNorm(_Checked):
    """y = x / (k + alpha/size · Σ x²)^beta, the sum over `size` neighbouring channels, as `torch.nn.LocalResponseNorm`."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class Dropout(_Checked):
    """In training each value is 0 with the probability `rate`, and else divided by 1 − `rate`; in a test it passes."""

    rate: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", number("Dropout: rate", self.rate, below=1.0, error=CompileError))


@dataclass(frozen=True)
class Relu:
    """y = max(x, 0)."""


@dataclass(frozen=True)
class Add:
    """The sum of images of one shape."""


@dataclass(frozen=True)
class Concat:
    """The channels of images of one height and width, one image's behind the other's."""


Layer = Dense | Conv2d | BatchNorm | MaxPool | AvgPool | LocalResponseNorm | Dropout | Relu | Add | Concat


@dataclass(frozen=True)
class Node:
    """A layer in its place.

    Members
    -------
    name : str
    layer : Layer
    sources : tuple of str
        Whose outputs it is given: names of nodes, or `INPUT`.
    shape : Image
        Of its outputs; (1, 1, values) where they are no image.
    """

    name: str
    layer: Layer
    sources: tuple[str, ...]
    shape: Image


@dataclass(frozen=True)
class Parameter:
    """Numbers that a network learns, as a matrix.

    Members
    -------
    node : str
    kind : str
        ``weight``: a row for each output or kernel; columns are values of a sample in C order, or kernel row, kernel column, channel.
        ``bias``, ``scale``, ``shift``: one row.
    shape : (int, int)
    """

    node: str
    kind: str
    shape: tuple[int, int]


class Graph:
    """A network under construction: each layer is added behind those that it is given the outputs of.

    The node that was added last is the network's output.

    Parameters
    ----------
    inputs : int or (int, int, int)
        Values of a sample, or height, width and channels of an image, the channels of a pixel side by side.

    Members
    -------
    nodes : list of Node
        Each behind its sources.

    Raises CompileError, with the layer, for what does not go together.
    """

    def __init__(self, inputs: int | Image) -> None:
        if isinstance(inputs, tuple | list):
            if len(inputs) != 3:
                raise CompileError(f"inputs must be a number, or height, width and channels of an image, not {inputs!r}")
            height, width, channels = (
                whole(f"inputs: {name}", size, 1, error=CompileError)
                for name, size in zip(("height", "width", "channels"), inputs, strict=True)
            )
            self.inputs: int | Image = (height, width, channels)
        else:
            self.inputs = whole("inputs", inputs, 1, error=CompileError)
        self.nodes: list[Node] = []
        self._shapes: dict[str, Image] = {INPUT: (1, 1, self.inputs) if isinstance(self.inputs, int) else self.inputs}

    @classmethod
    def sequence(cls, inputs: int | Image, layers: Sequence[Layer]) -> "Graph":
        """Each layer behind the one before."""
        graph = cls(inputs)
        for layer in layers:
            graph.add(layer)
        return graph

    def add(self, layer: Layer, *sources: str, name: str | None = None) -> str:
        """A layer behind some nodes, by default the last; returns its name, by default its number."""
        name = f"layer {len(self.nodes)}" if name is None else name
        if not isinstance(layer, Layer):
            kinds = [each.__name__ for each in get_args(Layer)]
            raise CompileError(f"{name} must be a {', '.join(kinds[:-1])} or {kinds[-1]}, not {layer!r}")
        if name in self._shapes:
            raise CompileError(f"there are two nodes of the name {name!r}")
        sources = sources or (self.output,)
        if unknown := [source for source in sources if source not in self._shapes]:
            raise CompileError(f"{name}: there is no node {unknown[0]!r} before it")
        if (len(sources) > 1) != isinstance(layer, Add | Concat):
            raise CompileError(f"{name}: {type(layer).__name__} does not take the outputs of {len(sources)}")
        shape = _shape(name, layer, [self._shapes[source] for source in sources])
        self.nodes.append(Node(name, layer, sources, shape))
        self._shapes[name] = shape
        return name

    @property
    def output(self) -> str:
        """The name of the last node."""
        return self.nodes[-1].name if self.nodes else INPUT

    def shape(self, name: str) -> Image:
        """Of the outputs of a node, or of the `INPUT`."""
        return self._shapes[name]

    @property
    def unused(self) -> list[str]:
        """Names of nodes, and of the `INPUT`, whose outputs go nowhere, but for the output's."""
        used = {source for node in self.nodes for source in node.sources}
        return [name for name in self._shapes if name not in used and name != self.output]

    @property
    def parameters(self) -> list[Parameter]:
        """Of all nodes in their order; of a node in that of `Parameter.kind`."""
        return [each for node in self.nodes for each in _parameters(node, self._shapes[node.sources[0]])]

    @property
    def description(self) -> str:
        """In words."""
        words = [str(self.inputs) if isinstance(self.inputs, int) else "×".join(map(str, self.inputs))]
        before = INPUT
        for node in self.nodes:
            plain = node.sources == (before,) or (len(node.sources) > 1 and node.sources[0] == before)
            others = node.sources[1:] if plain else node.sources
            words.append(_word(node.layer) + (f" of {' and '.join(others)}" if others and not plain else ""))
            if others and plain:
                words[-1] += f" with {' and '.join(others)}"
            before = node.name
        return ", ".join(words)


def initial_parameters(graph: Graph, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Weights that keep the size of what comes in where a ReLU follows (He's), biases and shifts of 0, scales of 1."""
    first = {"bias": 0, "shift": 0, "scale": 1}
    return [
        np.full(each.shape, first[each.kind], np.float32)
        if each.kind in first
        else (rng.standard_normal(each.shape) * np.sqrt(2 / each.shape[1])).astype(np.float32)
        for each in graph.parameters
    ]


def _parameters(node: Node, before: Image) -> Iterator[Parameter]:
    layer, channels = node.layer, node.shape[2]
    if isinstance(layer, Dense):
        yield Parameter(node.name, "weight", (layer.outputs, prod(before)))
    elif isinstance(layer, Conv2d):
        yield Parameter(node.name, "weight", (layer.channels, prod(pair(layer.kernel)) * before[2] // layer.groups))
    elif isinstance(layer, BatchNorm):
        yield Parameter(node.name, "scale", (1, channels))
        yield Parameter(node.name, "shift", (1, channels))
    if isinstance(layer, Dense | Conv2d) and layer.bias:
        yield Parameter(node.name, "bias", (1, channels))


def _by(value: Pair) -> str:
    return "×".join(map(str, pair(value)))


def _word(layer: Layer) -> str:
    if isinstance(layer, Dense):
        return f"dense {layer.outputs}" + " with bias" * layer.bias
    if isinstance(layer, Conv2d):
        return (
            f"conv {layer.channels} of {_by(layer.kernel)}"
            + (f" by {layer.stride if isinstance(layer.stride, int) else _by(layer.stride)}" if layer.stride != 1 else "")
            + (f" padded by {layer.padding if isinstance(layer.padding, int) else _by(layer.padding)}" if layer.padding else "")
            + (f" in {layer.groups} groups" if layer.groups > 1 else "")
            + " with bias" * layer.bias
        )
    if isinstance(layer, MaxPool | AvgPool):
        return (
            f"{'max' if isinstance(layer, MaxPool) else 'mean'} of {_by(layer.size)}"
            + (
                f" by {layer.stride if isinstance(layer.stride, int) else _by(layer.stride)}"
                if layer.stride not in (None, layer.size)
                else ""
            )
            + (f" padded by {layer.padding if isinstance(layer.padding, int) else _by(layer.padding)}" if layer.padding else "")
        )
    names = {Relu: "ReLU", Add: "sum", Concat: "channels", BatchNorm: "batch norm", Dropout: "dropout", LocalResponseNorm: "LRN"}
    return names[type(layer)]


def _shape(name: str, layer: Layer, before: list[Image]) -> Image:
    """Of a layer's outputs."""
    shape = before[0]
    if isinstance(layer, Dense):
        return 1, 1, layer.outputs
    if isinstance(layer, Add):
        if len(set(before)) > 1:
            raise CompileError(f"{name}: a sum of {' and '.join('×'.join(map(str, each)) for each in before)}")
        return shape
    if isinstance(layer, Concat):
        if len({each[:2] for each in before}) > 1:
            raise CompileError(f"{name}: channels of images of {' and '.join('×'.join(map(str, each[:2])) for each in before)}")
        return (*shape[:2], sum(each[2] for each in before))
    if not isinstance(layer, Conv2d | MaxPool | AvgPool):
        return shape
    if isinstance(layer, Conv2d):
        window, stride = layer.kernel, layer.stride
        if shape[2] % layer.groups or layer.channels % layer.groups:
            raise CompileError(f"{name}: {shape[2]} channels to {layer.channels} in {layer.groups} groups")
    else:
        window, stride = layer.size, layer.size if layer.stride is None else layer.stride
        if any(2 * padding > size for padding, size in zip(pair(layer.padding), pair(window), strict=True)):
            raise CompileError(f"{name}: windows of {_by(window)} pixels with more than half of them padding, {layer.padding}")
    sizes = [
        (size + 2 * padding - over) // step + 1 if over <= size + 2 * padding else 0
        for size, over, step, padding in zip(shape[:2], pair(window), pair(stride), pair(layer.padding), strict=True)
    ]
    if not all(sizes):
        apart, padding = (value if isinstance(value, int) else _by(value) for value in (stride, layer.padding))
        raise CompileError(
            f"{name}: windows of {_by(window)} pixels, {apart} apart, in images of {shape[0]}×{shape[1]}"
            + (f" padded by {padding}" if padding else "")
        )
    return sizes[0], sizes[1], layer.channels if isinstance(layer, Conv2d) else shape[2]
