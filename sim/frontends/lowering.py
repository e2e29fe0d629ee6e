"""Operators of either framework become layers; what does not is noted, and all that follows is looked at all the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

import numpy as np
from nibblecore.sim.compiler.network import (
    INPUT,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    Dropout,
    Graph,
    Image,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Relu,
)
from nibblecore.sim.compiler.program import CompileError

from .imported import Imported, Refused, Tensor, Unsupported

__all__ = ["At", "Lowering", "Two", "Value", "two"]

Two = tuple[int, int]


class At(NamedTuple):
    """Where in a model: the name that a node gets, the place and the operator as the framework calls them."""

    name: str
    place: str
    operator: str


@dataclass(frozen=True)
class Value:
    """What flows between operators: a node's outputs, in the shape that the framework has them in.

    Elements are those of (batch, channels, height, width) in C order, whatever the shape.

    Parameters
    ----------
    node : str or None
        None behind what was refused.
    shape : tuple or None
        With the batch; None where it is not known.
    whole : bool
        With the bias that was found behind the node.
    """

    node: str | None
    shape: tuple[int, ...] | None
    whole: bool = False


def _words(shape: Sequence[int] | None) -> str:
    return "×".join(map(str, shape)) if shape else "?"


class Lowering:
    """A graph under construction.

    Each operator is a method, of where it is, of what it is given and of its settings; it returns what it gives.

    Parameters
    ----------
    batch : int
        Samples of all shapes.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.refused: list[Refused] = []
        self.notes: list[str] = []
        self._graph: Graph | None = None
        self._tensors: dict[tuple[str, str], Tensor] = {}
        self._running: dict[str, tuple[Tensor, Tensor]] = {}
        self._biased: set[str] = set()
        self._output: str | None = None

    # What every operator needs.

    def refuse(self, at: At, reason: str, shape: tuple[int, ...] | None = None) -> Value:
        self.refused.append(Refused(at.place, at.operator, reason))
        return Value(None, shape)

    def note(self, at: At, text: str) -> None:
        self.notes.append(f"{at.place}: {at.operator}: {text}")

    def input(self, at: At, shape: tuple[int, ...]) -> Value:
        """A row of values or an image, behind the batch."""
        if len(shape) == 2:
            self._graph = Graph(shape[1])
        elif len(shape) == 4:
            self._graph = Graph((shape[2], shape[3], shape[1]))
        else:
            return self.refuse(at, f"of {_words(shape)}, which is neither a row of values nor an image for each sample", shape)
        return Value(INPUT, shape)

    def _image(self, x: Value) -> Image | None:
        return None if x.node is None or self._graph is None else self._graph.shape(x.node)

    def _framework(self, image: Image) -> tuple[int, ...]:
        return self.batch, image[2], image[0], image[1]

    def _as_image(self, at: At, x: Value) -> Image | None:
        """The image that a value is, in its own shape; None, and refused, where it is none, and None behind what was refused."""
        image = self._image(x)
        if image is not None and x.shape != self._framework(image):
            self.refuse(at, f"is given {_words(x.shape)} numbers, not the image of {_words(self._framework(image))}")
            return None
        if image is None and x.shape is not None and len(x.shape) != 4:
            self.refuse(at, f"is given {_words(x.shape)} numbers, not images")
        return image

    def _unique(self, name: str) -> str:
        assert self._graph is not None
        taken = {INPUT, *(node.name for node in self._graph.nodes)}
        number, found = 1, name
        while found in taken:
            found, number = f"{name}_{number}", number + 1
        return found

    def _add(
        self, at: At, layer: Callable[[], Layer], sources: Sequence[Value], shape: tuple[int, ...] | None = None, **tensors: Tensor
    ) -> Value:
        """A layer behind sources, if none of them was refused; what it learns by kind."""
        nodes = [source.node for source in sources if source.node is not None]
        for tensor in tensors.values():
            if reason := self._unfit(tensor):
                return self.refuse(at, reason, shape)
        if any(source.node in self._biased and not source.whole for source in sources):
            return self.refuse(at, "is given numbers before the addition of a bias that the graph has in one layer", shape)
        try:
            made = layer()
            if self._graph is None or len(nodes) < len(sources):
                return Value(None, shape)
            name = self._graph.add(made, *nodes, name=self._unique(at.name))
        except CompileError as error:
            return self.refuse(at, str(error).removeprefix(f"{at.name}: "), shape)
        self._tensors |= {(name, kind): tensor for kind, tensor in tensors.items()}
        return Value(name, self._framework(self._graph.shape(name)) if shape is None else shape)

    def _unfit(self, tensor: Tensor) -> str | None:
        """Why the graph cannot learn a tensor."""
        if any(tensor.name == other.name for other in self._tensors.values()):
            return f"{tensor.name} is used a second time; the graph shares no weights"
        if not tensor.learned:
            return f"{tensor.name} is no parameter, and the graph learns all its weights"
        with np.errstate(over="ignore"):
            single = tensor.array.astype(np.float32, copy=False)
        if not np.isfinite(single).all() or not np.array_equal(tensor.array, single):
            return f"{tensor.name} has numbers that FP32 does not hold, or that are not finite"
        return None

    # Layers that learn.

    def conv(
        self,
        at: At,
        x: Value,
        weight: Tensor | None,
        bias: Tensor | None,
        *,
        stride: Two,
        padding: Two | None,
        dilation: Two,
        groups: int,
        biased: bool,
    ) -> Value:
        """`weight` (channels, inputs of a group, kernel row, kernel column); None where it is computed. No `padding`: of two sizes."""
        if weight is None or (biased and bias is None):
            return self.refuse(at, "its weights are computed")
        if weight.array.ndim != 4:
            return self.refuse(at, f"a convolution in {weight.array.ndim - 2} dimensions")
        if set(dilation) != {1}:
            return self.refuse(at, f"dilation {_words(dilation)}")
        if padding is None:
            return self.refuse(at, "more padding at one side than at the other")
        image = self._as_image(at, x)
        channels, inputs, *kernel = weight.array.shape
        if image is not None and image[2] != inputs * groups:
            return self.refuse(at, f"is given {image[2]} channels, not {inputs * groups}")
        learned = {"weight": weight.permuted(0, 2, 3, 1).reshaped(channels, prod(kernel) * inputs)}
        if bias is not None:
            learned["bias"] = bias.reshaped(1, channels)
        source = x if image is not None else Value(None, None)
        size = (kernel[0], kernel[1])
        return self._add(
            at, lambda: Conv2d(channels, size, stride, padding, groups, bias=bias is not None), [source], None, **learned
        )

    def dense(self, at: At, x: Value, weight: Tensor | None, bias: Tensor | None, *, biased: bool) -> Value:
        """`weight` (outputs, inputs)."""
        if weight is None or weight.array.ndim != 2 or (biased and bias is None):
            return self.refuse(at, "a product of two numbers that are computed")
        outputs, inputs = weight.array.shape
        image = self._image(x)
        if x.shape is not None and len(x.shape) != 2:
            return self.refuse(at, f"is given {_words(x.shape)} numbers; the graph has products of a row for each sample")
        if image is not None:
            height, width, channels = image
            if prod(image) != inputs:
                return self.refuse(at, f"is given {prod(image)} values, not {inputs}")
            if height * width > 1 and channels > 1:
                weight = weight.reshaped(outputs, channels, height, width).permuted(0, 2, 3, 1).reshaped(outputs, inputs)
        learned = {"weight": weight}
        if bias is not None:
            learned["bias"] = bias.reshaped(1, outputs)
        return self._add(at, lambda: Dense(outputs, bias=bias is not None), [x], (self.batch, outputs), **learned)

    def bias(self, at: At, x: Value, bias: Tensor | None) -> Value:
        """A number that is added to each channel, right behind a layer without."""
        node = next((node for node in self._graph.nodes if node.name == x.node), None) if self._graph else None
        image = self._image(x)
        if bias is None:
            return self.refuse(at, "adds a number that is computed or is none of the model's", x.shape)
        if image is None or x.shape is None:
            return Value(None, x.shape)
        shape, channels = bias.array.shape, image[2]
        place = 1 - (len(x.shape) - len(shape))
        if bias.array.size != channels or not 0 <= place < len(shape) or shape[place] != channels or x.shape[1] != channels:
            return self.refuse(at, f"adds {_words(shape)} numbers, not one to each of {channels} channels", x.shape)
        assert self._graph is not None
        used = any(node.name in other.sources for other in self._graph.nodes) if node else False
        if node is None or not isinstance(node.layer, Dense | Conv2d) or node.layer.bias or used:
            return self.refuse(at, "adds numbers elsewhere than right behind a product without a bias", x.shape)
        if reason := self._unfit(bias):
            return self.refuse(at, reason, x.shape)
        self._graph.nodes[self._graph.nodes.index(node)] = replace(node, layer=replace(node.layer, bias=True))
        self._tensors[node.name, "bias"] = bias.reshaped(1, channels)
        self._biased.add(node.name)
        return replace(x, whole=True)

    def batch_norm(
        self,
        at: At,
        x: Value,
        scale: Tensor | None,
        shift: Tensor | None,
        mean: Tensor | None,
        variance: Tensor | None,
        *,
        epsilon: float,
        momentum: float,
    ) -> Value:
        """Of channels, which are the second axis."""
        if scale is None or shift is None:
            return self.refuse(at, "has neither scale nor shift to learn", x.shape)
        if mean is None or variance is None:
            return self.refuse(at, "keeps no running statistics", x.shape)
        image = self._image(x)
        if image is not None and x.shape is not None and (len(x.shape) < 2 or x.shape[1] != image[2]):
            return self.refuse(at, f"is given {_words(x.shape)} numbers, whose second axis is not the {image[2]} channels", x.shape)
        found = self._add(
            at,
            lambda: BatchNorm(epsilon, momentum),
            [x],
            x.shape,
            scale=scale.reshaped(1, scale.array.size),
            shift=shift.reshaped(1, shift.array.size),
        )
        if found.node is not None:
            self._running[found.node] = mean, variance
        return found

    # Layers that do not.

    def relu(self, at: At, x: Value) -> Value:
        return self._add(at, Relu, [x], x.shape)

    def dropout(self, at: At, x: Value, rate: float, *, learning: bool) -> Value:
        if rate == 0:
            return x
        if not learning:
            self.note(at, f"drops nothing in a test, rate {rate:g}: not in the graph")
            return x
        return self._add(at, lambda: Dropout(rate), [x], x.shape)

    def response_norm(self, at: At, x: Value, *, size: int, alpha: float, beta: float, k: float) -> Value:
        image = self._as_image(at, x)
        source = x if image is not None else Value(None, x.shape)
        return self._add(at, lambda: LocalResponseNorm(size, alpha, beta, k), [source], x.shape)

    def add(self, at: At, sources: Sequence[Value]) -> Value:
        shapes = [source.shape for source in sources if source.shape is not None]
        images = [image for image in map(self._image, sources) if image is not None]
        shape = shapes[0] if shapes else None
        if len(set(shapes)) > 1 or len(set(images)) > 1:
            return self.refuse(at, f"adds {' and '.join(map(_words, shapes))} numbers", shape)
        return self._add(at, Add, sources, shape)

    def concat(self, at: At, sources: Sequence[Value], axis: int) -> Value:
        shapes = [source.shape for source in sources if source.shape is not None]
        ranks = {len(shape) for shape in shapes}
        if len(ranks) > 1 or (ranks and axis % max(ranks) != 1):
            return self.refuse(
                at, f"puts {' and '.join(map(_words, shapes))} numbers behind each other along axis {axis}, not channels"
            )
        if len(sources) == 1:
            return sources[0]
        images = [image for image in map(self._image, sources) if image is not None]
        if ranks == {2}:
            # In the order of the framework a row of channels is one behind the other, and so is its image's.
            if len({image[:2] for image in images}) > 1:
                return self.refuse(
                    at, f"puts images of {' and '.join(_words(image[:2]) for image in images)} behind each other as rows"
                )
            shape = (self.batch, sum(shape[1] for shape in shapes))
            return self._add(at, Concat, sources, shape)
        whole = all(self._as_image(at, source) is not None for source in sources)
        return self._add(at, Concat, sources if whole else [Value(None, None)])

    def pool(
        self,
        at: At,
        x: Value,
        kind: type[MaxPool] | type[AvgPool],
        *,
        size: Two,
        stride: Two,
        padding: Two | None,
        dilation: Two = (1, 1),
        ceil: bool = False,
        counts: bool = True,
    ) -> Value:
        if set(dilation) != {1}:
            return self.refuse(at, f"dilation {_words(dilation)}")
        if padding is None:
            return self.refuse(at, "more padding at one side than at the other")
        image = self._as_image(at, x)
        if image is None:
            return Value(None, None)
        if ceil:
            over = [side + 2 * edge - across for side, edge, across in zip(image[:2], padding, size, strict=True)]
            more = [
                -(-rest // step) * step < side + edge and rest % step != 0
                for rest, step, side, edge in zip(over, stride, image[:2], padding, strict=True)
            ]
            if any(more):
                return self.refuse(
                    at, f"ceil_mode: windows of {_words(size)} reach out of an image of {_words(image[:2])}, {_words(stride)} apart"
                )
        if size == stride == (1, 1) and padding == (0, 0):
            return x
        if kind is MaxPool:
            return self._add(at, lambda: MaxPool(size, stride, padding), [x])
        return self._add(at, lambda: AvgPool(size, stride, padding, counts or padding == (0, 0)), [x])

    def adaptive_pool(self, at: At, x: Value, kind: type[MaxPool] | type[AvgPool], outputs: tuple[int | None, int | None]) -> Value:
        image = self._as_image(at, x)
        if image is None:
            return Value(None, None)
        wanted = [side if each is None else each for side, each in zip(image[:2], outputs, strict=True)]
        if any(side % each for side, each in zip(image[:2], wanted, strict=True)):
            return self.refuse(at, f"images of {_words(image[:2])} to {_words(wanted)}, whose windows differ in size")
        size = (image[0] // wanted[0], image[1] // wanted[1])
        return self.pool(at, x, kind, size=size, stride=size, padding=(0, 0))

    def mean(self, at: At, x: Value, axes: Sequence[int], *, kept: bool) -> Value:
        """Of all pixels."""
        image = self._image(x)
        if image is None or x.shape is None:
            return Value(None, None)
        rank = len(x.shape)
        if sorted(axis % rank for axis in axes) != list(range(2, rank)) or x.shape[1] != image[2] or rank == 2:
            return self.refuse(at, f"of {_words(x.shape)} numbers along axes {_words(list(axes))}, not of all pixels of a channel")
        pixels = replace(x, shape=self._framework(image))
        found = self.pool(at, pixels, AvgPool, size=image[:2], stride=image[:2], padding=(0, 0))
        return replace(found, shape=(self.batch, image[2], *(1 for _ in range(rank - 2))) if kept else (self.batch, image[2]))

    # What only shapes change by.

    def reshape(self, at: At, x: Value, shape: tuple[int, ...]) -> Value:
        if x.shape is None:
            return Value(None, None)
        if x.node is None:
            return Value(None, shape)
        if prod(shape) != prod(x.shape) or not shape or shape[0] != self.batch:
            return self.refuse(at, f"from {_words(x.shape)} to {_words(shape)} numbers, which mixes samples", shape)
        graph = self._graph
        if len(shape) == 4 and graph is not None and not graph.nodes and isinstance(graph.inputs, int):
            # Nothing was built on it yet: an image that was handed over as a row.
            self._graph = Graph((shape[2], shape[3], shape[1]))
        return replace(x, shape=shape)

    def permute(self, at: At, x: Value, axes: Sequence[int]) -> Value:
        """Only of axes of length 1."""
        if x.shape is None:
            return Value(None, None)
        shape = tuple(x.shape[axis] for axis in axes)
        moved = [axis for axis in axes if x.shape[axis] > 1]
        if moved != sorted(moved):
            return self.refuse(at, f"puts the axes of {_words(x.shape)} numbers in another order", shape)
        return self.reshape(at, x, shape)

    # The end.

    def softmax(self, at: At, x: Value, axis: int, *, last: bool) -> Value:
        if not last:
            return self.refuse(at, "elsewhere than at the very end", x.shape)
        if x.shape is not None and (axis % len(x.shape) != 1 or prod(x.shape[2:]) != 1):
            return self.refuse(at, f"of {_words(x.shape)} numbers along axis {axis}, not of the classes", x.shape)
        self.note(at, "the loss has it: not in the graph, whose outputs are those before it")
        return x

    def output(self, at: At, x: Value) -> None:
        image = self._image(x)
        if image is None or x.shape is None:
            return
        if x.node == INPUT:
            self.refuse(at, "is what the model is given")
        elif x.shape != self._framework(image) and image[0] * image[1] > 1 and image[2] > 1:
            self.refuse(
                at, f"an image of {_words(self._framework(image))} as {_words(x.shape)} numbers, whose order the graph has not"
            )
        elif x.node in self._biased and not x.whole:
            self.refuse(at, "is the numbers before the addition of a bias that the graph has in one layer")
        else:
            self._output = x.node

    def imported(self) -> Imported:
        """Raises `Unsupported` if anything was refused."""
        if self.refused or self._graph is None or self._output is None:
            raise Unsupported(self.refused or [Refused("the model", "output", "is nothing that the graph computes")])
        wanted = {self._output}
        for node in reversed(self._graph.nodes):
            if node.name in wanted:
                wanted |= set(node.sources)
        graph = Graph(self._graph.inputs)
        for node in self._graph.nodes:
            if node.name in wanted:
                graph.add(node.layer, *node.sources, name=node.name)
        tensors = [self._tensors[each.node, each.kind] for each in graph.parameters]
        running = {name: both for name, both in self._running.items() if name in wanted}
        return Imported(
            graph,
            [np.array(tensor.array, np.float32) for tensor in tensors],
            {name: (np.array(m.array, np.float32), np.array(v.array, np.float32)) for name, (m, v) in running.items()},
            self.notes,
            tensors,
            running,
        )


def two(value: int | Sequence[int]) -> Two:
    """Of rows and of columns."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
