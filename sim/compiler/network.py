"""What can be trained: layers, and the optimizers with their constants."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import inf, prod

from nibblecore.hdl.cambriconq.program.isa import Constant
from nibblecore.hdl.config import whole
from nibblecore.sim.inputs import number

from .program import CompileError, float_bits

__all__ = ["OPTIMIZERS", "AvgPool", "Conv2d", "Dense", "Image", "Layer", "MaxPool", "Optimizer", "Relu", "applied", "described"]

OPTIMIZERS = ("sgd", "adagrad", "rmsprop", "adam")


class _Sized:
    """A layer whose fields are all whole numbers, at least 1, a padding 0. Raises CompileError, with the field, for others."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            name = f"{type(self).__name__}: {each.name}"
            value = whole(name, getattr(self, each.name), int(each.name != "padding"), error=CompileError)
            object.__setattr__(self, each.name, value)


@dataclass(frozen=True)
class Dense(_Sized):
    """y = W·x, W of `outputs` rows."""

    outputs: int


@dataclass(frozen=True)
class Conv2d(_Sized):
    """`channels` kernels of `kernel` × `kernel` pixels, `stride` pixels apart, where they lie whole in the image.

    `padding` pixels of zeros are put around the image before.
    """

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class MaxPool(_Sized):
    """The largest of every `size` × `size` pixels, each channel by itself; pixels over at the edge are left out.

    The gradient goes to the first of equals, in the order of rows.
    """

    size: int


@dataclass(frozen=True)
class AvgPool(_Sized):
    """The mean of every `size` × `size` pixels, each channel by itself; pixels over at the edge are left out."""

    size: int


@dataclass(frozen=True)
class Relu:
    """y = max(x, 0), after another layer."""


Layer = Dense | Conv2d | MaxPool | AvgPool | Relu
Image = tuple[int, int, int]


@dataclass(frozen=True)
class Optimizer:
    """One of `OPTIMIZERS` (Table IV), with its rates.

    Parameters
    ----------
    name : str
    rate : float
        η, above 0.
    beta1, beta2 : float
        Decay of m and v, 0 ≤ β < 1; RMSProp uses `beta2`.
    epsilon : float
        Added to v before its reciprocal square root, at least 0.

    Raises CompileError, with the field and the range, for anything else, and for what is not finite in FP32.
    """

    name: str
    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise CompileError(f"optimizer {self.name!r} is not one of {', '.join(OPTIMIZERS)}")
        ranges = {"rate": (0, inf, True), "beta1": (0, 1, False), "beta2": (0, 1, False), "epsilon": (0, inf, False)}
        for field, (least, below, excluded) in ranges.items():
            value = number(f"optimizer: {field}", getattr(self, field), least, below, excluded=excluded, error=CompileError)
            object.__setattr__(self, field, value)

    def constants(self, step: int, scale: float = 1.0) -> dict[Constant, int]:
        """What CROSET sets for step 1, 2, …, with a rate of η · `scale`.

        Raises CompileError unless the step is a whole number from 1 on, and `scale` and the rate with it are finite and not negative.
        """
        step = whole("the number of a step", step, 1, error=CompileError)
        scale = number("scale", scale, error=CompileError)
        zero, one, rate = 0.0, 1.0, number("the rate times scale", self.rate * scale, error=CompileError)
        if self.name == "sgd":
            c, selectors = (zero, zero, zero, zero, rate), 0
        elif self.name == "adagrad":
            c, selectors = (zero, zero, one, one, rate), 2
        elif self.name == "rmsprop":
            c, selectors = (zero, zero, self.beta2, 1 - self.beta2, rate), 2
        else:
            rate *= (1 - self.beta2**step) ** 0.5 / (1 - self.beta1**step)
            c, selectors = (self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2, rate), 3
        named = dict(zip((Constant.C1, Constant.C2, Constant.C3, Constant.C4, Constant.C5), map(float_bits, c), strict=True))
        return named | {Constant.EPSILON: float_bits(self.epsilon), Constant.OPTIMIZER: selectors}


def described(inputs: int | Image, layers: Sequence[Layer]) -> str:
    words = [str(inputs) if isinstance(inputs, int) else "×".join(map(str, inputs))]
    for layer in layers:
        if isinstance(layer, Dense):
            words.append(f"dense {layer.outputs}")
        elif isinstance(layer, Conv2d):
            words.append(
                f"conv {layer.channels} of {layer.kernel}×{layer.kernel}"
                + (f" by {layer.stride}" if layer.stride > 1 else "")
                + (f" padded by {layer.padding}" if layer.padding else "")
            )
        elif isinstance(layer, Relu):
            words.append("ReLU")
        else:
            words.append(f"{'max' if isinstance(layer, MaxPool) else 'mean'} of {layer.size}×{layer.size}")
    return ", ".join(words)


def applied(number: int, layer: Dense | Conv2d | MaxPool | AvgPool, shape: Image) -> tuple[Image, tuple[int, int] | None]:
    """Shape of a layer's outputs, and of its weights."""
    if isinstance(layer, Dense):
        return (1, 1, layer.outputs), (layer.outputs, prod(shape))
    if isinstance(layer, Conv2d):
        window, stride, padding = layer.kernel, layer.stride, layer.padding
    else:
        window, stride, padding = layer.size, layer.size, 0
    if window > min(shape[:2]) + 2 * padding:
        raise CompileError(
            f"layer {number}: windows of {window}×{window} pixels, {stride} apart, in images of {shape[0]}×{shape[1]}"
            + (f" padded by {padding}" if padding else "")
        )
    height, width = ((size + 2 * padding - window) // stride + 1 for size in shape[:2])
    if isinstance(layer, Conv2d):
        return (height, width, layer.channels), (layer.channels, window**2 * shape[2])
    return (height, width, shape[2]), None
