"""Compiles the training of a layered network to programs of Cambricon-Q.

A `Training` lays memory out (weights with the optimizer's state, data, programs) and gives one program for each step and one for a
test. Every number that a program needs is in memory or computed on the machine; the host loads and reads.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from nibblecore.hdl.cambriconq.isa import INSTRUCTION_BYTES, Constant, Instruction, Opcode, Unary, encode
from nibblecore.hdl.config import CambriconqConfig

__all__ = ["CompileError", "Dense", "Optimizer", "Program", "Relu", "Training", "float_bits"]

NBIN, SB = 0, 1


class CompileError(ValueError):
    """The network does not fit the machine."""


def float_bits(value: float) -> int:
    """The bit pattern of the nearest FP32 number."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


@dataclass(frozen=True)
class Dense:
    """y = W·x, W of `outputs` rows."""

    outputs: int


@dataclass(frozen=True)
class Relu:
    """y = max(x, 0)."""


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

    def constants(self, step: int) -> dict[Constant, int]:
        """What CROSET sets for step 1, 2, …"""
        zero, one = 0.0, 1.0
        if self.name == "sgd":
            c, selectors = (zero, zero, zero, zero, self.rate), 0
        elif self.name == "adagrad":
            c, selectors = (zero, zero, one, one, self.rate), 2
        elif self.name == "rmsprop":
            c, selectors = (zero, zero, self.beta2, 1 - self.beta2, self.rate), 2
        elif self.name == "adam":
            rate = self.rate * (1 - self.beta2**step) ** 0.5 / (1 - self.beta1**step)
            c, selectors = (self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2, rate), 3
        else:
            raise CompileError(f"optimizer {self.name!r} is not one of sgd, adagrad, rmsprop, adam")
        named = dict(zip((Constant.C1, Constant.C2, Constant.C3, Constant.C4, Constant.C5), map(float_bits, c), strict=True))
        return named | {Constant.EPSILON: float_bits(self.epsilon), Constant.OPTIMIZER: selectors}


@dataclass
class Program:
    """Instructions in order."""

    instructions: list[Instruction] = field(default_factory=list)

    def emit(self, opcode: Opcode, **fields: int) -> None:
        self.instructions.append(Instruction.of(opcode, **fields))

    def binary(self) -> bytes:
        return b"".join(map(encode, self.instructions))


@dataclass(frozen=True)
class Matrix:
    """FP32 rows × cols in NBout or in memory: address, distance of rows and of columns in its space's unit."""

    at: int
    rows: int
    cols: int
    row: int
    col: int

    @property
    def turned(self) -> "Matrix":
        return Matrix(self.at, self.cols, self.rows, self.col, self.row)

    def part(self, first: int, rows: int) -> "Matrix":
        """Some of its rows."""
        return Matrix(self.at + first * self.row, rows, self.cols, self.row, self.col)


