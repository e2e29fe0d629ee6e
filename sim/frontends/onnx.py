"""Files of ONNX to a graph."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibblecore.sim.compiler.network import AvgPool, MaxPool
from numpy.typing import NDArray

from .imported import Imported, Refused, Tensor, Unsupported, missing
from .lowering import At, Lowering, Two, Value, two

try:
    import onnx
    from onnx.reference import ReferenceEvaluator
except ModuleNotFoundError:
    raise missing("onnx") from None

__all__ = ["from_onnx"]

_BATCH = 3
"""Samples of shapes where the file leaves the number open: no size that shapes are likely to have by chance."""


def from_onnx(path: str | Path) -> Imported:
    """A model of a file as a graph, with its weights.

    Its input is a row of values, or images with the channels first, any number of samples. Weights are all tensors that layers multiply
    by or add; a bias may be an addition of its own. Raises `Unsupported`, with all that the graph has no place for or if the file is no
    whole model, and OSError if it cannot be read.
    """
    with Path(path).open("rb"):
        pass
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:
        said = str(error).strip().splitlines()
        raise Unsupported([Refused(str(path), "onnx", f"is no whole model: {said[0] if said else error!r}")]) from None
    return _Walk(model).imported()


class _Walk(Lowering):
    """Through the nodes that the output depends on, in the file's order. What is computed of shapes and constants alone is computed."""

    def __init__(self, model: Any) -> None:
        graph = model.graph
        held = {each.name for each in graph.initializer}
        inputs = [each for each in graph.input if each.name not in held]
        shapes = [self._declared(each) for each in inputs]
        super().__init__(shapes[0][0] or _BATCH if shapes and shapes[0] else _BATCH)
        self.opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
        self._values: dict[str, Any] = {"": None}
        for each in graph.initializer:
            self._values[each.name] = Tensor(each.name, onnx.numpy_helper.to_array(each))
        for number, (each, shape) in enumerate(zip(inputs, shapes, strict=True)):
            self._values[each.name] = self._given(each, shape, number)
        nodes = self._needed(graph)
        readers = [name for node in nodes for name in node.input]
        self._last = {each.name for each in graph.output} - set(readers)
        pieces = _Pieces(nodes, {name: each.array for name, each in self._values.items() if isinstance(each, Tensor)})
        for node in nodes:
            if node.output[0] in pieces.within:
                continue
            at = At(node.name or node.output[0], node.name or node.output[0], self._operator(node))
            norm = pieces.norms.get(node.output[0])
            found = self._computed(node) if norm is None else self._joined(at, norm)
            if found is None:
                known = _OPERATORS.get(at.operator)
                given = [self._values[name] for name in node.input]
                attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
                found = (
                    self.refuse(at, "is not one of the graph's layers")
                    if known is None
                    else known(self, at, _Given(node, given, attributes))
                )
            self._values |= dict.fromkeys(node.output, Value(None, None)) | {node.output[0]: found}
        at = At("output", "the model", "output")
        if len(graph.output) != 1:
            self.refuse(at, f"has {len(graph.output)} tensors; the graph has one output")
        elif isinstance(value := self._values[graph.output[0].name], Value):
            self.output(at, value)

    def _joined(self, at: At, norm: "_Norm") -> Value:
        x = self._values[norm.source]
        if not isinstance(x, Value) or (x.shape is not None and x.shape[2:] != norm.pixels):
            return self.refuse(at, "is a response norm in pieces, of another image than it is given")
        return self.response_norm(at, x, size=norm.size, alpha=norm.alpha, beta=norm.beta, k=norm.k)

    @staticmethod
    def _declared(value: Any) -> list[int]:
        """Sizes of an input, 0 where they are left open."""
        return [each.dim_value for each in value.type.tensor_type.shape.dim]

    @staticmethod
    def _operator(node: Any) -> str:
        return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"

    def _given(self, value: Any, shape: list[int], number: int) -> Value:
        at, kind = At("input", value.name, "input"), value.type.tensor_type.elem_type
        whole = (self.batch, *shape[1:])
        if number:
            return self.refuse(at, "a second input; the graph is given one", whole)
        if kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16):
            return self.refuse(at, f"numbers of {onnx.TensorProto.DataType.Name(kind)}; the graph is given real ones", whole)
        if not shape or 0 in shape[1:]:
            return self.refuse(at, "leaves the size of an image open; the graph has one size")
        return self.input(at, whole)

    @staticmethod
    def _needed(graph: Any) -> list[Any]:
        wanted = {each.name for each in graph.output}
        found = []
        for node in reversed(graph.node):
            if wanted & set(node.output):
                wanted |= set(node.input)
                found.append(node)
        return found[::-1]

    def _computed(self, node: Any) -> Any:
        """Of shapes and constants alone; None where it depends on the model's input, or is a weight in another shape."""
        kind = self._operator(node)
        given = [self._values[name] for name in node.input]
        if kind == "Constant":
            return Tensor(node.output[0], ReferenceEvaluator(node).run(None, {})[0])
        if kind == "Shape" and isinstance(given[0], Value) and given[0].shape is not None:
            return Tensor(node.output[0], self._evaluated(node, [np.zeros(given[0].shape, np.float32)]), learned=False)
        if not given or not all(isinstance(each, Tensor) or each is None for each in given) or given[0] is None:
            return None
        tensor, array = given[0], given[0].array
        if kind == "Identity":
            # Exporters keep equal weights once: each of their users learns its own.
            return Tensor(node.output[0], array, learned=tensor.learned)
        if array.dtype.kind == "f" and kind in ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            if kind == "Transpose":
                axes = next((each.ints for each in node.attribute if each.name == "perm"), range(array.ndim)[::-1])
                return tensor.permuted(*axes)
            found = self._evaluated(node, [None if each is None else each.array for each in given])
            return tensor.reshaped(*found.shape)
        try:
            found = self._evaluated(node, [None if each is None else each.array for each in given])
        except Exception:
            return None
        return Tensor(node.output[0], np.asarray(found), learned=False)

    def _evaluated(self, node: Any, given: Sequence[NDArray | None]) -> NDArray:
        feeds = {name: array for name, array in zip(node.input, given, strict=True) if array is not None}
        proto = onnx.helper.make_model(
            onnx.helper.make_graph(
                [node],
                "node",
                [
                    onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                    for name, array in feeds.items()
                ],
                [onnx.ValueInfoProto(name=node.output[0])],
            ),
            opset_imports=[onnx.helper.make_opsetid("", self.opset)],
        )
        return ReferenceEvaluator(proto).run([node.output[0]], feeds)[0]

    def last(self, name: str) -> bool:
        """Whether it is the model's output and nothing else reads it."""
        return name in self._last


