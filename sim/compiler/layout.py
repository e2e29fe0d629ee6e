"""Where everything of a training lies: in memory, and in NBout what stays there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES
from nibblecore.hdl.config import CambriconqConfig, whole
from nibblecore.sim.inputs import matrix
from numpy.typing import ArrayLike, NDArray

from .network import (
    INPUT,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    Graph,
    Image,
    Layer,
    MaxPool,
    Node,
    Parameter,
    Relu,
    pair,
)
from .optimizers import Optimizer
from .program import CompileError, Program, Space, View

__all__ = ["Edge", "Layout", "Region", "Rest", "Statistics", "Tensor", "Unit", "Window", "learned_names"]

_WORK = 5
"""Vectors to compute in, as long as the longest of a bias or a `BatchNorm`; a word each where there is only a number to keep."""


@dataclass(frozen=True)
class Region:
    """FP32 numbers in memory that have a meaning: first byte and shape."""

    name: str
    at: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return 4 * prod(self.shape)


@dataclass(frozen=True)
class Tensor:
    """Images of a batch, height × width × channels, one sample after the other, where they are at home.

    In NBout samples are `pitch` words apart; in memory they are neighbours, and `pitch` is a sample's size.
    """

    at: int
    shape: Image
    samples: int
    pitch: int
    memory: bool

    @property
    def size(self) -> int:
        return prod(self.shape)

    def matrix(self, first: int, count: int) -> View:
        """A row for each of some samples."""
        return View.matrix(self.at, self.samples, self.size, self.pitch, self.memory).part(0, first, count)

    def pixels(self, first: int, count: int) -> View:
        """A row for each pixel of some samples."""
        height, width, channels = self.shape
        if height * width == 1:
            return self.matrix(first, count)
        pixels = View.matrix(self.at, self.samples * height * width, channels, channels, self.memory)
        return pixels.part(0, first * height * width, count * height * width)

    def images(self) -> View:
        """Sample, row, column, channel."""
        return self.matrix(0, self.samples).split(1, *self.shape)

    def part(self, first: int, count: int, row: int, rows: int) -> "Tensor":
        """Some rows of some samples."""
        _, width, channels = self.shape
        at = first * self.pitch + row * width * channels
        return replace(self, at=self.at + at * (4 if self.memory else 1), shape=(rows, width, channels), samples=count)


@dataclass(frozen=True)
class Window:
    """What a convolution or pooling looks at: pixels of a window, from one to the next, and of padding; each of rows and of columns."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def padded(self) -> bool:
        return any(self.padding)

    @property
    def overlapping(self) -> bool:
        """Not every pixel is in one window, or some are of none."""
        return self.stride != self.size or self.padded

    @property
    def pointwise(self) -> bool:
        """A window is a pixel: nothing is to be gathered."""
        return self == Window((1, 1), (1, 1), (0, 0))


@dataclass(frozen=True)
class Rest:
    """What a gradient lacks yet: others of its shape that are added, and the ReLU with these outputs that it goes back through."""

    addends: tuple[Tensor, ...] = ()
    relu: Tensor | None = None

    @property
    def words(self) -> int:
        """Of scratch, an element."""
        return sum(addend.memory for addend in self.addends) + (self.relu is not None)


@dataclass(frozen=True)
class Edge:
    """Where the gradient goes that a unit has for one of its sources, and what makes it all of the source's gradient."""

    target: Tensor
    rest: Rest = Rest()


@dataclass(frozen=True)
class Statistics:
    """Vectors of a `BatchNorm`, a word a channel, behind each other in NBout: scale, shift, mean, 1/σ.

    `running` is the byte address of the running mean with the running σ² behind it.
    """

    at: int
    channels: int
    running: int

    def vector(self, number: int) -> View:
        return View.matrix(self.at + number * self.channels, 1, self.channels, self.channels)


@dataclass
class Unit:
    """A layer and the ReLU behind it, with all that lies somewhere.

    Members
    -------
    sources : tuple of (int or None)
        The units whose outputs it is given; None for the samples.
    error : Tensor
        ∂L/∂y, as far as the ReLU lets it pass.
    edges : tuple of (Edge or None)
        For each source; None where nothing is to be done: of samples there is no gradient, and some gradients are a unit's own `error`.
    columns : Tensor
        A convolution's windows, a row of a matrix each.
    parameters : dict
        Numbers in `Layout.weights` of what it learns.
    bias : View
        In NBout.
    """

    name: str
    layer: Layer
    relu: bool
    sources: tuple[int | None, ...]
    inputs: Image
    output: Tensor
    error: Tensor
    edges: tuple[Edge | None, ...] = ()
    window: Window | None = None
    columns: Tensor | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    bias: View | None = None
    statistics: Statistics | None = None

    @property
    def weight(self) -> int | None:
        return self.parameters.get("weight")