class _Space:
    """Hands out a space from its start."""

    def __init__(self, size: int, what: str, first: int = 0) -> None:
        self.size, self.what, self.next = size, what, first

    def take(self, amount: int, align: int = 1) -> int:
        at = -(-self.next // align) * align
        if at + amount > self.size:
            raise CompileError(f"{self.what} is too small: {at + amount} needed, {self.size} there")
        self.next = at + amount
        return at


@dataclass
class Training:
    """Programs that train a network with softmax and cross-entropy on batches that lie in memory one after the other.

    Parameters
    ----------
    config : CambriconqConfig
    inputs : int
        Values of a sample.
    layers : list of `Dense` and `Relu`
    batch : int
    samples : int
        How many samples and one-hot labels memory holds.
    bits : int
        4, 8, 12 or 16, of every quantized number.
    optimizer : Optimizer
    memory_bytes : int

    Raises CompileError if memory or a buffer is too small.
    """

    config: CambriconqConfig
    inputs: int
    layers: list[Dense | Relu]
    batch: int
    samples: int
    bits: int
    optimizer: Optimizer
    memory_bytes: int

    def __post_init__(self) -> None:
        memory = _Space(self.memory_bytes, "memory", first=64)
        self.shapes: list[tuple[int, int]] = []
        width = self.inputs
        for layer in self.layers:
            if isinstance(layer, Dense):
                self.shapes.append((layer.outputs, width))
                width = layer.outputs
        self.classes = width
        line = self.config.line_bytes
        self.weights = [tuple(memory.take(4 * n * k, line) for _ in range(3)) for n, k in self.shapes]
        self.data = memory.take(4 * self.samples * self.inputs, line)
        self.labels = memory.take(4 * self.samples * self.classes, line)
        self.results = memory.take(8, line)
        self.program_at = memory.take(0, INSTRUCTION_BYTES)
        self.program_room = self.memory_bytes - self.program_at

    # Programs -----------------------------------------------------------------------------------------------------------

    def setup(self) -> Program:
        """Sets both SQUs; ends with HALT."""
        program = Program()
        candidate = (self.bits // 4 - 1) | ((1 << self.bits - 1) - 1) << 16
        for settings, first in ((Constant.SQU, Constant.SQU_CANDIDATE0), (Constant.MEMORY_SQU, Constant.MEMORY_SQU_CANDIDATE0)):
            program.emit(Opcode.CROSET, register=settings, value=0)
            program.emit(Opcode.CROSET, register=first, value=candidate)
        program.emit(Opcode.HALT)
        return program

    def step(self, number: int, first: int) -> Program:
        """Training step 1, 2, … on the batch that begins at sample `first`; leaves loss and share of correct answers at `results`."""
        program = Program()
        for register, value in self.optimizer.constants(number).items():
            program.emit(Opcode.CROSET, register=register, value=value)
        space = _Space(self.config.nbout_words, "NBout")
        activations, masks = self._forward(program, space, first, self.batch)
        error = self._loss(program, space, activations[-1], first, self.batch)
        self._backward(program, space, activations, masks, error, first)
        program.emit(Opcode.HALT)
        return program

    def test(self, first: int, samples: int) -> Program:
        """Forward pass alone; leaves loss and share of correct answers at `results`."""
        program, space = Program(), _Space(self.config.nbout_words, "NBout")
        activations, _ = self._forward(program, space, first, samples)
        self._loss(program, space, activations[-1], first, samples)
        program.emit(Opcode.HALT)
        return program

    # Parts of a step ----------------------------------------------------------------------------------------------------

    def _nbout(self, space: _Space, rows: int, cols: int) -> Matrix:
        lanes = self.config.nbout_lanes
        pitch = -(-cols // lanes) * lanes
        return Matrix(space.take(rows * pitch, lanes), rows, cols, pitch, 1)

    def _input(self, first: int, samples: int) -> Matrix:
        return Matrix(self.data + 4 * first * self.inputs, samples, self.inputs, 4 * self.inputs, 4)

    def _weight(self, layer: int) -> Matrix:
        rows, cols = self.shapes[layer]
        return Matrix(self.weights[layer][0], rows, cols, 4 * cols, 4)

    def _forward(self, program: Program, space: _Space, first: int, samples: int) -> tuple[list[Matrix], dict[int, Matrix]]:
        """Outputs of every dense layer after its ReLU, if it has one; which of them the ReLU let pass."""
        outputs: list[Matrix] = []
        masks: dict[int, Matrix] = {}
        for layer in self.layers:
            if isinstance(layer, Relu):
                y = outputs[-1]
                mask = self._nbout(space, y.rows, y.cols)
                zero = self._constant(program, space, 0.0)
                # y ≥ 0 would let a zero pass; its gradient counts as 0, so the mask is 1 − (0 ≥ y).
                self._binary(program, Opcode.VSTEP, mask, zero, y)
                self._binary(program, Opcode.VSUB, mask, self._constant(program, space, 1.0), mask)
                program.emit(Opcode.VFUN, function=Unary.RELU, **_shape(y), **_at("dest", y), **_at("a", y))
                masks[len(outputs) - 1] = mask
                continue
            number = len(outputs)
            y = self._nbout(space, samples, layer.outputs)
            x = self._input(first, samples) if number == 0 else outputs[-1]
            self._product(program, y, x, number == 0, self._weight(number), True)
            outputs.append(y)
        return outputs, masks

    def _loss(self, program: Program, space: _Space, y: Matrix, first: int, samples: int) -> Matrix:
        """Softmax and cross-entropy; returns the gradient of the mean loss."""
        labels = self._nbout(space, samples, self.classes)
        program.emit(Opcode.SLOAD, **_shape(labels), **_at("dest", labels), src=self.labels + 4 * first * self.classes,
                     src_row=4 * self.classes)  # fmt: skip
        top, total, picked, loss = (self._nbout(space, samples, 1) for _ in range(4))
        error = self._nbout(space, samples, self.classes)
        result = self._nbout(space, 1, 2)

        def across(column: Matrix) -> Matrix:
            return Matrix(column.at, samples, self.classes, column.row, 0)

        def horizontal(opcode: Opcode, dest: Matrix, src: Matrix) -> None:
            program.emit(opcode, rows=src.rows, cols=src.cols, dest=dest.at, dest_row=dest.row, **_at("src", src))

        def function(which: Unary, dest: Matrix, src: Matrix) -> None:
            program.emit(Opcode.VFUN, function=which, **_shape(dest), **_at("dest", dest), **_at("a", src))

        horizontal(Opcode.HMAX, top, y)
        self._binary(program, Opcode.VMUL, error, y, labels)
        horizontal(Opcode.HADD, picked, error)
        self._binary(program, Opcode.VSTEP, loss, picked, top)
        horizontal(Opcode.HADD, Matrix(result.at + 1, 1, 1, 1, 1), loss.turned)
        self._binary(program, Opcode.VSUB, picked, picked, top)
        self._binary(program, Opcode.VSUB, y, y, across(top))
        function(Unary.EXP, y, y)
        horizontal(Opcode.HADD, total, y)
        function(Unary.LOG, loss, total)
        self._binary(program, Opcode.VSUB, loss, loss, picked)
        horizontal(Opcode.HADD, Matrix(result.at, 1, 1, 1, 1), loss.turned)
        function(Unary.RECIPROCAL, total, total)
        self._binary(program, Opcode.VMUL, error, y, across(total))
        self._binary(program, Opcode.VSUB, error, error, labels)
        for matrix in (result, error):
            program.emit(Opcode.VFMUL, **_shape(matrix), **_at("dest", matrix), **_at("a", matrix), value=float_bits(1 / samples))
        program.emit(Opcode.SSTORE, **_shape(result), dest=self.results, dest_row=0, **_at("src", result))
        return error

    def _backward(self, program: Program, space: _Space, outputs: list[Matrix], masks: dict[int, Matrix], error: Matrix,
                  first: int) -> None:  # fmt: skip
        for number in reversed(range(len(self.shapes))):
            if number in masks:
                self._binary(program, Opcode.VMUL, error, error, masks[number])
            x = self._input(first, self.batch) if number == 0 else outputs[number - 1]
            below = self._nbout(space, self.batch, self.shapes[number][1]) if number else None
            if below is not None:
                self._product(program, below, error, False, self._weight(number).turned, True)
            gradient = self._nbout(space, *self.shapes[number])
            self._product(program, gradient, error.turned, False, x.turned, number == 0)
            w, m, v = self.weights[number]
            program.emit(Opcode.WGSTORE, **_shape(gradient), w=w, m=m, v=v, **_at("src", gradient), mem_row=4 * gradient.cols)
            if below is not None:
                error = below

    # Pieces -------------------------------------------------------------------------------------------------------------

    def _constant(self, program: Program, space: _Space, value: float) -> Matrix:
        """A word of NBout that holds a number: x·0 + value, for want of an immediate store. Broadcast by distances of 0."""
        at = space.take(1)
        word = Matrix(at, 1, 1, 0, 0)
        self._binary(program, Opcode.VSTEP, word, word, word)
        program.emit(Opcode.VFMUL, rows=1, cols=1, dest=at, a=at, value=float_bits(value))
        return word

    def _binary(self, program: Program, opcode: Opcode, dest: Matrix, a: Matrix, b: Matrix) -> None:
        program.emit(opcode, **_shape(dest), **_at("dest", dest), **_at("a", a), **_at("b", b))

    def _product(self, program: Program, dest: Matrix, a: Matrix, a_in_memory: bool, w: Matrix, w_in_memory: bool) -> None:
        """dest = a · wᵀ, in parts that fit the buffers."""
        config = self.config
        slot = self.bits // 4
        vectors = -(-a.cols // config.cols)
        row_lines = vectors * slot
        a_rows, w_rows = config.nbin_lines // row_lines, config.sb_lines // row_lines
        # Parts of a row of results begin where a row of NBout does.
        if w_rows < w.rows:
            w_rows -= w_rows % config.nbout_lanes
        if not a_rows or not w_rows:
            raise CompileError(
                f"rows of {a.cols} values need {row_lines} lines each; NBin has {config.nbin_lines}, SB {config.sb_lines}"
            )
        for j, w_count in _parts(w.rows, w_rows):
            self._fetch(program, SB, w.part(j, w_count), w_in_memory, slot)
            for i, a_count in _parts(a.rows, a_rows):
                if j == 0 or a.rows > a_rows:
                    self._fetch(program, NBIN, a.part(i, a_count), a_in_memory, slot)
                program.emit(Opcode.MM, group=min(4 // slot, 1 << (vectors - 1).bit_length()), rows=a_count, cols=w_count,
                             dest=dest.at + i * dest.row + j, dest_row=dest.row, a=0, a_row=row_lines,
                             w=0, w_row=row_lines, a_slot=slot, w_slot=slot, vectors=vectors)  # fmt: skip

    @staticmethod
    def _fetch(program: Program, side: int, rows: Matrix, in_memory: bool, slot: int) -> None:
        opcode = Opcode.QLOAD if in_memory else Opcode.QMOVE
        program.emit(opcode, side=side, slot=slot, **_shape(rows), dest=0, **_at("src", rows))


def _parts(count: int, most: int) -> Iterator[tuple[int, int]]:
    for first in range(0, count, most):
        yield first, min(most, count - first)


def _shape(matrix: Matrix) -> dict[str, int]:
    return {"rows": matrix.rows, "cols": matrix.cols}


def _at(name: str, matrix: Matrix) -> dict[str, int]:
    return {name: matrix.at, f"{name}_row": matrix.row, f"{name}_col": matrix.col}
