"""Compiles the training of a layered network to programs of Cambricon-Q.

A `Training` lays memory out (weights with the optimizer's state, data, intermediate results, programs) and gives one program for each
step and one for a test. Every number that a program needs is in memory or computed on the machine; the host loads and reads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt, prod

from nibblecore.hdl.cambriconq.isa import INSTRUCTION_BYTES, Constant, Opcode, Unary
from nibblecore.hdl.config import CambriconqConfig

from .program import CompileError, Phase, Program, Space, View, float_bits, matrix_fields, parts

__all__ = [
    "AvgPool",
    "CompileError",
    "Conv2d",
    "Dense",
    "Layer",
    "MaxPool",
    "Optimizer",
    "Phase",
    "Program",
    "Region",
    "Relu",
    "Training",
    "float_bits",
]

_NBIN, _SB = 0, 1
_BLOCK = 1024
"""Values of a row that share a tag at most: cutting a row between blocks changes no result."""
_SMALLEST = 2.0**-149
"""x ≥ this says x > 0."""


@dataclass(frozen=True)
class Dense:
    """y = W·x, W of `outputs` rows."""

    outputs: int


@dataclass(frozen=True)
class Conv2d:
    """`channels` kernels of `kernel` × `kernel` pixels, `stride` pixels apart, where they lie whole in the image."""

    channels: int
    kernel: int
    stride: int = 1


@dataclass(frozen=True)
class MaxPool:
    """The largest of every `size` × `size` pixels, each channel by itself; pixels over at the edge are left out.

    The gradient goes to the first of equals, in the order of rows.
    """

    size: int


@dataclass(frozen=True)
class AvgPool:
    """The mean of every `size` × `size` pixels, each channel by itself; pixels over at the edge are left out."""

    size: int


@dataclass(frozen=True)
class Relu:
    """y = max(x, 0), after another layer."""


Layer = Dense | Conv2d | MaxPool | AvgPool | Relu
_Image = tuple[int, int, int]


@dataclass(frozen=True)
class Optimizer:
    """One of ``"sgd"``, ``"adagrad"``, ``"rmsprop"``, ``"adam"`` (Table IV), with its rates.

    Parameters
    ----------
    name : str
    rate : float
        η.
    beta1, beta2 : float
        Decay of m and v; RMSProp uses `beta2`.
    epsilon : float
        Added to v before its reciprocal square root.
    """

    name: str
    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 0.0

    def constants(self, step: int, scale: float = 1.0) -> dict[Constant, int]:
        """What CROSET sets for step 1, 2, …, with a rate of η · `scale`."""
        zero, one, rate = 0.0, 1.0, self.rate * scale
        if self.name == "sgd":
            c, selectors = (zero, zero, zero, zero, rate), 0
        elif self.name == "adagrad":
            c, selectors = (zero, zero, one, one, rate), 2
        elif self.name == "rmsprop":
            c, selectors = (zero, zero, self.beta2, 1 - self.beta2, rate), 2
        elif self.name == "adam":
            rate *= (1 - self.beta2**step) ** 0.5 / (1 - self.beta1**step)
            c, selectors = (self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2, rate), 3
        else:
            raise CompileError(f"optimizer {self.name!r} is not one of sgd, adagrad, rmsprop, adam")
        named = dict(zip((Constant.C1, Constant.C2, Constant.C3, Constant.C4, Constant.C5), map(float_bits, c), strict=True))
        return named | {Constant.EPSILON: float_bits(self.epsilon), Constant.OPTIMIZER: selectors}


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
class _Tensor:
    """Images of a batch, height × width × channels, one sample after the other, where they are at home.

    In NBout samples are `pitch` words apart; in memory they are neighbours, and `pitch` is a sample's size.
    """

    at: int
    shape: _Image
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

    def part(self, first: int, count: int, row: int, rows: int) -> "_Tensor":
        """Some rows of some samples."""
        _, width, channels = self.shape
        at = first * self.pitch + row * width * channels
        return replace(self, at=self.at + at * (4 if self.memory else 1), shape=(rows, width, channels), samples=count)


@dataclass
class _Unit:
    """A layer and the ReLU behind it, with all that lies somewhere.

    `error` is ∂L/∂y, `columns` are a convolution's windows, a row of a matrix each; `weight` is a number in `Training.weights`.
    """

    layer: Dense | Conv2d | MaxPool | AvgPool
    relu: bool
    inputs: _Image
    output: _Tensor
    error: _Tensor
    columns: _Tensor | None = None
    weight: int | None = None


@dataclass
class Training:
    """Programs that train a network with softmax and cross-entropy on batches that lie in memory one after the other.

    Parameters
    ----------
    config : CambriconqConfig
    inputs : int or (int, int, int)
        Values of a sample, or height, width and channels of an image, the channels of a pixel side by side.
    layers : sequence of layers
        The first is no `Relu`; the last has a value for each class.
    batch : int
    samples : int
        How many samples and one-hot labels memory holds.
    bits : int
        4, 8, 12 or 16, of every quantized number.
    optimizer : Optimizer
    memory_bytes : int

    Members
    -------
    shapes : list of (int, int)
        Rows and columns of the weights, for each layer that has any; columns of a convolution are kernel row, kernel column, channel.
    weights : list of (int, int, int)
        Byte addresses of w, m and v of each.
    data, labels, results, program_at : int
        Byte addresses: the samples, their labels, loss and share of correct answers, and a program.
    program_room : int
        Bytes for it.
    regions : tuple of Region
        What else lies where.

    Raises CompileError, with the numbers, if something does not fit memory or a buffer. Results of a batch stay in NBout up to half of it,
    the others go to memory. All is computed in parts that the other half holds: products in parts of a matrix, what concerns images in whole
    samples.
    """

    config: CambriconqConfig
    inputs: int | _Image
    layers: Sequence[Layer]
    batch: int
    samples: int
    bits: int
    optimizer: Optimizer
    memory_bytes: int

    def __post_init__(self) -> None:
        memory = Space(self.memory_bytes, "memory", first=64)
        line = self.config.line_bytes
        shape: _Image = (1, 1, self.inputs) if isinstance(self.inputs, int) else self.inputs
        self.description = _described(self.inputs, self.layers)
        self.shapes: list[tuple[int, int]] = []
        self.weights: list[tuple[int, int, int]] = []
        plan: list[tuple[Dense | Conv2d | MaxPool | AvgPool, bool, _Image, _Image, int | None]] = []
        for number, layer in enumerate(self.layers):
            if isinstance(layer, Relu):
                if not plan:
                    raise CompileError("the first layer must not be Relu: its inputs are data")
                plan[-1] = (plan[-1][0], True, *plan[-1][2:])
                continue
            after, weights = _applied(number, layer, shape)
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
        self.source = _Tensor(self.data, first_shape, self.samples, prod(first_shape), True)
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
            self.units.append(_Unit(layer, relu, before, output, error, columns, weight))
        self.program_at = memory.take(0, INSTRUCTION_BYTES)
        self.program_room = self.memory_bytes - self.program_at

    @property
    def regions(self) -> tuple[Region, ...]:
        found = [
            Region(f"{name} of layer {number}", at, shape)
            for number, (places, shape) in enumerate(zip(self.weights, self.shapes, strict=True))
            for name, at in zip("wmv", places, strict=True)
        ]
        found += [Region("inputs", self.data, (self.samples, *self.source.shape)),
                  Region("labels", self.labels, (self.samples, self.classes)), Region("loss and accuracy", self.results, (2,))]  # fmt: skip
        for number, unit in enumerate(self.units):
            for what, tensor in (("output", unit.output), ("error", unit.error), ("windows", unit.columns)):
                if tensor is not None and tensor.memory:
                    found.append(Region(f"{what} of unit {number}", tensor.at, (self.batch, *tensor.shape)))
        return (*found, Region("program", self.program_at, (self.program_room // 4,)))

    def setup(self) -> Program:
        """Sets both SQUs; ends with HALT."""
        program = Program()
        candidate = (self.bits // 4 - 1) | ((1 << self.bits - 1) - 1) << 16
        for settings, first in ((Constant.SQU, Constant.SQU_CANDIDATE0), (Constant.MEMORY_SQU, Constant.MEMORY_SQU_CANDIDATE0)):
            program.emit(Opcode.CROSET, register=settings, value=0)
            program.emit(Opcode.CROSET, register=first, value=candidate)
        program.emit(Opcode.HALT)
        return program

    def step(self, number: int, first: int, scale: float = 1.0) -> Program:
        """Training step 1, 2, … on the batch that begins at sample `first`, with η · `scale`.

        Leaves the loss and the share of correct answers before it at `results`; of several largest outputs each counts as the answer.
        """
        code = _Code(self)
        for register, value in self.optimizer.constants(number, scale).items():
            code.program.emit(Opcode.CROSET, register=register, value=value)
        code.forward(first, self.batch)
        code.loss(first, self.batch, self.batch, learning=True)
        code.results(self.batch)
        code.backward(first)
        return code.end()

    def test(self, first: int, samples: int) -> Program:
        """Forward pass alone, a batch after the other; leaves loss and share of correct answers at `results`."""
        code = _Code(self)
        for begin, count in parts(samples, self.batch):
            code.forward(first + begin, count)
            code.loss(first + begin, count, samples, learning=False)
        code.results(samples)
        return code.end()

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
        w, m, v = found
        return w, m, v

    def _home(self, memory: Space, shape: _Image, *, product: bool) -> _Tensor:
        """In NBout while there is room, else in memory. A product needs pixels that begin where a row of NBout does."""
        lanes, size = self.config.nbout_lanes, prod(shape)
        pitch = -(-size // lanes) * lanes
        pixels_fit = pitch == size and (not product or shape[2] % lanes == 0)
        if (shape[0] * shape[1] == 1 or pixels_fit) and self.resident.next + self.batch * pitch <= self.resident.size:
            return _Tensor(self.resident.take(self.batch * pitch, lanes), shape, self.batch, pitch, False)
        return _Tensor(memory.take(4 * self.batch * size, self.config.line_bytes), shape, self.batch, size, True)


def _described(inputs: int | _Image, layers: Sequence[Layer]) -> str:
    words = [str(inputs) if isinstance(inputs, int) else "×".join(map(str, inputs))]
    for layer in layers:
        if isinstance(layer, Dense):
            words.append(f"dense {layer.outputs}")
        elif isinstance(layer, Conv2d):
            words.append(
                f"conv {layer.channels} of {layer.kernel}×{layer.kernel}" + (f" by {layer.stride}" if layer.stride > 1 else "")
            )
        elif isinstance(layer, Relu):
            words.append("ReLU")
        else:
            words.append(f"{'max' if isinstance(layer, MaxPool) else 'mean'} of {layer.size}×{layer.size}")
    return ", ".join(words)


def _applied(number: int, layer: Dense | Conv2d | MaxPool | AvgPool, shape: _Image) -> tuple[_Image, tuple[int, int] | None]:
    """Shape of a layer's outputs, and of its weights."""
    if isinstance(layer, Dense):
        return (1, 1, layer.outputs), (layer.outputs, prod(shape))
    window, stride = (layer.kernel, layer.stride) if isinstance(layer, Conv2d) else (layer.size, layer.size)
    if min(window, stride) < 1 or window > min(shape[:2]):
        raise CompileError(
            f"layer {number}: windows of {window}×{window} pixels, {stride} apart, in images of {shape[0]}×{shape[1]}"
        )
    height, width = ((size - window) // stride + 1 for size in shape[:2])
    if isinstance(layer, Conv2d):
        return (height, width, layer.channels), (layer.channels, window**2 * shape[2])
    return (height, width, shape[2]), None


class _Code:
    """A program of a training under construction."""

    def __init__(self, training: Training) -> None:
        self.training, self.config = training, training.config
        self.program = Program()
        # Words that instructions spread over whole places; computed, since no instruction stores an immediate.
        at = -(-training.resident.next // self.config.nbout_lanes) * self.config.nbout_lanes
        self.zero, self.smallest, self.part, self.total, self.right = (View(at + i, (1, 1), (1, 1)) for i in range(5))
        self.scratch_at = at + 5
        self.counted = False
        # The second is 1 whatever the word held, a NaN too.
        self.program.combine(Opcode.VSTEP, self.smallest, self.smallest, self.smallest)
        self.program.combine(Opcode.VSTEP, self.smallest, self.smallest, self.smallest)
        self.program.scale(self.zero, self.smallest, 0.0)
        self.program.scale(self.smallest, self.smallest, _SMALLEST)

    def end(self) -> Program:
        self.program.emit(Opcode.HALT)
        return self.program

    # Passes -------------------------------------------------------------------------------------------------------------

    def forward(self, first: int, count: int) -> None:
        self.program.stage = Phase.FW
        x, at = self.training.source, first
        for unit in self.training.units:
            layer, y = unit.layer, unit.output
            relu = self._relu if unit.relu else None
            if isinstance(layer, Dense):
                self._result(y.matrix(0, count), x.matrix(at, count), self._weight(unit), relu)
            elif isinstance(layer, Conv2d):
                assert unit.columns is not None
                self._windows(layer, x, at, count, unit.columns)
                self._result(y.pixels(0, count), unit.columns.pixels(0, count), self._weight(unit), relu)
            else:
                self._pool(layer, x, at, count, y, unit.relu)
            x, at = y, 0

    def loss(self, first: int, count: int, samples: int, *, learning: bool) -> None:
        """Softmax and cross-entropy of some of all `samples`, added up; the gradient of the mean loss."""
        unit, classes, program = self.training.units[-1], self.training.classes, self.program
        labels = View.matrix(self.training.labels, self.training.samples, classes, classes, True).part(0, first, count)
        copied, error_copied = unit.output.memory, learning and unit.error.memory
        for begin, rows in self._pieces(count, (2 + copied) * classes + 4, "rows of the loss"):
            space = self._scratch()
            y = self._brought(space, unit.output.matrix(begin, rows))
            label = self._brought(space, labels.part(0, begin, rows))
            error = self._matrix(space, rows, classes) if error_copied or not learning else unit.error.matrix(begin, rows)
            top, total, picked, loss = (self._matrix(space, rows, 1) for _ in range(4))

            def across(column: View, rows: int = rows) -> View:
                return View(column.at, (rows, classes), (column.strides[0], 0))

            program.reduce(Opcode.HMAX, top, y)
            program.combine(Opcode.VMUL, error, y, label)
            program.reduce(Opcode.HADD, picked, error)
            program.combine(Opcode.VSTEP, loss, picked, top)
            self._count(self.right, loss)
            program.combine(Opcode.VSUB, picked, picked, top)
            program.combine(Opcode.VSUB, y, y, across(top))
            program.function(Unary.EXP, y, y)
            program.reduce(Opcode.HADD, total, y)
            program.function(Unary.LOG, loss, total)
            program.combine(Opcode.VSUB, loss, loss, picked)
            self._count(self.total, loss)
            self.counted = True
            if learning:
                program.function(Unary.RECIPROCAL, total, total)
                program.combine(Opcode.VMUL, error, y, across(total))
                program.combine(Opcode.VSUB, error, error, label)
                program.scale(error, error, 1 / samples)
                if error_copied:
                    program.copy(unit.error.matrix(begin, rows), error)

    def results(self, samples: int) -> None:
        both = View.matrix(self.total.at, 1, 2, 2)
        self.program.scale(both, both, 1 / samples)
        self.program.copy(View.matrix(self.training.results, 1, 2, 2, True), both)

    def backward(self, first: int) -> None:
        units, batch = self.training.units, self.training.batch
        for number in reversed(range(len(units))):
            unit = units[number]
            below = units[number - 1] if number else None
            x, at = (below.output, 0) if below else (self.training.source, first)
            if below is not None:
                self.program.stage = Phase.NG
                if isinstance(unit.layer, Dense):
                    self._result(below.error.matrix(0, batch), unit.error.matrix(0, batch), self._weight(unit).turned,
                                 self._mask(x.matrix(0, batch)) if below.relu else None, 1)  # fmt: skip
                elif isinstance(unit.layer, Conv2d):
                    self._unwindow(unit, unit.layer, below)
                else:
                    self._unpool(unit, unit.layer, below)
            self.program.stage = Phase.WG
            if isinstance(unit.layer, Dense):
                self._learn(unit, unit.error.matrix(0, batch).turned, x.matrix(at, batch).turned)
            elif isinstance(unit.layer, Conv2d):
                assert unit.columns is not None
                self._learn(unit, unit.error.pixels(0, batch).turned, unit.columns.pixels(0, batch).turned)

    # Places -------------------------------------------------------------------------------------------------------------

    def _weight(self, unit: _Unit) -> View:
        assert unit.weight is not None
        rows, cols = self.training.shapes[unit.weight]
        return View.matrix(self.training.weights[unit.weight][0], rows, cols, cols, True)

    def _scratch(self) -> Space:
        """The half of NBout in which nothing stays."""
        return Space(self.config.nbout_words, "NBout", first=self.scratch_at)

    def _matrix(self, space: Space, rows: int, cols: int) -> View:
        lanes = self.config.nbout_lanes
        pitch = cols if cols == 1 else -(-cols // lanes) * lanes
        return View.matrix(space.take(rows * pitch, lanes), rows, cols, pitch)

    def _brought(self, space: Space, matrix: View) -> View:
        """The matrix itself if it is in NBout, else a copy."""
        if not matrix.memory:
            return matrix
        copy = self._matrix(space, *matrix.sizes)
        self.program.copy(copy, matrix)
        return copy

    def _room(self) -> int:
        lanes = self.config.nbout_lanes
        return self.config.nbout_words - -(-self.scratch_at // lanes) * lanes

    def _fits(self, words: int) -> bool:
        """Whether there is room for a thing of so many words in up to eight matrices, each rounded to rows of NBout, as the thing is."""
        lanes = self.config.nbout_lanes
        return words + 8 * (2 * lanes - 1) <= self._room()

    def _pieces(self, count: int, words: int, what: str) -> Iterator[tuple[int, int]]:
        """`count` things of so many words each, in as few parts as the scratch half allows."""
        lanes, room = self.config.nbout_lanes, self._room()
        # What is taken is rounded to rows of NBout, of every thing and of every matrix.
        most = (room - 8 * lanes) // (words + 8 * (lanes - 1)) if words else count
        if most < 1:
            raise CompileError(
                f"NBout is too small: {what} need {words + 8 * (2 * lanes - 1)} words to compute in, {room} are free"
            )
        return parts(count, most)

    # Products -----------------------------------------------------------------------------------------------------------

    def _result(self, dest: View, a: View, w: View, finish: Callable[[View, int, int], None] | None, extra: int = 0) -> None:
        """dest = finish(a · wᵀ), in parts for which there is room.

        `finish` is given a part, its first row and its first column; it needs `extra` words an element.
        """
        for i, rows, j, cols in self._tiles(dest.sizes, dest.memory + extra):
            home = dest.part(0, i, rows).part(1, j, cols)
            self.space = self._scratch()
            tile = self._matrix(self.space, rows, cols) if dest.memory else home
            self._product(tile, a.part(0, i, rows), w.part(0, j, cols))
            if finish is not None:
                finish(tile, i, j)
            if dest.memory:
                self.program.copy(home, tile)

    def _tiles(self, sizes: tuple[int, ...], words: int) -> Iterator[tuple[int, int, int, int]]:
        """First row, rows, first column, columns of parts of a matrix with `words` words of scratch an element.

        Whole rows, unless so few fit that every operand would be quantized again and again: then squares.
        """
        rows, cols = sizes
        lanes = self.config.nbout_lanes
        room = (self._room() - 4 * lanes) // max(words, 1)
        high, wide = rows if not words else min(rows, room // (-(-cols // lanes) * lanes)), cols
        if high < min(rows, 4 * self.config.rows):
            if room < lanes:
                raise CompileError(
                    f"NBout is too small: a product needs {(words + 4) * lanes} words to compute in, {self._room()} are free"
                )
            high = min(rows, max(isqrt(room), 1), room // lanes)
            wide = room // high // lanes * lanes
        for i, i_count in parts(rows, high):
            for j, j_count in parts(cols, wide):
                yield i, i_count, j, j_count

    def _relu(self, tile: View, row: int, col: int) -> None:
        self.program.function(Unary.RELU, tile, tile)

    def _mask(self, x: View) -> Callable[[View, int, int], None]:
        """What a ReLU with the outputs `x` makes of a gradient: 0 where it let nothing pass."""

        def finish(tile: View, row: int, col: int) -> None:
            self._masked(tile, x.part(0, row, tile.sizes[0]).part(1, col, tile.sizes[1]))

        return finish

    def _masked(self, error: View, x: View) -> None:
        mask = self._matrix(self.space, *error.sizes)
        if x.memory:
            self.program.copy(mask, x)
            x = mask
        self.program.combine(Opcode.VSTEP, mask, x, self.smallest.spread(error.sizes))
        self.program.combine(Opcode.VMUL, error, error, mask)

    def _learn(self, unit: _Unit, a: View, w: View) -> None:
        """Weight gradient, straight to the optimizer."""
        assert unit.weight is not None
        cols = self.training.shapes[unit.weight][1]
        places = self.training.weights[unit.weight]
        for i, tile_rows, j, tile_cols in self._tiles(self.training.shapes[unit.weight], 1):
            tile = self._matrix(self._scratch(), tile_rows, tile_cols)
            self._product(tile, a.part(0, i, tile_rows), w.part(0, j, tile_cols))
            at = {name: place + 4 * (i * cols + j) for name, place in zip("wmv", places, strict=True)}
            self.program.emit(Opcode.WGSTORE, **matrix_fields("src", tile), **at, mem_row=4 * cols)

    def _product(self, dest: View, a: View, w: View) -> None:
        """dest = a · wᵀ in NBout, in parts that fit the buffers of operands."""
        config, slot = self.config, self.training.bits // 4
        length = self._length(a.sizes[0], w.sizes[0], a.sizes[1], slot)
        for k, k_count in parts(a.sizes[1], length):
            vectors = -(-k_count // config.cols)
            row_lines = vectors * slot
            a_rows, w_rows = config.nbin_lines // row_lines, config.sb_lines // row_lines
            # Parts of a row of results begin where a row of NBout does.
            if w_rows < w.sizes[0]:
                w_rows -= w_rows % config.nbout_lanes
            a_part, w_part = a.part(1, k, k_count), w.part(1, k, k_count)
            for j, w_count in parts(w.sizes[0], w_rows):
                self._fetch(_SB, w_part.part(0, j, w_count), slot)
                for i, a_count in parts(a.sizes[0], a_rows):
                    if j == 0 or a.sizes[0] > a_rows:
                        self._fetch(_NBIN, a_part.part(0, i, a_count), slot)
                    self.program.emit(Opcode.MM, accumulate=int(k > 0), group=min(4 // slot, 1 << (vectors - 1).bit_length()),
                                      rows=a_count, cols=w_count, dest=dest.at + i * dest.strides[0] + j, dest_row=dest.strides[0],
                                      a=0, a_row=row_lines, w=0, w_row=row_lines, a_slot=slot, w_slot=slot, vectors=vectors)  # fmt: skip

    def _length(self, a_rows: int, w_rows: int, length: int, slot: int) -> int:
        """Values of a row that are multiplied at a time: all, if enough rows fit the buffers, else whole blocks, else what fits."""
        config = self.config

        def fitting(a_wanted: int, w_wanted: int) -> int:
            lines = min(config.nbin_lines // min(a_rows, a_wanted), config.sb_lines // min(w_rows, w_wanted))
            return lines // slot * config.cols

        good, least = fitting(config.rows, config.rows), fitting(1, config.nbout_lanes)
        block = min(good, (1 << 16) - 1) // _BLOCK * _BLOCK
        if block:
            return min(length, block) if length > good or length >= 1 << 16 else length
        if length <= least:
            return length
        if not least:
            raise CompileError(
                f"vectors of {slot} lines, {config.nbout_lanes} rows of weights: NBin has {config.nbin_lines} lines, SB {config.sb_lines}"
            )
        return least

    def _fetch(self, side: int, rows: View, slot: int) -> None:
        opcode = Opcode.QLOAD if rows.memory else Opcode.QMOVE
        self.program.emit(opcode, side=side, slot=slot, dest=0, **matrix_fields("src", rows))

    # Images -------------------------------------------------------------------------------------------------------------

    def _image_pieces(self, count: int, rows: int, words: Callable[[int], int], what: str) -> list[tuple[int, int, int, int]]:
        """First sample, samples, first row and rows of pieces for which there is room: whole samples if possible, else rows of one.

        `words` says what some of the `rows` of a sample need.
        """
        if self._fits(words(rows)):
            return [(first, samples, 0, rows) for first, samples in self._pieces(count, words(rows), what)]
        high = next((high for high in range(rows - 1, 0, -1) if self._fits(words(high))), 0)
        if not high:
            # Says so.
            self._pieces(count, words(1), what)
        return [(first, 1, row, high_here) for first in range(count) for row, high_here in parts(rows, high)]

    def _held(self, tensor: _Tensor, *, load: bool) -> _Tensor:
        """A part of a tensor in NBout: where it is, or in scratch, with what memory holds if `load`."""
        if not tensor.memory:
            return tensor
        held = self._matrix(self.space, tensor.samples, tensor.size)
        if load:
            self.program.copy(held, tensor.matrix(0, tensor.samples))
        return replace(tensor, at=held.at, pitch=held.strides[0], memory=False)

    def _kept(self, tensor: _Tensor, held: _Tensor) -> None:
        """What was computed goes where it is at home."""
        if tensor.memory:
            self.program.copy(tensor.matrix(0, tensor.samples), held.matrix(0, held.samples))

    def _clear(self, tensor: _Tensor) -> None:
        matrix = tensor.matrix(0, tensor.samples)
        self.program.copy(matrix, self.zero.spread(matrix.sizes))

    def _clear_all(self, tensor: _Tensor) -> None:
        """The same wherever it is at home."""
        for place in self._image_pieces(
            tensor.samples, tensor.shape[0], lambda rows: tensor.memory * _words(tensor, rows), "a row of an image"
        ):
            self.space = self._scratch()
            part = tensor.part(*place)
            held = self._held(part, load=False)
            self._clear(held)
            self._kept(part, held)

    def _windows(self, layer: Conv2d, x: _Tensor, at: int, count: int, columns: _Tensor) -> None:
        """The windows of images, a row of a matrix each."""

        def words(rows: int) -> int:
            return x.memory * _words(x, _under(layer, rows)) + columns.memory * _words(columns, rows)

        for first, samples, row, rows in self._image_pieces(count, columns.shape[0], words, "a row of windows"):
            self.space = self._scratch()
            source = self._held(x.part(at + first, samples, row * layer.stride, _under(layer, rows)), load=True)
            target = columns.part(first, samples, row, rows)
            dest = self._held(target, load=False)
            self.program.copy(_pixel_windows(dest, layer), _image_windows(source, dest, layer))
            self._kept(target, dest)

    def _unwindow(self, unit: _Unit, layer: Conv2d, below: _Unit) -> None:
        """Neuron gradient of a convolution: that of its windows, added up pixel by pixel."""
        assert unit.columns is not None
        windows, dx = unit.columns, below.error
        height, width, values = windows.shape
        lanes = self.config.nbout_lanes
        wide = width * -(-values // lanes) * lanes

        def words(rows: int) -> int:
            return rows * wide + (dx.memory + below.relu * (rows == height)) * _words(
                dx, _under(layer, rows) if rows < height else dx.shape[0]
            )

        pieces = self._image_pieces(self.training.batch, height, words, "the gradient of a row of windows")
        whole = all(rows == height for _, _, _, rows in pieces)
        if not whole:
            self._clear_all(dx)
        # The last rows first: so a pixel's parts come in the order of kernel rows, whatever the pieces.
        for first, samples, row, rows in sorted(pieces, key=lambda piece: (piece[0], -piece[2])):
            self.space = self._scratch()
            gradient = self._matrix(self.space, samples * rows * width, values)
            error = unit.error.part(first, samples, row, rows)
            self._product(gradient, error.pixels(0, samples), self._weight(unit).turned)
            target = (
                dx.part(first, samples, 0, dx.shape[0]) if whole else dx.part(first, 1, row * layer.stride, _under(layer, rows))
            )
            held = self._held(target, load=not whole)
            if whole:
                self._clear(held)
            self._add_windows(gradient.split(0, samples, rows, width), held, replace(windows, shape=(rows, width, values)), layer)
            if whole and below.relu:
                self._masked(held.matrix(0, samples), below.output.matrix(first, samples))
            self._kept(target, held)
        if not whole and below.relu:
            self._mask_all(below)

    def _mask_all(self, unit: _Unit) -> None:
        """The error of a unit where its ReLU let something pass."""
        y, error = unit.output, unit.error

        def words(rows: int) -> int:
            return (error.memory + 1) * _words(error, rows)

        for place in self._image_pieces(error.samples, error.shape[0], words, "a row of an image"):
            self.space = self._scratch()
            part = error.part(*place)
            held = self._held(part, load=True)
            self._masked(held.matrix(0, held.samples), y.part(*place).matrix(0, held.samples))
            self._kept(part, held)

    def _add_windows(self, gradient: View, image: _Tensor, windows: _Tensor, layer: Conv2d) -> None:
        kernel, channels = layer.kernel, image.shape[2]
        parted = gradient.split(3, kernel, kernel, channels)
        target = _image_windows(image, windows, layer).split(4, kernel, channels)
        for i in range(kernel):
            for j in range(kernel):
                pixel, part = target.part(3, i, 1).part(4, j, 1), parted.part(3, i, 1).part(4, j, 1)
                self.program.combine(Opcode.VADD, pixel, pixel, part)

    def _pool(self, layer: MaxPool | AvgPool, x: _Tensor, at: int, count: int, y: _Tensor, relu: bool) -> None:
        def words(rows: int) -> int:
            return x.memory * _words(x, rows * layer.size) + y.memory * _words(y, rows)

        for first, samples, row, rows in self._image_pieces(count, y.shape[0], words, "a row of a pooled image"):
            self.space = self._scratch()
            target = y.part(first, samples, row, rows)
            held = self._held(target, load=False)
            dest = held.images()
            source = x.part(at + first, samples, row * layer.size, rows * layer.size)
            pixels = _pooled_pixels(self._held(source, load=True), held, layer)
            if isinstance(layer, MaxPool):
                self._chain(Opcode.VMAX, dest, pixels)
            else:
                self._chain(Opcode.VADD, dest, pixels)
                self.program.scale(dest, dest, 1 / layer.size**2)
            if relu:
                self.program.function(Unary.RELU, dest, dest)
            self._kept(target, held)

    def _chain(self, opcode: Opcode, dest: View, operands: list[View]) -> None:
        total = operands[0]
        for operand in operands[1:]:
            self.program.combine(opcode, dest, total, operand)
            total = dest
        if len(operands) == 1:
            self.program.copy(dest, total)

    def _unpool(self, unit: _Unit, layer: MaxPool | AvgPool, below: _Unit) -> None:
        """Neuron gradient of pooling. Where a ReLU follows, what it cut off has no gradient, so its output stands for the maximum."""
        x, y, dy, dx = below.output, unit.output, unit.error, below.error
        largest = isinstance(layer, MaxPool)
        height = y.shape[0]
        left_over = any(pooled * layer.size < size for pooled, size in zip(y.shape[:2], x.shape[:2], strict=True))

        def over(row: int, rows: int) -> int:
            """Rows of the image that belong to rows of the pooled one: to the last also those that are left out."""
            return x.shape[0] - row * layer.size if row + rows == height else rows * layer.size

        def words(rows: int) -> int:
            pooled, pixels = _words(y, rows), _words(x, over(height - rows, rows))
            return (dy.memory + largest * (2 + y.memory)) * pooled + (dx.memory + below.relu + largest * x.memory) * pixels

        for first, samples, row, rows in self._image_pieces(
            self.training.batch, height, words, "the gradient of a row of a pooled image"
        ):
            self.space = self._scratch()
            place = first, samples, row * layer.size, over(row, rows)
            held = self._held(dx.part(*place), load=False)
            if left_over:
                self._clear(held)
            error = self._held(dy.part(first, samples, row, rows), load=True)
            gradients = _pooled_pixels(held, error, layer)
            if largest:
                pixels = _pooled_pixels(self._held(x.part(*place), load=True), error, layer)
                self._to_largest(
                    gradients, pixels, self._held(y.part(first, samples, row, rows), load=True).images(), error.images()
                )
            else:
                self.program.scale(gradients[0], error.images(), 1 / layer.size**2)
                for gradient in gradients[1:]:
                    self.program.copy(gradient, gradients[0])
            if below.relu:
                self._masked(held.matrix(0, samples), x.part(*place).matrix(0, samples))
            self._kept(dx.part(*place), held)

    def _to_largest(self, gradients: list[View], pixels: list[View], largest: View, error: View) -> None:
        """The error goes to the first pixel that is the largest; what is left of it, all or nothing, on to the next."""
        samples, size = error.sizes[0], prod(error.sizes[1:])
        rest, hit = (self._matrix(self.space, samples, size).split(1, *error.sizes[1:]) for _ in range(2))
        left = error
        for gradient, pixel in zip(gradients[:-1], pixels[:-1], strict=True):
            self.program.combine(Opcode.VSTEP, hit, pixel, largest)
            self.program.combine(Opcode.VMUL, gradient, hit, left)
            self.program.combine(Opcode.VSUB, rest, left, gradient)
            left = rest
        self.program.copy(gradients[-1], left)

    def _count(self, total: View, column: View) -> None:
        """Adds a column up, to what was counted before."""
        if not self.counted:
            self.program.reduce(Opcode.HADD, total, column.turned)
            return
        self.program.reduce(Opcode.HADD, self.part, column.turned)
        self.program.combine(Opcode.VADD, total, total, self.part)


def _words(tensor: _Tensor, rows: int) -> int:
    """Of some rows of an image."""
    return rows * tensor.shape[1] * tensor.shape[2]


def _under(layer: Conv2d, rows: int) -> int:
    """Rows of an image that lie under some rows of windows."""
    return (rows - 1) * layer.stride + layer.kernel


def _pixel_windows(columns: _Tensor, layer: Conv2d) -> View:
    """Sample, row, column, kernel row, and kernel column with channel, of a matrix of windows."""
    return columns.images().split(3, layer.kernel, columns.shape[2] // layer.kernel)


def _image_windows(image: _Tensor, columns: _Tensor, layer: Conv2d) -> View:
    """The same of the images: a pixel is in several windows."""
    view = image.images()
    sample, row, column, channel = view.strides
    return View(view.at, (image.samples, *columns.shape[:2], layer.kernel, layer.kernel * image.shape[2]),
                (sample, layer.stride * row, layer.stride * column, row, channel))  # fmt: skip


def _pooled_pixels(image: _Tensor, pooled: _Tensor, layer: MaxPool | AvgPool) -> list[View]:
    """For every place in a pooling window the pixels at it, as images of the pooled size."""
    view = image.images()
    sample, row, column, channel = view.strides
    sizes, strides = (image.samples, *pooled.shape), (sample, layer.size * row, layer.size * column, channel)
    return [View(view.at + i * row + j * column, sizes, strides) for i in range(layer.size) for j in range(layer.size)]
