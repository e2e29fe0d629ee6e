"""What can be trained: layers, their shapes, and their names."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod

from nibblecore.hdl.config import whole

from .program import CompileError

__all__ = ["AvgPool", "Conv2d", "Dense", "Image", "Layer", "MaxPool", "Relu", "applied", "described"]


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
