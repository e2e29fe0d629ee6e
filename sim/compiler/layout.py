"""Where everything of a training lies: in memory, and in NBout what stays there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES
from nibblecore.hdl.config import CambriconqConfig, whole
from nibblecore.sim.inputs import matrix
from numpy.typing import ArrayLike, NDArray

from .network import AvgPool, Conv2d, Dense, Image, Layer, MaxPool, Relu, applied, described
from .optimizers import Optimizer
from .program import CompileError, Program, Space, View

__all__ = ["Layout", "Region", "Tensor", "Unit"]


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


@dataclass
class Unit:
    """A layer and the ReLU behind it, with all that lies somewhere.

    `error` is ∂L/∂y, `columns` are a convolution's windows, a row of a matrix each; `weight` is a number in `Layout.weights`.
    """

    layer: Dense | Conv2d | MaxPool | AvgPool
    relu: bool
    inputs: Image
    output: Tensor
    error: Tensor
    columns: Tensor | None = None
    weight: int | None = None


@dataclass
class Layout:
    """The places of all that a training needs; a batch is some samples that are neighbours.

    Parameters
    ----------
    config : CambriconqConfig
    inputs : int or (int, int, int)
        Values of a sample, or height, width and channels of an image, the channels of a pixel side by side.
    layers : sequence of layers
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
    shapes : list of (int, int)
        Rows and columns of the weights, for each layer that has any; columns of a convolution are kernel row, kernel column, channel.
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
    layers: Sequence[Layer]
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
        if isinstance(self.inputs, tuple | list):
            if len(self.inputs) != 3:
                raise CompileError(f"inputs must be a number, or height, width and channels of an image, not {self.inputs!r}")
            height, width, channels = (
                whole(f"inputs: {name}", size, 1, error=CompileError)
                for name, size in zip(("height", "width", "channels"), self.inputs, strict=True)
            )
            self.inputs = height, width, channels
        else:
            self.inputs = whole("inputs", self.inputs, 1, error=CompileError)
        if not self.layers:
            raise CompileError("layers must be at least one")
        for number, layer in enumerate(self.layers):
            if not isinstance(layer, Dense | Conv2d | MaxPool | AvgPool | Relu):
                raise CompileError(f"layer {number} must be a Dense, Conv2d, MaxPool, AvgPool or Relu, not {layer!r}")
        if not isinstance(self.optimizer, Optimizer):
            raise CompileError(f"optimizer must be an Optimizer, not {self.optimizer!r}")

    def __post_init__(self) -> None:
        self._check()
        self.offsets = tuple(self.offsets) or ((0, -1) if self.bits == 4 else (0,))
        if len(self.offsets) > 4 or not all(-8 <= offset <= 7 for offset in self.offsets):
            raise CompileError(f"an SQU tries one to four candidates with offsets -8..7, not {list(self.offsets)}")
        memory = Space(self.memory_bytes, "memory", first=64)
        line = self.config.line_bytes
        shape: Image = (1, 1, self.inputs) if isinstance(self.inputs, int) else self.inputs
        self.description = described(self.inputs, self.layers)
        self.shapes: list[tuple[int, int]] = []
        self.weights: list[tuple[int, int, int]] = []
        plan: list[tuple[Dense | Conv2d | MaxPool | AvgPool, bool, Image, Image, int | None]] = []
        for number, layer in enumerate(self.layers):
            if isinstance(layer, Relu):
                if not plan:
                    raise CompileError("the first layer must not be Relu: its inputs are data")
                plan[-1] = (plan[-1][0], True, *plan[-1][2:])
                continue
            after, weights = applied(number, layer, shape)
            if weights is not None:
                self.shapes.append(weights)
                self.weights.append(self._places(memory, 4 * prod(weights)))
            plan.append((layer, False, shape, after, None if weights is None else len(self.shapes) - 1))
            shape = after
        if plan[-1][1]:
            raise CompileError("the last layer must not be Relu: its outputs go to the softmax")
        self.classes = prod(shape)
        self.data = memory.take(4 * self.samples * prod(plan[0][2]), line)
        self.labels = memory.take(4 * self.samples * self.classes, line)
        self.results = memory.take(8, line)
        first_shape = plan[0][2]
        self.source = Tensor(self.data, first_shape, self.samples, prod(first_shape), True)
        # Half of NBout for results that are wanted again, the other half to compute in.
        self.resident = Space(self.config.nbout_words // 2, "the resident half of NBout")
        outputs, errors = (
            [self._home(memory, after, product=weight is not None) for _, _, _, after, weight in plan] for _ in range(2)
        )
        self.units = []
        for (layer, relu, before, after, weight), output, error in zip(plan, outputs, errors, strict=True):
            columns = None
            if isinstance(layer, Conv2d):
                columns = self._home(memory, (after[0], after[1], layer.kernel**2 * before[2]), product=False)
            self.units.append(Unit(layer, relu, before, output, error, columns, weight))
        self._quantized: dict[str, tuple[int, int]] = {}
        self._planned: dict[str, int] | None = None
        self._end = memory
        self._see_program_room()

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

    def initial(self, samples: ArrayLike, labels: ArrayLike, weights: Sequence[ArrayLike]) -> list[tuple[int, bytes]]:
        """What memory must hold before the first step, as byte addresses with bytes; the optimizer's m and v begin as 0.

        `samples` as of `data`, or a row of numbers for each, `labels` as of `labels`, and a matrix of `shapes` for each layer that has
        weights. Raises CompileError, with the name and the first such element, for a NaN, an infinity or what FP32 cannot hold; for a
        label that is not one-hot; and for shapes that do not fit.
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
        return tuple(
            Region(f"{name} of layer {number}", at, shape)
            for number, (places, shape) in enumerate(zip(self.weights, self.shapes, strict=True))
            for name, at in zip("wmv", places, strict=True)
        )

    @property
    def regions(self) -> tuple[Region, ...]:
        found = [
            *self._learned,
            Region("inputs", self.data, (self.samples, *self.source.shape)),
            Region("labels", self.labels, (self.samples, self.classes)),
            Region("loss and accuracy", self.results, (2,)),
        ]
        for number, unit in enumerate(self.units):
            for what, tensor in (("output", unit.output), ("error", unit.error), ("windows", unit.columns)):
                if tensor is not None and tensor.memory:
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
