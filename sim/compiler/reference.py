"""What a network computes, and its gradients by the textbook, in double precision: what the machines are held against."""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .network import (
    INPUT,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    Dropout,
    Graph,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Pair,
    Relu,
    pair,
)

__all__ = ["Reference", "loss"]

Floats = NDArray[np.float64]
_Back = Callable[[Floats], tuple[list[Floats], list[Floats]]]


class Reference:
    """A network with parameters of its own.

    Parameters
    ----------
    graph : Graph
    parameters : sequence of arrays
        In the order and the shapes of `Graph.parameters`.
    statistics : mapping of str to (array, array)
        Of each `BatchNorm` by its name the running mean and the running σ², a number a channel; by default 0 and 1.

    Members
    -------
    statistics : dict of str to (array, array)
        `forward` with `learning` moves them.
    """

    def __init__(
        self, graph: Graph, parameters: Sequence[ArrayLike], statistics: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None
    ) -> None:
        wanted = graph.parameters
        self.graph, self.parameters = graph, [np.asarray(each, np.float64) for each in parameters]
        if [each.shape for each in self.parameters] != [each.shape for each in wanted]:
            raise ValueError(f"parameters must have the shapes {[each.shape for each in wanted]}")
        self.statistics = {
            node.name: (np.zeros(node.shape[2]), np.ones(node.shape[2]))
            for node in graph.nodes
            if isinstance(node.layer, BatchNorm)
        }
        for name, (mean, variance) in (statistics or {}).items():
            self.statistics[name] = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
        self._backs: list[_Back] = []

    def forward(self, samples: ArrayLike, *, learning: bool = False, masks: Mapping[str, ArrayLike] | None = None) -> Floats:
        """Outputs, a row of (height, width, channels) for each sample.

        `masks` says of each `Dropout` by its name what remains, 1, and what does not, 0; where `learning`, each needs one.
        """
        x = np.asarray(samples, np.float64)
        values = {INPUT: x.reshape(len(x), *self.graph.shape(INPUT))}
        left = list(self.parameters)
        self._backs = []
        for node in self.graph.nodes:
            count = sum(each.node == node.name for each in self.graph.parameters)
            own, left = left[:count], left[count:]
            sources = [values[source] for source in node.sources]
            layer = node.layer
            if isinstance(layer, BatchNorm):
                y, back = self._normalized(node.name, layer, own, sources[0], learning)
            elif isinstance(layer, Dropout):
                if learning and node.name not in (masks or {}):
                    raise ValueError(f"{node.name}: which values remain is not said")
                kept = np.asarray((masks or {})[node.name], np.float64) / (1 - layer.rate) if learning else np.ones(1)
                y, back = sources[0] * kept, _scaled(kept)
            else:
                y, back = _applied(layer, own, sources)
            values[node.name] = y.reshape(len(x), *node.shape)
            self._backs.append(back)
        return values[self.graph.output]

    def backward(self, gradient: ArrayLike) -> tuple[list[Floats], Floats]:
        """From the gradient of the outputs of the last `forward` those of the parameters and of the samples."""
        g = np.asarray(gradient, np.float64)
        errors = {name: np.zeros((len(g), *self.graph.shape(name))) for name in (INPUT, *(n.name for n in self.graph.nodes))}
        errors[self.graph.output] += g.reshape(len(g), *self.graph.shape(self.graph.output))
        found: list[Floats] = []
        for node, back in reversed(list(zip(self.graph.nodes, self._backs, strict=True))):
            to_sources, to_parameters = back(errors[node.name])
            found = [*to_parameters, *found]
            for source, error in zip(node.sources, to_sources, strict=True):
                errors[source] += error.reshape(errors[source].shape)
        return found, errors[INPUT]

    def _normalized(self, name: str, layer: BatchNorm, own: list[Floats], x: Floats, learning: bool) -> tuple[Floats, _Back]:
        scale, shift = own
        count = prod(x.shape[:3])
        mean, variance = self.statistics[name]
        if learning:
            mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            unbiased = variance * count / (count - 1) if count > 1 else variance
            self.statistics[name] = tuple(
                old + layer.momentum * (new - old) for old, new in zip(self.statistics[name], (mean, unbiased), strict=True)
            )
        inverse = 1 / np.sqrt(variance + layer.epsilon)
        normal = (x - mean) * inverse

        def back(g: Floats) -> tuple[list[Floats], list[Floats]]:
            to_scale, to_shift = (g * normal).sum(axis=(0, 1, 2)), g.sum(axis=(0, 1, 2))
            inner = g - (to_shift + normal * to_scale) / count if learning else g
            return [inner * scale[0] * inverse], [to_scale[None], to_shift[None]]

        return normal * scale[0] + shift[0], back


