"""Compiles the training of a layered network to programs of Cambricon-Q.

A `Training` lays memory out (weights with the optimizer's state, data, intermediate results, programs) and gives one program for each
step and one for a test. Every number that a program needs is in memory or computed on the machine; the host loads and reads.
"""

from nibblecore.hdl.cambriconq.program.isa import Constant, Opcode, Unary
from nibblecore.hdl.config import whole

from .elementwise import Elementwise
from .layout import Layout, Region, Tensor
from .network import Add, AvgPool, BatchNorm, Concat, Conv2d, Dense, Graph, Layer, MaxPool, Relu
from .optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from .program import CompileError, Phase, Program, View, float_bits, parts

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Add",
    "AvgPool",
    "BatchNorm",
    "CompileError",
    "Concat",
    "Conv2d",
    "Dense",
    "Graph",
    "Layer",
    "MaxPool",
    "Optimizer",
    "Phase",
    "Program",
    "RMSprop",
    "Region",
    "Relu",
    "Training",
    "float_bits",
]


class Training(Layout):
    """Programs that train a network with softmax and cross-entropy on batches that lie in memory one after the other.

    Parameters and members are those of `Layout`, and so is what the constructor raises. All is computed in parts that the half of NBout
    which holds no results has room for: products in parts of a matrix, what concerns images in whole samples, or in rows of one where no
    whole sample fits.

    A program is written to `program_at` and run from there; that it has at most `program_room` bytes is the caller's to see to. `setup`
    runs before all others, again after a reset.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._plan_quantized(lambda: self.step(1, 0))

    def setup(self) -> Program:
        """Sets both SQUs; ends with HALT."""
        program = Program()
        clip = (1 << self.bits - 1) - 1
        for settings, value in self.squs.items():
            program.emit(Opcode.CROSET, register=settings, value=value)
            for number, offset in enumerate(self.offsets, 1):
                candidate = (self.bits // 4 - 1) | (offset & 15) << 4 | clip << 16
                program.emit(Opcode.CROSET, register=settings + number, value=candidate)
        program.emit(Opcode.HALT)
        return program

    @property
    def squs(self) -> dict[Constant, int]:
        """How many candidates each SQU tries; the one with the least sum of errors wins, metric 0."""
        count = len(self.offsets) - 1
        return {Constant.SQU: count, Constant.MEMORY_SQU: count}

    def step(self, number: int, first: int, scale: float = 1.0) -> Program:
        """Training step 1, 2, … on the samples `first` to `first` + `batch` − 1, with `lr` · `scale`.

        Leaves at `results` two FP32 words: the batch's mean loss and its share of correct answers, 0..1, both before the step. An answer is
        correct if the output of its class is larger than every other: of several largest none is. Raises ValueError if memory does not
        hold the samples, and CompileError, with the numbers, if NBout, NBin or SB is too small for the least part of something, or as
        of `Optimizer.passes`.
        """
        self._require(first, self.batch)
        code = self._begun()
        code.set_optimizer(self.optimizer.passes(number, scale))
        code.vectors(learning=True)
        code.forward(first, self.batch, learning=True)
        code.loss(first, self.batch, self.batch, learning=True)
        code.results(self.batch)
        code.backward(first)
        return code.end()

    def test(self, first: int, samples: int) -> Program:
        """Forward pass alone on any number of samples from `first` on, a batch after the other.

        Leaves at `results` the same two FP32 words as `step`, over all `samples`, and raises the same errors but that of the optimizer.
        """
        self._require(first, samples)
        code = self._begun()
        code.vectors(learning=False)
        for begin, count in parts(samples, self.batch):
            code.forward(first + begin, count, learning=False)
            code.loss(first + begin, count, samples, learning=False)
        code.results(samples)
        return code.end()

    def _require(self, first: int, count: int) -> None:
        first, count = (whole(name, value, -self.samples) for name, value in (("first", first), ("samples", count)))
        if first < 0 or count < 1 or first + count > self.samples:
            raise ValueError(f"{count} samples from sample {first} on: memory holds samples 0 to {self.samples - 1}")

    def _begun(self) -> "_Code":
        """A program that sets again how many candidates there are: order and estimate depend on it."""
        code = _Code(self)
        for register, value in self.squs.items():
            code.program.emit(Opcode.CROSET, register=register, value=value)
        return code


class _Code(Elementwise):
    """A pass after the other."""

    def vectors(self, *, learning: bool) -> None:
        """Biases, and what batch norms multiply by and add, to where they stay; in a test also the running statistics."""
        for unit in self.layout.units:
            if unit.bias is not None:
                self.program.copy(unit.bias, self._parameter(unit, "bias"))
            if unit.statistics is not None:
                self._begin_norm(unit, unit.statistics, learning=learning)

    def forward(self, first: int, count: int, *, learning: bool) -> None:
        self.program.stage = Phase.FW
        for unit in self.layout.units:
            sources = [self._source(source, first) for source in unit.sources]
            (x, at), y, layer, window = sources[0], unit.output, unit.layer, unit.window
            name, finish = f"outputs of weights {unit.weight}", self._finish(unit)
            if isinstance(layer, Dense):
                self._result(name, y.matrix(0, count), x.matrix(at, count), self._weight(unit), finish)
            elif isinstance(layer, Conv2d):
                assert window is not None
                if unit.columns is not None:
                    self._windows(window, x, at, count, unit.columns)
                    x, at = unit.columns, 0
                self._result(name, y.pixels(0, count), x.pixels(at, count), self._weight(unit), finish)
            elif isinstance(layer, BatchNorm):
                self._normalize(unit, layer, x.pixels(at, count), learning=learning)
            elif isinstance(layer, Concat):
                self._join(unit, [tensor.pixels(begin, count) for tensor, begin in sources])
            elif isinstance(layer, MaxPool | AvgPool):
                assert window is not None
                self._pool(unit, window, x, at, count)
            else:
                self._sum(unit, [tensor.pixels(begin, count) for tensor, begin in sources])

    def loss(self, first: int, count: int, samples: int, *, learning: bool) -> None:
        """Softmax and cross-entropy of some of all `samples`, added up; the gradient of the mean loss."""
        unit, classes, program = self.layout.units[-1], self.layout.classes, self.program
        labels = View.matrix(self.layout.labels, self.layout.samples, classes, classes, True).part(0, first, count)
        # Computed in place, but where the backward pass looks for the largest outputs again.
        kept = learning and isinstance(unit.layer, MaxPool)
        copied, error_copied = unit.output.memory or kept, learning and unit.error.memory
        words = (2 + copied) * classes + 4
        for begin, rows in self._pieces(count, words, "rows of the loss"):
            self._begin(self._need(rows, words))
            y = self._copied(unit.output.matrix(begin, rows)) if copied else unit.output.matrix(begin, rows)
            label = self._copied(labels.part(0, begin, rows))
            error = self._matrix(rows, classes) if error_copied or not learning else unit.error.matrix(begin, rows)
            top, total, picked, loss = (self._column(rows) for _ in range(4))

            def across(column: View, rows: int = rows) -> View:
                return View(column.at, (rows, classes), (column.strides[0], 0))

            program.reduce(Opcode.HMAX, top, y)
            program.combine(Opcode.VSUB, y, y, across(top))
            program.combine(Opcode.VMUL, error, y, label)
            program.reduce(Opcode.HADD, picked, error)
            # Outputs are 0 at most. Less 1 at its class the largest is below 0 if no other output equals it; of a NaN neither is said.
            program.combine(Opcode.VSUB, error, y, label)
            program.reduce(Opcode.HMAX, top, error)
            program.scale(top, top, -1.0)
            program.combine(Opcode.VSTEP, loss, top, self.smallest.spread(top.sizes))
            self._count(self.right, loss)
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
        self.program.copy(View.matrix(self.layout.results, 1, 2, 2, True), both)

    def backward(self, first: int) -> None:
        batch = self.layout.batch
        for unit in reversed(self.layout.units):
            sources = [self._source(source, first) for source in unit.sources]
            (x, at), error, layer, window = sources[0], unit.error, unit.layer, unit.window
            self.program.stage = Phase.NG
            if isinstance(layer, BatchNorm):
                self._unnormalize(unit, x.pixels(at, batch))
            elif isinstance(layer, Concat):
                self._part(unit)
            for edge, (source, _) in zip(unit.edges, sources, strict=True):
                if edge is None or isinstance(layer, BatchNorm | Concat):
                    continue
                name, dx, rest = f"error through weights {unit.weight}", edge.target, edge.rest
                if isinstance(layer, Dense):
                    finish = self._completing(rest, lambda tensor: tensor.matrix(0, batch))
                    self._result(name, dx.matrix(0, batch), error.matrix(0, batch), self._weight(unit).turned, finish, rest.words)
                elif isinstance(layer, Conv2d):
                    assert window is not None
                    if unit.columns is not None:
                        self._unwindow(unit, window, dx, rest)
                        continue
                    finish = self._completing(rest, lambda tensor: tensor.pixels(0, batch))
                    self._result(name, dx.pixels(0, batch), error.pixels(0, batch), self._weight(unit).turned, finish, rest.words)
                elif isinstance(layer, MaxPool | AvgPool):
                    assert window is not None
                    self._unpool(unit, window, source, dx, rest)
                else:
                    self._pass(unit, edge)
            self.program.stage = Phase.WG
            if isinstance(layer, Dense):
                self._learn(unit, error.matrix(0, batch).turned, x.matrix(at, batch).turned)
            elif isinstance(layer, Conv2d):
                windows = x.pixels(at, batch) if unit.columns is None else unit.columns.pixels(0, batch)
                self._learn(unit, error.pixels(0, batch).turned, windows.turned)
            if unit.bias is not None:
                self._learn_bias(unit)

    def _source(self, number: int | None, first: int) -> tuple[Tensor, int]:
        """The outputs of a unit, or the samples, and which of them are this batch's first."""
        return (self.layout.source, first) if number is None else (self.layout.units[number].output, 0)

    def _count(self, total: View, column: View) -> None:
        """Adds a column up, to what was counted before."""
        if not self.counted:
            self.program.reduce(Opcode.HADD, total, column.turned)
            return
        self.program.reduce(Opcode.HADD, self.part, column.turned)
        self.program.combine(Opcode.VADD, total, total, self.part)
