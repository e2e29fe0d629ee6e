"""A multilayer perceptron that learns on the accelerator (Algorithm 1 of the paper)."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from nibblecore.hdl.config import whole
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.host.ltoaq.accelerator import RawHandle, TensorHandle
from nibblecore.sim.host.ltoaq.checked import CheckedAccelerator
from nibblecore.sim.inputs import number
from nibblecore.sim.train.data import CLASSES, PIXEL_MAX, PIXELS
from nibblecore.sim.train.shell import Diverged
from numpy.typing import NDArray

from .threshold import Threshold

__all__ = ["Layer", "Network", "Recipe"]

_NEURON_BYTES = 16
"""More than a neuron's 32-bit number and its code need for an image; what is left over holds the weights."""
_WEIGHT_UNIT = 2.0**-20
_ERROR_UNIT = 2.0**-28
# Steps of an eighth of a grey level: every level is an exact code, and the brightest is an outlier with residual 0.
_PIXELS = QuantizerParameters(
    bits=8, signed=False, alpha=PIXEL_MAX, multiplier=8, shift=0, k=0, threshold=8 * PIXEL_MAX, unit=1 / PIXEL_MAX
)
# Of whatever is above 0 a code that is not: 2^31 − 1 is an outlier, all else saturates.
_SIGN = QuantizerParameters(bits=4, signed=False, alpha=2**31 - 1, multiplier=255, shift=0, k=0, threshold=15, relu=True)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained and how.

    Parameters
    ----------
    hidden : tuple of int
        Neurons of the hidden layers.
    bits : int
        Width of the middle layers' codes, 4 or 8; the first and the last layer have 8 bits.
    batch, steps : int
        Images a step, and steps.
    learning_rate : float
        Of the weights in the first step; it falls linearly to 0.
        Above 0.
    momentum : float
        0 ≤ momentum < 1.
    threshold_rate : float
        Learning rate of the thresholds, falling like the weights'; at least 0.
    seed : int
        Of the initial weights and the order of the images.

    Raises ValueError, with the field and the range, for anything else.
    """

    hidden: tuple[int, ...] = (48, 48)
    bits: int = 4
    batch: int = 32
    steps: int = 200
    learning_rate: float = 0.1
    momentum: float = 0.9
    threshold_rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(whole("hidden", size, 1) for size in self.hidden))
        for name, least in (("bits", 0), ("batch", 1), ("steps", 1), ("seed", 0)):
            object.__setattr__(self, name, whole(name, getattr(self, name), least))
        if self.bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {self.bits}")
        number("learning_rate", self.learning_rate, excluded=True)
        number("momentum", self.momentum, below=1)
        number("threshold_rate", self.threshold_rate)


class _Operand(NamedTuple):
    """A tensor in the accelerator with what it came from: 32-bit words of real value `quantizer.unit`; of the pixels None."""

    raw: RawHandle | None
    tensor: TensorHandle
    quantizer: QuantizerParameters


class Layer:
    """Weights, momentum and the three thresholds of a fully connected layer without bias.

    `input` is None for the first layer: pixels are exact in 8 bits, so the gradient of their threshold is zero.
    """

    def __init__(self, inputs: int, outputs: int, bits: int, *, first: bool, rng: np.random.Generator) -> None:
        self.bits = bits
        self.weights = (rng.standard_normal((outputs, inputs)) * np.sqrt(2 / inputs)).astype(np.float32)
        self.velocity = np.zeros_like(self.weights)
        self.input = None if first else Threshold("activation", bits, signed=False, relu=True)
        self.weight = Threshold("weight", bits, signed=True)
        self.error = Threshold("error", bits, signed=True)

    @property
    def thresholds(self) -> list[Threshold]:
        return [t for t in (self.input, self.weight, self.error) if t is not None]

    def state(self) -> dict[str, NDArray[Any]]:
        """All that training changes; a later step changes none of these arrays."""
        thresholds = np.array([[t.alpha, t.x_max, t.outlier_ratio] for t in self.thresholds])
        return {"weights": self.weights, "momentum": self.velocity, "thresholds": thresholds}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """To what `state` returned."""
        self.weights, self.velocity = state["weights"], state["momentum"]
        for threshold, numbers in zip(self.thresholds, state["thresholds"].tolist(), strict=True):
            threshold.alpha, threshold.x_max, threshold.outlier_ratio = numbers

    def stepped(self, gradient: NDArray[np.float32], rate: float, momentum: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """Momentum and weights after a step."""
        with np.errstate(over="ignore", invalid="ignore"):
            velocity = momentum * self.velocity - rate * gradient
            return velocity, (self.weights + velocity).astype(np.float32)


class Network:
    """The layers of a recipe, on one accelerator.

    The accelerator computes all matrix products, quantizations and threshold gradients; the host computes the loss, masks gradients
    with the derivative of ReLU, updates weights and thresholds, and keeps the scales.

    Members
    -------
    layers : list of Layer
    done : int
        Steps so far: the rates depend on it.
    multiplications : int
    """

    def __init__(self, recipe: Recipe, accelerator: CheckedAccelerator) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        rng = np.random.default_rng([recipe.seed, 0])
        sizes = [PIXELS, *recipe.hidden, CLASSES]
        last = len(sizes) - 2
        self._neurons = sum(sizes)
        self.layers = [
            Layer(sizes[i], sizes[i + 1], 8 if i in (0, last) else recipe.bits, first=i == 0, rng=rng) for i in range(last + 1)
        ]
        # Weights lie in the accelerator's memory for as long as they are the same.
        self._places = [accelerator.reserve_raw((outputs, inputs)) for inputs, outputs in pairwise(sizes)]
        self._there: list[NDArray[Any] | None] = [None] * len(self.layers)
        self.multiplications = 0
        self.done = 0

    def train(self, images: NDArray[np.int32], labels: NDArray[np.int64]) -> tuple[float, float]:
        """One step of gradient descent on a batch; returns loss and accuracy before it. Raises `Diverged`."""
        self.accelerator.free()
        remaining = 1 - self.done / self.recipe.steps
        operands, outputs = self._forward(images, f"step {self.done}", learning=True)
        logits = self._real(outputs[-1], operands[-1])
        loss, accuracy, error = _cross_entropy(logits, labels)
        raw = self.accelerator.upload_raw(self._fixed("the loss's gradient", error, _ERROR_UNIT))
        unit = _ERROR_UNIT
        gradients = []
        for index in reversed(range(len(self.layers))):
            raw, unit, gradient = self._backward(index, raw, unit, operands, outputs, remaining)
            gradients.append(gradient)
        # One layer's weights go to the board while the next one's gradient comes; a step that breaks off has changed no layer.
        after = {}
        for index, gradient in zip(reversed(range(len(self.layers))), gradients, strict=True):
            after[index] = self.layers[index].stepped(gradient(), self.recipe.learning_rate * remaining, self.recipe.momentum)
            with suppress(Diverged):
                self._bring(index, after[index][1])
        for index, (velocity, weights) in after.items():
            self.layers[index].velocity, self.layers[index].weights = velocity, weights
        self.done += 1
        return loss, accuracy

    def right(self, images: NDArray[np.int32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which images are read rightly: the output of the label is larger than every other. Nothing is learned.

        As many at once as memory takes.
        """
        found = []
        most = max(1, self.accelerator.memory_size // (_NEURON_BYTES * self._neurons))
        for first in range(0, len(images), most):
            self.accelerator.free()
            part = slice(first, first + most)
            operands, outputs = self._forward(images[part], f"evaluation after step {self.done}", learning=False)
            found.append(_right(self._real(outputs[-1], operands[-1]), labels[part]))
        return np.concatenate(found)

    def outlier_ratios(self) -> dict[str, float]:
        """Share of outliers by kind of tensor in the last step, each layer counting alike."""
        ratios: dict[str, list[float]] = {}
        for layer in self.layers:
            for threshold in layer.thresholds:
                ratios.setdefault(threshold.kind, []).append(threshold.outlier_ratio)
        return {kind: float(np.mean(values)) for kind, values in ratios.items()}

    def _real(self, output: RawHandle, operands: tuple[_Operand, _Operand]) -> NDArray[np.float64]:
        return self.accelerator.download(output) * np.float64(operands[0].quantizer.scale * operands[1].quantizer.scale)

    def _fixed(self, what: str, values: NDArray[Any], unit: float) -> NDArray[np.int32]:
        """In units of `unit`."""
        words = np.rint(values / np.float64(unit))
        if not (np.abs(words) < 2.0**31).all():
            raise Diverged(self.accelerator.place, f"{what} do not lie within ±{2**31 * unit:g}, the range of 32-bit words")
        return words.astype(np.int32)

    def _bring(self, index: int, weights: NDArray[np.float32]) -> None:
        """Weights of a layer to their place, if they are not there."""
        if self._there[index] is not weights:
            self._there[index] = None
            self.accelerator.store_raw(self._places[index], self._fixed("the weights", weights, _WEIGHT_UNIT))
            self._there[index] = weights

    def _gemm(self, operation: str, a: TensorHandle, w: TensorHandle, **transposed: bool) -> RawHandle:
        """Overflow is an error: training never comes near it."""
        product = self.accelerator.gemm(operation, a, w, **transposed)
        if product.overflow:
            raise OverflowError(f"{self.accelerator.place}, {operation}: an accumulator overflowed")
        depth = a.shape[0] if transposed.get("a_transposed") else a.shape[1]
        self.multiplications += product.shape[0] * product.shape[1] * depth
        return product

    def _quantize(self, operation: str, raw: RawHandle, unit: float, threshold: Threshold, learning: bool) -> _Operand:
        words = self.accelerator.download(raw) if not threshold.x_max else np.zeros(0, np.int32)
        quantizer = threshold.quantizer(words, unit)
        tensor = self.accelerator.quantize(operation, raw, quantizer)
        if learning and tensor.statistics is not None:
            threshold.observe(tensor.statistics, raw.shape[0] * raw.shape[1], unit)
        return _Operand(raw, tensor, quantizer)

    def _forward(
        self, images: NDArray[np.int32], when: str, learning: bool
    ) -> tuple[list[tuple[_Operand, _Operand]], list[RawHandle]]:
        """Input and weight of each layer, and each layer's output before its ReLU."""
        operands: list[tuple[_Operand, _Operand]] = []
        outputs: list[RawHandle] = []
        for index, layer in enumerate(self.layers):
            self.accelerator.place = f"{when}, layer {index}"
            if layer.input is None:
                x = _Operand(None, self.accelerator.upload(_pixels(images)), _PIXELS)
            else:
                unit = operands[-1][0].quantizer.scale * operands[-1][1].quantizer.scale
                x = self._quantize("quantizing the activations", outputs[-1], unit, layer.input, learning)
            self._bring(index, layer.weights)
            w = self._quantize("quantizing the weights", self._places[index], _WEIGHT_UNIT, layer.weight, learning)
            operands.append((x, w))
            outputs.append(self._gemm("forward product", x.tensor, w.tensor))
        return operands, outputs

    def _backward(
        self,
        index: int,
        raw: RawHandle,
        unit: float,
        operands: list[tuple[_Operand, _Operand]],
        outputs: list[RawHandle],
        remaining: float,
    ) -> tuple[RawHandle, float, Callable[[], NDArray[np.float32]]]:
        """From the error of a layer's output: that of the layer before, its unit, and what returns the gradient of the weights."""
        layer, (x, w), rate = self.layers[index], operands[index], self.recipe.threshold_rate * remaining
        accelerator = self.accelerator
        accelerator.place = f"step {self.done}, layer {index}"
        e = self._quantize("quantizing the errors", raw, unit, layer.error, True)
        product = self._gemm("weight gradient", e.tensor, x.tensor, a_transposed=True, w_transposed=True)
        product_unit = e.quantizer.scale * x.quantizer.scale
        assert w.raw is not None
        total = accelerator.threshold_grad("weight threshold gradient", w.raw, product, w.quantizer)
        layer.weight.learn(total, product_unit, w.quantizer.code_max, rate)
        words = accelerator.download_later(product)

        def gradient() -> NDArray[np.float32]:
            return (words() * product_unit).astype(np.float32)

        if layer.input is None:
            return raw, unit, gradient
        assert x.raw is not None
        neuron = self._gemm("neuron gradient", e.tensor, w.tensor, w_transposed=True)
        neuron_unit = e.quantizer.scale * w.quantizer.scale
        total = accelerator.threshold_grad("activation threshold gradient", x.raw, neuron, x.quantizer)
        layer.input.learn(total, neuron_unit, x.quantizer.code_max, rate)
        sign = accelerator.download(accelerator.quantize("the derivative of ReLU", outputs[index - 1], _SIGN))
        masked = np.where((sign.codes > 0) | sign.outlier, accelerator.download(neuron), 0)
        return accelerator.upload_raw(masked.astype(np.int32)), neuron_unit, gradient


def _pixels(images: NDArray[np.int32]) -> OaqTensor:
    """Pixels as `_PIXELS` quantizes them: the host sends a byte each instead of four."""
    brightest = images >= _PIXELS.alpha
    codes = np.where(brightest, 0, _PIXELS.multiplier * images).astype(np.uint8)
    return OaqTensor(codes, brightest, _PIXELS.bits, _PIXELS.signed, _PIXELS.threshold, _PIXELS.k)


def _right(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where the label's logit is the only largest: a tie counts as wrong, and so does a NaN."""
    others = logits.copy()
    picked = others[np.arange(len(labels)), labels]
    others[np.arange(len(labels)), labels] = -np.inf
    return picked > others.max(axis=1)


def _cross_entropy(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float, NDArray[np.float64]]:
    """Mean loss, accuracy, and the loss's gradient with respect to the logits."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = shifted / shifted.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float(-np.log(np.maximum(probability[rows, labels], 1e-30)).mean())
    accuracy = float(_right(logits, labels).mean())
    probability[rows, labels] -= 1
    return loss, accuracy, probability / len(labels)