@dataclass
class _Plan:
    """Of a unit, before anything lies anywhere."""

    node: Node
    relu: bool
    sources: tuple[int | None, ...]
    inputs: Image
    window: Window | None

    @property
    def weighted(self) -> bool:
        return isinstance(self.node.layer, Dense | Conv2d)

    @property
    def passing(self) -> bool:
        """The gradient of each source is its own."""
        return isinstance(self.node.layer, Add | Relu)


@dataclass(frozen=True)
class _Aside:
    """The gradient that a unit has for a source which others have one for too."""

    unit: int
    source: int


@dataclass
class _Gradients:
    """Of each unit: what is added up to its error, and whose error is its own; for each pair of unit and source where the gradient goes."""

    given: list[list[int | _Aside]]
    alias: dict[int, int]
    targets: list[list[int | _Aside | None]]


def _gradients(plan: Sequence[_Plan]) -> _Gradients:
    """The reader of a unit that comes first, the last in a backward pass, completes its error; the others give theirs before."""
    left = [sum(each.sources.count(number) for each in plan) for number in range(len(plan))]
    found = _Gradients([[] for _ in plan], {}, [[] for _ in plan])
    for number in reversed(range(len(plan))):
        each = plan[number]
        for source in each.sources:
            target: int | _Aside | None = source
            if source is not None:
                left[source] -= 1
                if left[source]:
                    aside = None if each.passing else _Aside(number, source)
                    found.given[source].append(number if aside is None else aside)
                    target = aside
                elif each.passing and not found.given[source] and not plan[source].relu:
                    found.alias[source] = number
                    target = None
            found.targets[number].append(target)
    return found