def loss(outputs: ArrayLike, labels: ArrayLike) -> tuple[float, float, Floats]:
    """Softmax with cross-entropy: its mean, the share of samples of which the right class is above every other, and the gradient.

    `outputs` are a row for each sample, `labels` the numbers of their classes.
    """
    y = np.asarray(outputs, np.float64)
    shape, y = y.shape, y.reshape(len(y), -1)
    right = np.eye(y.shape[1], dtype=bool)[np.asarray(labels)]
    powers = np.exp(y - y.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    others = np.where(right, -np.inf, y).max(axis=1)
    return float(-np.log(shares[right]).mean()), float((y[right] > others).mean()), ((shares - right) / len(y)).reshape(shape)


def _scaled(factor: Floats) -> _Back:
    return lambda g: ([g * factor], [])


def _windows(x: Floats, size: Pair, stride: Pair) -> Floats:
    """Sample, row and column of the window, and its row, column and channel."""
    rows, columns = pair(stride)
    view = np.lib.stride_tricks.sliding_window_view(x, pair(size), axis=(1, 2))[:, ::rows, ::columns]
    return view.transpose(0, 1, 2, 4, 5, 3)


def _spread(parts: Floats, shape: tuple[int, ...], stride: Pair) -> Floats:
    """Adds up what each window says of each of its pixels."""
    total, (rows, columns) = np.zeros(shape), pair(stride)
    height, width, over, across = parts.shape[1:5]
    for i in range(over):
        for j in range(across):
            total[:, i : i + rows * height : rows, j : j + columns * width : columns] += parts[:, :, :, i, j]
    return total


def _applied(layer: Layer, own: list[Floats], sources: list[Floats]) -> tuple[Floats, _Back]:
    """Outputs of a layer, and what takes their gradient to those of the inputs and of the parameters."""
    x = sources[0]
    if isinstance(layer, Relu):
        return np.maximum(x, 0), lambda g: ([g * (x > 0)], [])
    if isinstance(layer, Add):
        return sum(sources[1:], x), lambda g: ([g] * len(sources), [])
    if isinstance(layer, Concat):
        ends = np.cumsum([each.shape[3] for each in sources])[:-1]
        return np.concatenate(sources, axis=3), lambda g: (np.split(g, ends, axis=3), [])
    if isinstance(layer, Dense):
        flat, weights = x.reshape(len(x), -1), own[0]
        shift = own[1] if layer.bias else np.zeros((1, layer.outputs))

        def through(g: Floats) -> tuple[list[Floats], list[Floats]]:
            g = g.reshape(len(x), -1)
            return [g @ weights], [g.T @ flat, *([g.sum(axis=0, keepdims=True)] if layer.bias else [])]

        return flat @ weights.T + shift, through
    if isinstance(layer, LocalResponseNorm):
        return _across_channels(layer, x)
    assert isinstance(layer, Conv2d | MaxPool | AvgPool)
    return _windowed(layer, own, x)


def _across_channels(layer: LocalResponseNorm, x: Floats) -> tuple[Floats, _Back]:
    before = layer.size // 2

    def summed(values: Floats, first: int) -> Floats:
        padded = np.pad(values, ((0, 0), (0, 0), (0, 0), (first, layer.size - 1 - first)))
        return np.lib.stride_tricks.sliding_window_view(padded, layer.size, axis=3).sum(axis=4)

    base = layer.k + layer.alpha / layer.size * summed(x**2, before)

    def back(g: Floats) -> tuple[list[Floats], list[Floats]]:
        inner = summed(g * x * base ** (-layer.beta - 1), layer.size - 1 - before)
        return [g * base**-layer.beta - 2 * layer.alpha * layer.beta / layer.size * x * inner], []

    return x * base**-layer.beta, back


def _windowed(layer: Conv2d | MaxPool | AvgPool, own: list[Floats], x: Floats) -> tuple[Floats, _Back]:
    (above, beside), (height, width) = pair(layer.padding), x.shape[1:3]
    around = ((0, 0), (above, above), (beside, beside), (0, 0))
    padded = np.pad(x, around, constant_values=-np.inf if isinstance(layer, MaxPool) else 0)
    size = layer.kernel if isinstance(layer, Conv2d) else layer.size
    stride = layer.stride or size
    seen = _windows(padded, size, stride)

    def within(parts: Floats) -> Floats:
        return _spread(parts, padded.shape, stride)[:, above : above + height, beside : beside + width]

    if isinstance(layer, Conv2d):
        weights = own[0].reshape(layer.groups, layer.channels // layer.groups, *pair(size), -1)
        grouped = seen.reshape(*seen.shape[:5], layer.groups, -1)
        y = np.einsum("nyxijgc,goijc->nyxgo", grouped, weights).reshape(*seen.shape[:3], layer.channels)

        def through(g: Floats) -> tuple[list[Floats], list[Floats]]:
            g = g.reshape(*seen.shape[:3], layer.groups, -1)
            to_x = within(np.einsum("nyxgo,goijc->nyxijgc", g, weights).reshape(seen.shape))
            to_weights = np.einsum("nyxgo,nyxijgc->goijc", g, grouped).reshape(own[0].shape)
            return [to_x], [to_weights, *([g.sum(axis=(0, 1, 2)).reshape(1, -1)] if layer.bias else [])]

        return y + (own[1][0] if layer.bias else 0), through
    if isinstance(layer, AvgPool):
        ones = np.ones_like(padded) if layer.padding_counts else np.pad(np.ones_like(x), around)
        counts = _windows(ones, size, stride).sum(axis=(3, 4))
        return (
            seen.sum(axis=(3, 4)) / counts,
            lambda g: ([within(np.broadcast_to((g / counts)[:, :, :, None, None], seen.shape))], []),
        )
    flat = seen.reshape(*seen.shape[:3], prod(pair(size)), -1)
    hit = (np.arange(flat.shape[3])[:, None] == flat.argmax(axis=3)[:, :, :, None]).reshape(seen.shape)
    return seen.max(axis=(3, 4)), lambda g: ([within(hit * g[:, :, :, None, None])], [])