class _Norm(NamedTuple):
    """A response norm, of what value, and of images of how many rows and columns."""

    source: str
    pixels: tuple[int, int]
    size: int
    alpha: float
    beta: float
    k: float


class _Pieces:
    """Response norms as PyTorch's exporter writes them: x / (mean over neighbouring channels of x·x · alpha + k) ^ beta.

    Members
    -------
    norms : dict of str to _Norm
        By the name of what the last of the nodes gives.
    within : set of str
        What the others give, which nothing else reads.
    """

    def __init__(self, nodes: Sequence[Any], held: Mapping[str, NDArray]) -> None:
        self._makers = {name: node for node in nodes for name in node.output}
        self._held = held
        readers = Counter(name for node in nodes for name in node.input)
        self.norms: dict[str, _Norm] = {}
        self.within: set[str] = set()
        for node in nodes:
            if node.op_type != "Div":
                continue
            self._seen: list[str] = []
            norm = self._norm(node)
            if norm is not None and all(readers[name] == 1 for name in self._seen):
                self.norms[node.output[0]] = norm
                self.within |= set(self._seen)

    def _made(self, name: str, kind: str) -> Any:
        """The node of that operator which gives a value."""
        node = self._makers.get(name)
        if node is None or node.op_type != kind:
            raise LookupError(name)
        self._seen.append(name)
        return node

    def _scalar(self, node: Any) -> tuple[str, float]:
        """Of a node with a number and a value: the value, and the number as it was typed."""
        for one, other in (node.input, node.input[::-1]):
            if other in self._held and self._held[other].size == 1:
                return one, float(str(np.float32(self._held[other].reshape(()))))
        raise LookupError(node.name)

    def _norm(self, last: Any) -> _Norm | None:
        source, divisor = last.input
        try:
            power = self._made(divisor, "Pow")
            if power.input[1] not in self._held:
                return None
            base, beta = self._scalar(power)
            scaled, k = self._scalar(self._made(base, "Add"))
            mean, alpha = self._scalar(self._made(scaled, "Mul"))
            pool = self._made(self._made(mean, "Squeeze").input[0], "AveragePool")
            pad = self._made(pool.input[0], "Pad")
            image = self._made(pad.input[0], "Reshape")
            squared = self._made(image.input[0], "Mul")
            settings = {each.name: onnx.helper.get_attribute_value(each) for each in pool.attribute}
            size, pads, shape = settings["kernel_shape"][0], self._held[pad.input[1]].tolist(), self._held[image.input[1]].tolist()
        except LookupError:
            return None
        wanted = [0, 0, size // 2, 0, 0, 0, 0, (size - 1) // 2, 0, 0]
        plain = (
            settings["kernel_shape"][1:] == [1, 1] and {*settings.get("strides", [1])} == {1} and not any(settings.get("pads", []))
        )
        zeros = all(not name or (name in self._held and not self._held[name].any()) for name in pad.input[2:])
        constant = all(onnx.helper.get_attribute_value(each) == b"constant" for each in pad.attribute if each.name == "mode")
        if list(squared.input) != [source, source] or not plain or not zeros or not constant or pads != wanted:
            return None
        return _Norm(source, (shape[3], shape[4]), size, alpha, beta, k) if len(shape) == 5 and shape[1] == 1 else None


class _Given:
    """What a node has: its inputs, as values, tensors or None, and its attributes."""

    def __init__(self, node: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> None:
        self.node, self._inputs, self._attributes = node, inputs, attributes

    def value(self, number: int = 0) -> Value:
        found = self._inputs[number]
        return found if isinstance(found, Value) else Value(None, None)

    def is_value(self, number: int) -> bool:
        return isinstance(self._inputs[number], Value)

    def tensor(self, number: int) -> Tensor | None:
        found = self._inputs[number] if number < len(self._inputs) else None
        return found if isinstance(found, Tensor) else None

    def has(self, number: int) -> bool:
        return number < len(self._inputs) and self._inputs[number] is not None

    def count(self) -> int:
        return len(self._inputs)

    def attribute(self, name: str, default: Any = None) -> Any:
        found = self._attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def numbers(self, number: int, name: str) -> list[int] | None:
        """Of an input, or in older files of an attribute."""
        if self.has(number):
            tensor = self.tensor(number)
            return None if tensor is None else [int(each) for each in tensor.array.reshape(-1)]
        found = self.attribute(name)
        return None if found is None else list(found)

    def real(self, name: str, default: float) -> float:
        """An attribute, which the file has in FP32, as it was typed."""
        return float(str(np.float32(self.attribute(name, default))))


def _padding(given: _Given, x: Value, kernel: Two, stride: Two, dilation: Two) -> Two | None:
    """Of both sides; None where they differ."""
    pads = given.attribute("pads", [0, 0, 0, 0])
    auto = given.attribute("auto_pad", "NOTSET")
    if auto == "VALID":
        return 0, 0
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        if x.shape is None or len(x.shape) != 4:
            return 0, 0
        over = [
            max(0, (-(-size // step) - 1) * step + (across - 1) * apart + 1 - size)
            for size, across, step, apart in zip(x.shape[2:], kernel, stride, dilation, strict=True)
        ]
        return None if any(each % 2 for each in over) else (over[0] // 2, over[1] // 2)
    half = len(pads) // 2
    return (pads[0], pads[half - 1]) if pads[:half] == pads[half:] else None


def _conv(walk: _Walk, at: At, given: _Given) -> Value:
    weight = given.tensor(1)
    kernel = two(weight.array.shape[2:]) if weight is not None and weight.array.ndim == 4 else (1, 1)
    stride, dilation = two(given.attribute("strides", [1, 1])), two(given.attribute("dilations", [1, 1]))
    return walk.conv(
        at,
        given.value(),
        weight,
        given.tensor(2),
        stride=stride,
        padding=_padding(given, given.value(), kernel, stride, dilation),
        dilation=dilation,
        groups=given.attribute("group", 1),
        biased=given.has(2),
    )


def _gemm(walk: _Walk, at: At, given: _Given) -> Value:
    alpha, beta = given.attribute("alpha", 1.0), given.attribute("beta", 1.0)
    if alpha != 1 or (beta != 1 and given.has(2)) or given.attribute("transA", 0):
        return walk.refuse(at, f"alpha {alpha:g}, beta {beta:g}, transA {given.attribute('transA', 0)}")
    weight = given.tensor(1)
    if weight is not None and not given.attribute("transB", 0):
        weight = weight.permuted(1, 0)
    bias = given.tensor(2)
    if bias is not None and weight is not None and bias.array.size != weight.array.shape[0]:
        return walk.refuse(at, f"adds {'×'.join(map(str, bias.array.shape))} numbers, not one to each output")
    return walk.dense(at, given.value(), weight, bias, biased=given.has(2))


def _matmul(walk: _Walk, at: At, given: _Given) -> Value:
    weight = given.tensor(1)
    turned = weight.permuted(1, 0) if weight is not None and weight.array.ndim == 2 and given.is_value(0) else None
    return walk.dense(at, given.value(), turned, None, biased=False)


def _add(walk: _Walk, at: At, given: _Given) -> Value:
    values = [number for number in range(given.count()) if given.is_value(number)]
    if len(values) == given.count():
        return walk.add(at, [given.value(number) for number in values]) if len(values) > 1 else given.value()
    if given.count() > 2:
        return walk.refuse(at, "adds the model's own numbers to a sum")
    return walk.bias(at, given.value(values[0]), given.tensor(1 - values[0]))


def _batch_norm(walk: _Walk, at: At, given: _Given) -> Value:
    if given.attribute("spatial", 1) != 1:
        return walk.refuse(at, "of single pixels")
    momentum = round(1 - given.real("momentum", 0.9), 6)
    return walk.batch_norm(
        at,
        given.value(),
        *(given.tensor(number) for number in (1, 2, 3, 4)),
        epsilon=given.real("epsilon", 1e-5),
        momentum=momentum,
    )


def _dropout(walk: _Walk, at: At, given: _Given) -> Value:
    training = given.tensor(2)
    rate = given.tensor(1)
    share = float(rate.array) if rate is not None else given.real("ratio", 0.5)
    return walk.dropout(at, given.value(), share, learning=training is not None and bool(training.array))


def _pool(kind: type[MaxPool] | type[AvgPool]) -> "_Operator":
    def pooled(walk: _Walk, at: At, given: _Given) -> Value:
        shape = given.attribute("kernel_shape")
        if len(shape) != 2:
            return walk.refuse(at, f"pooling in {len(shape)} dimensions")
        if len(given.node.output) > 1:
            return walk.refuse(at, "where the largest of a window was")
        size, stride = two(shape), two(given.attribute("strides", [1, 1]))
        dilation = two(given.attribute("dilations", [1, 1]))
        return walk.pool(
            at,
            given.value(),
            kind,
            size=size,
            stride=stride,
            padding=_padding(given, given.value(), size, stride, dilation),
            dilation=dilation,
            ceil=bool(given.attribute("ceil_mode", 0)),
            counts=bool(given.attribute("count_include_pad", 0)),
        )

    return pooled


def _global(kind: type[MaxPool] | type[AvgPool]) -> "_Operator":
    return lambda walk, at, given: walk.adaptive_pool(at, given.value(), kind, (1, 1))


def _mean(walk: _Walk, at: At, given: _Given) -> Value:
    x = given.value()
    axes = given.numbers(1, "axes") or list(range(len(x.shape or ())))
    return walk.mean(at, x, axes, kept=bool(given.attribute("keepdims", 1)))


def _response_norm(walk: _Walk, at: At, given: _Given) -> Value:
    size = given.attribute("size")
    if size % 2 == 0:
        reason = f"of {size} channels, one more behind than before; the graph has it the other way round"
        return walk.refuse(at, reason, given.value().shape)
    return walk.response_norm(
        at, given.value(), size=size, alpha=given.real("alpha", 1e-4), beta=given.real("beta", 0.75), k=given.real("bias", 1.0)
    )


def _clip(walk: _Walk, at: At, given: _Given) -> Value:
    low, high = given.tensor(1), given.tensor(2)
    least = low.array if low is not None else given.attribute("min")
    most = high.array if high is not None else given.attribute("max")
    if least is None or float(least) != 0 or (most is not None and np.isfinite(most) and float(most) < np.finfo(np.float32).max):
        return walk.refuse(at, "to other bounds than 0 and none; the graph has max(x, 0)", given.value().shape)
    return walk.relu(at, given.value())


def _concat(walk: _Walk, at: At, given: _Given) -> Value:
    if not all(given.is_value(number) for number in range(given.count())):
        return walk.refuse(at, "puts the model's own numbers behind others")
    return walk.concat(at, [given.value(number) for number in range(given.count())], given.attribute("axis"))


def _flatten(walk: _Walk, at: At, given: _Given) -> Value:
    x, axis = given.value(), given.attribute("axis", 1)
    if x.shape is None:
        return Value(None, None)
    axis = axis % len(x.shape) if axis < 0 else axis
    return walk.reshape(at, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


def _reshape(walk: _Walk, at: At, given: _Given) -> Value:
    x, wanted = given.value(), given.numbers(1, "shape")
    if x.shape is None:
        return Value(None, None)
    if wanted is None:
        return walk.refuse(at, "to a shape that depends on the samples")
    copied = not given.attribute("allowzero", 0)
    shape = [x.shape[i] if each == 0 and copied and i < len(x.shape) else each for i, each in enumerate(wanted)]
    if -1 in shape and (rest := -prod(shape)) and prod(x.shape) % rest == 0:
        shape[shape.index(-1)] = prod(x.shape) // rest
    return walk.reshape(at, x, tuple(shape))


def _squeeze(walk: _Walk, at: At, given: _Given) -> Value:
    x, axes = given.value(), given.numbers(1, "axes")
    if x.shape is None:
        return Value(None, None)
    rank = len(x.shape)
    dropped = {axis % rank for axis in axes} if axes else {axis for axis in range(rank) if x.shape[axis] == 1}
    return walk.reshape(at, x, tuple(size for axis, size in enumerate(x.shape) if axis not in dropped))


def _unsqueeze(walk: _Walk, at: At, given: _Given) -> Value:
    x, axes = given.value(), given.numbers(1, "axes") or []
    if x.shape is None:
        return Value(None, None)
    rank, sizes = len(x.shape) + len(axes), iter(x.shape)
    new = {axis % rank for axis in axes}
    return walk.reshape(at, x, tuple(1 if axis in new else next(sizes) for axis in range(rank)))


def _transpose(walk: _Walk, at: At, given: _Given) -> Value:
    x = given.value()
    return walk.permute(at, x, given.attribute("perm") or range(len(x.shape or ()))[::-1])


def _softmax(walk: _Walk, at: At, given: _Given) -> Value:
    axis = given.attribute("axis", -1 if walk.opset >= 13 else 1)
    return walk.softmax(at, given.value(), axis, last=walk.last(given.node.output[0]))


def _cast(walk: _Walk, at: At, given: _Given) -> Value:
    kind = given.attribute("to")
    if kind != onnx.TensorProto.FLOAT:
        return walk.refuse(at, f"to {onnx.TensorProto.DataType.Name(kind)}", given.value().shape)
    return given.value()


_Operator = Callable[[_Walk, At, _Given], Value]
_OPERATORS: dict[str, _Operator] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _add,
    "Sum": _add,
    "BatchNormalization": _batch_norm,
    "Relu": lambda walk, at, given: walk.relu(at, given.value()),
    "Clip": _clip,
    "Dropout": _dropout,
    "MaxPool": _pool(MaxPool),
    "AveragePool": _pool(AvgPool),
    "GlobalAveragePool": _global(AvgPool),
    "GlobalMaxPool": _global(MaxPool),
    "ReduceMean": _mean,
    "LRN": _response_norm,
    "Concat": _concat,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Identity": lambda walk, at, given: given.value(),
    "Cast": _cast,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
}