@dataclass
class Layout:
    """The places of all that a training needs; a batch is some samples that are neighbours.

    Parameters
    ----------
    config : CambriconqConfig
    inputs : int or (int, int, int)
        Values of a sample, or height, width and channels of an image, the channels of a pixel side by side.
    layers : sequence of layers, or Graph
        At least one. Neither the first nor the last is a `Relu`; the last has a value for each class.
    batch : int
        Samples of a training step, at least 1.
    samples : int
        How many samples and one-hot labels memory holds.
    bits : int
        4, 8, 12 or 16, of every quantized number.
    optimizer : Optimizer
    memory_bytes : int
        Memory from address 0 that the training may use.
    offsets : sequence of int
        E²BQM: what each candidate, of up to four, adds to a block's exponent, −8..7. With −1 the step is half as long, and what is
        larger than it reaches is clipped. Empty for those of the width: 0 and −1 in 4 bits, where a step is a seventh or more of a
        block's largest value, else 0 alone, since every candidate costs a cycle a value.

    Members
    -------
    graph : Graph
    shapes : list of (int, int)
        Rows and columns of what is learned, in the order of `Graph.parameters`: for each layer that has any its weights, whose columns
        are, of a convolution, kernel row, kernel column, channel; then its bias, or a `BatchNorm`'s scale and shift, one row each.
    weights : list of (int, int, int)
        Byte addresses of w, m and v of each.
    data : int
        Byte address of the samples: little-endian FP32, (samples, height, width, channels), or (samples, inputs), in C order. The host
        writes them.
    labels : int
        Byte address of the labels, one-hot: little-endian FP32, (samples, classes) in C order, 1 for the class and 0 elsewhere. The host
        writes them.
    results : int
        Byte address of two FP32 words: loss and share of correct answers.
    program_at : int
        Byte address of a program, a multiple of 64.
    program_room : int
        Bytes for it.
    regions : tuple of Region
        What else lies where.

    Raises CompileError, with the numbers, if something does not fit memory, if a window does not fit its image, if a `Relu` is first or
    last, or if something is out of range. Results of a batch stay in NBout up to half of it, the others go to memory; the other
    half is to compute in.
    """

    config: CambriconqConfig
    inputs: int | Image
    layers: Sequence[Layer] | Graph
    batch: int
    samples: int
    bits: int
    optimizer: Optimizer
    memory_bytes: int
    offsets: Sequence[int] = ()

    def _check(self) -> None:
        """What can be said of each parameter by itself; whole numbers become ints."""
        for name in ("batch", "samples", "memory_bytes"):
            setattr(self, name, whole(name, getattr(self, name), 1, error=CompileError))
        self.bits = whole("bits", self.bits, 0, error=CompileError)
        if self.bits not in (4, 8, 12, 16):
            raise CompileError(f"bits must be 4, 8, 12 or 16, not {self.bits}")
        if isinstance(self.layers, Graph):
            self.graph = self.layers
            if Graph(self.inputs).inputs != self.graph.inputs:
                raise CompileError(f"inputs must be those of the graph, {self.graph.inputs}, not {self.inputs!r}")
        else:
            self.graph = Graph.sequence(self.inputs, self.layers)
        self.inputs = self.graph.inputs
        if not self.graph.nodes:
            raise CompileError("layers must be at least one")
        if unused := self.graph.unused:
            raise CompileError(f"the outputs of {' and '.join(unused)} go nowhere")
        if not isinstance(self.optimizer, Optimizer):
            raise CompileError(f"optimizer must be an Optimizer, not {self.optimizer!r}")

    def __post_init__(self) -> None:
        self._check()
        self.offsets = tuple(self.offsets) or ((0, -1) if self.bits == 4 else (0,))
        if len(self.offsets) > 4 or not all(-8 <= offset <= 7 for offset in self.offsets):
            raise CompileError(f"an SQU tries one to four candidates with offsets -8..7, not {list(self.offsets)}")
        memory = Space(self.memory_bytes, "memory", first=64)
        line = self.config.line_bytes
        self.description = self.graph.description
        plan = self._plan()
        parameters = self.graph.parameters
        self.shapes = [parameter.shape for parameter in parameters]
        self.weights = self._parameter_places(memory, parameters)
        self.classes = prod(self.graph.shape(self.graph.output))
        first_shape = self.graph.shape(INPUT)
        self.data = memory.take(4 * self.samples * prod(first_shape), line)
        self.labels = memory.take(4 * self.samples * self.classes, line)
        self.results = memory.take(8, line)
        self.source = Tensor(self.data, first_shape, self.samples, prod(first_shape), True)
        # Half of NBout for results that are wanted again, the other half to compute in.
        self.resident = Space(self.config.nbout_words // 2, "the resident half of NBout")
        vectors = [self._vectors(memory, each) for each in plan]
        longest = max((each.node.shape[2] for each, found in zip(plan, vectors, strict=True) if any(found)), default=0)
        if any(isinstance(each.node.layer, MaxPool) and each.window is not None and each.window.overlapping for each in plan):
            longest = max(longest, 1)
        self._work = View.matrix(self.resident.take(_WORK * longest, self.config.nbout_lanes), _WORK, longest, longest)
        outputs = [self._home(memory, each.node.shape, product=each.weighted) for each in plan]
        errors, asides, gradients = self._error_homes(memory, plan)

        def place(of: int | _Aside) -> Tensor:
            return errors[of] if isinstance(of, int) else asides[of]

        self.units = []
        for number, (each, (bias, statistics)) in enumerate(zip(plan, vectors, strict=True)):
            edges = []
            for source, target in zip(each.sources, gradients.targets[number], strict=True):
                rest = Rest()
                if source is not None and target == source:
                    given = tuple(place(of) for of in gradients.given[source])
                    rest = Rest(given, outputs[source] if plan[source].relu else None)
                edges.append(None if target is None else Edge(place(target), rest))
            columns = None
            if isinstance(each.node.layer, Conv2d) and each.window is not None and not each.window.pointwise:
                high, wide, _ = each.node.shape
                columns = self._home(memory, (high, wide, prod(each.window.size) * each.inputs[2]), product=False)
            self.units.append(
                Unit(
                    name=each.node.name,
                    layer=each.node.layer,
                    relu=each.relu,
                    sources=each.sources,
                    inputs=each.inputs,
                    output=outputs[number],
                    error=errors[number],
                    edges=tuple(edges),
                    window=each.window,
                    columns=columns,
                    parameters={p.kind: n for n, p in enumerate(parameters) if p.node == each.node.name},
                    bias=bias,
                    statistics=statistics,
                )
            )
        self._quantized: dict[str, tuple[int, int]] = {}
        self._planned: dict[str, int] | None = None
        self._end = memory
        self._see_program_room()

    def _plan(self) -> list[_Plan]:
        """A unit for each node; a `Relu` that alone reads another is that one's."""
        graph, plan = self.graph, list[_Plan]()
        readers = [source for node in graph.nodes for source in node.sources]
        units: dict[str, int | None] = {INPUT: None}
        for node in graph.nodes:
            number = units[node.sources[0]]
            if isinstance(node.layer, Relu):
                if number is None:
                    raise CompileError("the first layer must not be Relu: its inputs are data")
                if readers.count(node.sources[0]) == 1 and not plan[number].relu:
                    plan[number].relu = True
                    units[node.name] = number
                    continue
            if reason := _refused(node):
                raise CompileError(f"{node.name}: {reason}")
            units[node.name] = len(plan)
            sources = tuple(units[source] for source in node.sources)
            plan.append(_Plan(node, isinstance(node.layer, Relu), sources, graph.shape(node.sources[0]), _window(node.layer)))
        if plan[-1].relu:
            raise CompileError("the last layer must not be Relu: its outputs go to the softmax")
        return plan

    def _parameter_places(self, memory: Space, parameters: Sequence[Parameter]) -> list[tuple[int, int, int]]:
        """Matrices have pages of their own, vectors share theirs."""
        vectors = Space(1 << 62, "vectors")
        line = self.config.line_bytes
        offsets = [None if each.kind == "weight" else vectors.take(4 * prod(each.shape), line) for each in parameters]
        matrices = [
            None if offset is not None else self._places(memory, 4 * prod(each.shape))
            for each, offset in zip(parameters, offsets, strict=True)
        ]
        shared = self._places(memory, vectors.next) if vectors.next else (0, 0, 0)
        w, m, v = shared
        return [
            (w + offset, m + offset, v + offset) if matrix is None and offset is not None else matrix or shared
            for matrix, offset in zip(matrices, offsets, strict=True)
        ]

    def _vectors(self, memory: Space, plan: _Plan) -> tuple[View | None, Statistics | None]:
        """A bias, and the vectors of a `BatchNorm`."""
        layer, channels, lanes = plan.node.layer, plan.node.shape[2], self.config.nbout_lanes
        if isinstance(layer, BatchNorm):
            running = memory.take(8 * channels, self.config.line_bytes)
            return None, Statistics(self.resident.take(4 * channels, lanes), channels, running)
        if isinstance(layer, Dense | Conv2d) and layer.bias:
            return View.matrix(self.resident.take(channels, lanes), 1, channels, channels), None
        return None, None

    def work(self, number: int, channels: int) -> View:
        """A vector to compute in, the first of `_WORK` 0."""
        return self._work.part(0, number, 1).part(1, 0, channels)

    def _error_homes(self, memory: Space, plan: Sequence[_Plan]) -> tuple[list[Tensor], dict[_Aside, Tensor], _Gradients]:
        gradients = _gradients(plan)
        homes: dict[int, Tensor] = {}
        asides: dict[_Aside, Tensor] = {}
        for number, each in enumerate(plan):
            product = each.weighted or any(
                number in reader.sources and reader.window is not None and reader.window.pointwise for reader in plan
            )
            if number not in gradients.alias:
                homes[number] = self._home(memory, each.node.shape, product=product)
            for of in gradients.given[number]:
                if isinstance(of, _Aside):
                    asides[of] = self._home(memory, each.node.shape, product=product)
        for number in reversed(range(len(plan))):
            if number in gradients.alias:
                homes[number] = homes[gradients.alias[number]]
        return [homes[number] for number in range(len(plan))], asides, gradients

    def _see_program_room(self) -> None:
        self.program_at = self._end.take(0, INSTRUCTION_BYTES)
        self.program_room = self.memory_bytes - self.program_at

    def _plan_quantized(self, step: Callable[[], Program]) -> None:
        """Places for the operands that `step` would quantize beforehand, as far as memory has room for them and its program."""
        self._planned = {}
        try:
            program_bytes = len(step().binary())
        except CompileError:
            # Where it is asked for, it says so.
            self._planned = {}
        wanted, self._planned = self._planned, None
        for name, size in wanted.items():
            if self._end.next + size + self.config.line_bytes + INSTRUCTION_BYTES + program_bytes <= self.memory_bytes:
                self._quantized[name] = self._end.take(size, self.config.line_bytes), size
        self._see_program_room()

    def quantized_place(self, name: str, size: int) -> int | None:
        """Byte address of a place for an operand that is kept quantized; None if there is none, or one for less."""
        if self._planned is not None:
            self._planned[name] = max(size, self._planned.get(name, 0))
            return 0
        at, there = self._quantized.get(name, (0, 0))
        return at if size <= there else None

    def initial(
        self,
        samples: ArrayLike,
        labels: ArrayLike,
        weights: Sequence[ArrayLike],
        statistics: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ) -> list[tuple[int, bytes]]:
        """What memory must hold before the first step, as byte addresses with bytes; the optimizer's m and v begin as 0.

        `samples` as of `data`, or a row of numbers for each, `labels` as of `labels`, and a matrix of `shapes` for each layer that has
        weights. `statistics` has of each `BatchNorm` by its name the running mean and σ², by default 0 and 1. Raises CompileError, with
        the name and the first such element, for a NaN, an infinity or what FP32 cannot hold; for a label that is not one-hot; and for
        shapes that do not fit.
        """
        count = self.samples
        given = np.asarray(samples)
        flat = given.reshape(count, -1) if given.ndim > 2 and given.size == count * self.source.size else given
        values = matrix("samples", flat, (count, self.source.size), CompileError)
        classes = matrix("labels", labels, (count, self.classes), CompileError)
        if len(wrong := np.flatnonzero(np.any((classes != 0) & (classes != 1), axis=1) | (classes.sum(axis=1) != 1))):
            raise CompileError(f"labels: that of sample {wrong[0]} is not one-hot, 1 for its class and 0 elsewhere")
        if len(weights) != len(self.shapes):
            raise CompileError(f"weights must be {len(self.shapes)} matrices, one for each layer that has any, not {len(weights)}")
        found = [(self.data, values.tobytes()), (self.labels, classes.tobytes())]
        for number, (layer, shape, (w, m, v)) in enumerate(zip(weights, self.shapes, self.weights, strict=True)):
            found.append((w, matrix(f"weights {number}", layer, shape, CompileError).tobytes()))
            found += [(at, bytes(4 * prod(shape))) for at in (m, v)]
        for name, (at, channels) in self._running.items():
            mean, variance = (statistics or {}).get(name, (np.zeros(channels), np.ones(channels)))
            found += [
                (at, matrix(f"mean of {name}", mean, (channels,), CompileError).tobytes()),
                (at + 4 * channels, matrix(f"variance of {name}", variance, (channels,), CompileError).tobytes()),
            ]
        return found

    def state(self, read: Callable[[int, int], bytes]) -> dict[str, NDArray[np.float32]]:
        """Weights and moments by the names of their regions, with `read` to read memory: ``accelerator.read_memory``.

        Samples, labels and the number of the next step besides, they are all that a training goes on from.
        """
        shapes = {region.name: (region.at, region.size, region.shape) for region in self._learned}
        return {name: np.frombuffer(read(at, size), "<f4").reshape(shape) for name, (at, size, shape) in shapes.items()}

    def restored(self, state: Mapping[str, ArrayLike]) -> list[tuple[int, bytes]]:
        """What memory must hold to go on from what `state` returned, as byte addresses with bytes.

        Raises CompileError, with the name, if one is missing, has another shape or is not finite.
        """
        if missing := [region.name for region in self._learned if region.name not in state]:
            raise CompileError(f"the state has no {', '.join(missing)}")
        return [(r.at, matrix(r.name, state[r.name], r.shape, CompileError).tobytes()) for r in self._learned]

    @property
    def _learned(self) -> tuple[Region, ...]:
        parameters, norms = learned_names(self.graph)
        learned = [
            Region(f"{letter} of {name}", at, each.shape)
            for places, name, each in zip(self.weights, parameters, self.graph.parameters, strict=True)
            for letter, at in zip("wmv", places, strict=True)
        ]
        running = [
            Region(f"{what} of {norms[name]}", at + 4 * number * channels, (channels,))
            for name, (at, channels) in self._running.items()
            for number, what in enumerate(("mean", "variance"))
        ]
        return (*learned, *running)

    @property
    def _running(self) -> dict[str, tuple[int, int]]:
        """Of each `BatchNorm` by its name: where its running statistics lie, and its channels."""
        return {
            each.name: (each.statistics.running, each.statistics.channels) for each in self.units if each.statistics is not None
        }

    @property
    def regions(self) -> tuple[Region, ...]:
        found = [
            *self._learned,
            Region("inputs", self.data, (self.samples, *self.source.shape)),
            Region("labels", self.labels, (self.samples, self.classes)),
            Region("loss and accuracy", self.results, (2,)),
        ]
        for number, unit in enumerate(self.units):
            asides = [edge.target for edge in unit.edges if edge is not None]
            for what, tensor in (
                ("output", unit.output),
                ("error", unit.error),
                ("windows", unit.columns),
                *((f"gradient by unit {number} of", each) for each in asides),
            ):
                if tensor is not None and tensor.memory and all(tensor.at != region.at for region in found):
                    found.append(Region(f"{what} of unit {number}", tensor.at, (self.batch, *tensor.shape)))
        found += [Region(f"{name}, quantized", at, (size // 4,)) for name, (at, size) in self._quantized.items()]
        return (*found, Region("program", self.program_at, (self.program_room // 4,)))

    def _places(self, memory: Space, size: int) -> tuple[int, int, int]:
        """Where w, m and v of a layer lie. The engine beside the memory wants them at the start of pages of banks two apart at least."""
        dram = self.config.dram
        if dram is None:
            w, m, v = (memory.take(size, self.config.line_bytes) for _ in range(3))
            return w, m, v
        page = 4 * dram.columns
        found: list[int] = []
        for _ in range(3):
            while any((-(-memory.next // page) - other // page) % dram.banks in (0, 1, dram.banks - 1) for other in found):
                memory.next += page
            found.append(memory.take(-(-size // page) * page, page))
        if memory.next > 4 * dram.words:
            raise CompileError(
                f"weights up to {memory.next:#x} do not fit the {4 * dram.words:#x} bytes of banks that the engine beside the memory has"
            )
        w, m, v = found
        return w, m, v

    def _home(self, memory: Space, shape: Image, *, product: bool) -> Tensor:
        """In NBout while there is room, else in memory. A product needs pixels that begin where a row of NBout does."""
        lanes, size = self.config.nbout_lanes, prod(shape)
        pitch = -(-size // lanes) * lanes
        pixels_fit = pitch == size and (not product or shape[2] % lanes == 0)
        if (shape[0] * shape[1] == 1 or pixels_fit) and self.resident.next + self.batch * pitch <= self.resident.size:
            return Tensor(self.resident.take(self.batch * pitch, lanes), shape, self.batch, pitch, False)
        return Tensor(memory.take(4 * self.batch * size, self.config.line_bytes), shape, self.batch, size, True)


def learned_names(graph: Graph) -> tuple[list[str], dict[str, str]]:
    """What regions call the parameters, in their order: ``layer 2's bias``; and each `BatchNorm` by its name."""
    layers = list(dict.fromkeys(each.node for each in graph.parameters))
    numbers = {name: f"layer {number}" for number, name in enumerate(layers)}
    parameters = [numbers[each.node] + (f"'s {each.kind}" if each.kind != "weight" else "") for each in graph.parameters]
    return parameters, {node.name: numbers[node.name] for node in graph.nodes if isinstance(node.layer, BatchNorm)}


def _window(layer: Layer) -> Window | None:
    if isinstance(layer, Conv2d):
        return Window(pair(layer.kernel), pair(layer.stride), pair(layer.padding))
    if isinstance(layer, MaxPool | AvgPool):
        return Window(pair(layer.size), pair(layer.size if layer.stride is None else layer.stride), pair(layer.padding))
    return None


def _refused(node: Node) -> str | None:
    """Why the compiler does not take a layer, if it does not."""
    layer = node.layer
    if isinstance(layer, Conv2d) and layer.groups > 1:
        return "convolutions in groups are not compiled yet"
    if isinstance(layer, AvgPool) and layer.padding and not layer.padding_counts:
        return "means of as many pixels as are no padding are not compiled yet"
    if not isinstance(layer, Dense | Conv2d | BatchNorm | MaxPool | AvgPool | Relu | Add | Concat):
        return f"{type(layer).__name__} is not compiled yet"
    return None
