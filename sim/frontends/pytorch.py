"""Modules of PyTorch: to a graph by `torch.export`, and trained weights back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from nibblecore.sim.compiler.network import AvgPool, MaxPool
from numpy.typing import ArrayLike

from .imported import Imported, Refused, Tensor, Unsupported, missing
from .lowering import At, Lowering, Value, two

try:
    import torch
except ModuleNotFoundError:
    raise missing("torch") from None

__all__ = ["from_torch", "to_torch"]

_BATCH = 3
"""Samples that a module is exported with: no size that shapes are likely to have by chance."""


def from_torch(module: Any, example: Any) -> Imported:
    """A module as a graph, with its weights.

    What is exported is the module as it is: of one in `eval()` dropout is left out, with a note, and of one in `train()` it is a layer.

    Parameters
    ----------
    module : torch.nn.Module
    example : tensor, or array of numpy
        What `module` takes, any number of samples: rows of values, or images with the channels first.

    Raises `Unsupported`, with all that the graph has no place for, and TypeError for what is no module or no tensor.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}")
    given = example if isinstance(example, tuple | list) else (example,)
    inputs = [torch.from_numpy(each) if isinstance(each, np.ndarray) else each for each in given]
    if not inputs or not all(isinstance(each, torch.Tensor) and each.ndim for each in inputs):
        raise TypeError("the example must be a tensor or an array, of samples as the module takes them")
    return _Walk(module, *_exported(module, inputs)).imported()


def to_torch(
    module: Any,
    model: Imported,
    parameters: Sequence[ArrayLike],
    statistics: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
) -> None:
    """Trained parameters, and of batch norms the running statistics, to where in the module they came from; all else stays.

    `model` is what `from_torch` made of the module or of its like. Raises ValueError, with the module unchanged, for other shapes than the
    graph's, or for a module without those names and shapes.
    """
    found, state = model.returned(parameters, statistics), module.state_dict()
    for name, values in found.items():
        if name not in state or tuple(state[name].shape) != values.shape:
            raise ValueError(f"the module has no {name} of {'×'.join(map(str, values.shape))} numbers")
    with torch.no_grad():
        for name, values in found.items():
            state[name].copy_(torch.from_numpy(values))


def _exported(module: Any, inputs: Sequence[Any]) -> tuple[Any, int]:
    """The program, and samples of its shapes."""
    more = tuple(each[:1].expand(_BATCH, *each.shape[1:]).contiguous() for each in inputs)
    # A module may insist on the number of samples that it is shown.
    tries = [more] if inputs[0].shape[0] == _BATCH else [more, tuple(inputs)]
    for given in tries:
        try:
            return torch.export.export(module, given), given[0].shape[0]
        except Exception as error:
            said = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {said[0] if said else 'no reason given'}"
    raise Unsupported([Refused("the module", "torch.export", reason)])


class _Walk(Lowering):
    """Through an exported program, in its order.

    An operator that writes in place changes all values that are the same memory: views of it, and what it was given.
    """

    def __init__(self, module: Any, program: Any, batch: int) -> None:
        super().__init__(batch)
        self.module = module
        self._values: dict[Any, Any] = {}
        self._memory: dict[Any, Any] = {}
        self._place_inputs(program)
        for node in program.graph.nodes:
            if node.op == "call_function":
                self._values[node] = self._called(node)
            elif node.op not in ("placeholder", "output"):
                self.refuse(At(node.name, "the module", node.op), "is no operator")
        (end,) = (node for node in program.graph.nodes if node.op == "output")
        at = At("output", "the module", "output")
        outputs = end.args[0]
        if len(outputs) != 1:
            self.refuse(at, f"has {len(outputs)} tensors; the graph has one output")
        elif isinstance(value := self._values.get(outputs[0]), Value):
            self.output(at, value)
        else:
            self.refuse(at, "does not depend on what the module is given")

    def _place_inputs(self, program: Any) -> None:
        kinds = torch.export.graph_signature.InputKind
        placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
        given = 0
        for spec in program.graph_signature.input_specs:
            node = placeholders.get(spec.arg.name)
            if node is None:
                continue
            if spec.kind == kinds.USER_INPUT:
                self._values[node] = self._given(node, given)
                given += 1
                continue
            held = program.state_dict if spec.target in program.state_dict else program.constants
            tensor = held[spec.target].detach().cpu()
            array = tensor.float().numpy() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.numpy()
            self._values[node] = Tensor(spec.target, array, learned=spec.kind == kinds.PARAMETER)
        frozen = [name for name, each in self.module.named_parameters() if not each.requires_grad]
        if frozen:
            self.notes.append(f"the module: requires_grad is False of {', '.join(frozen)}: the graph learns all its weights")

    def _given(self, node: Any, number: int) -> Value:
        at, example = At("input", "the module", "input"), node.meta["val"]
        shape = tuple(example.shape)
        if number:
            return self.refuse(at, f"a second tensor, {node.name}; the graph is given one", shape)
        if not example.dtype.is_floating_point:
            return self.refuse(at, f"numbers of {example.dtype}; the graph is given real ones", shape)
        return self.input(at, shape)

    def _called(self, node: Any) -> Any:
        target, at = node.target, self._at(node)
        known, norm = _OPERATORS.get(at.operator), self.module_of(node)
        shape = self.shape(node)
        schema = getattr(target, "_schema", None)
        sources = [self._values[each] for each in node.all_input_nodes]
        if isinstance(norm, torch.nn.LocalResponseNorm):
            if at.operator != "div":
                return _COMPUTED
            (x, *_) = (source for source in sources if isinstance(source, Value))
            return self.response_norm(at, x, size=norm.size, alpha=norm.alpha, beta=norm.beta, k=norm.k)
        if at.operator == "getitem":
            x = sources[0] if isinstance(sources[0], Value) else Value(None, shape)
            return (
                x
                if node.args[1] == 0 or x.node is None or not node.users
                else self.refuse(at, "where the largest of a window was", shape)
            )
        own = [source for source in sources if isinstance(source, Tensor)]
        if schema is None or known is None:
            # Of the model's own numbers alone it is refused where something learns it.
            given = any(isinstance(source, Value) for source in sources)
            return self.refuse(at, "is not one of the graph's layers", shape) if given else _COMPUTED
        named = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
        named |= dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
        arguments = {name: self._argument(value) for name, value in named.items()}
        if not any(isinstance(source, Value) for source in sources):
            return self._tensor(at, own[0], arguments, node) if len(sources) == len(own) == 1 else _COMPUTED
        found = known(self, at, node, arguments)
        if isinstance(found, Value) and found.node is None:
            found = Value(None, shape)
        self._keep_in_step(node, schema, found)
        return found

    def _tensor(self, at: At, tensor: Tensor, arguments: Mapping[str, Any], node: Any) -> object:
        """Of the model's own numbers: what only changes their shape."""
        rank = tensor.array.ndim
        if at.operator in ("t", "numpy_T") and rank == 2:
            return tensor.permuted(1, 0)
        if at.operator == "transpose":
            axes = list(range(rank))
            one, other = arguments["dim0"] % rank, arguments["dim1"] % rank
            axes[one], axes[other] = axes[other], axes[one]
            return tensor.permuted(*axes)
        if at.operator == "permute":
            return tensor.permuted(*(axis % rank for axis in arguments["dims"]))
        if at.operator in _RESHAPES:
            return tensor.reshaped(*(self.shape(node) or ()))
        return _COMPUTED

    def _keep_in_step(self, node: Any, schema: Any, found: Any) -> None:
        """What is the same memory has what an operator wrote there."""
        first = node.args[0] if node.args and node.args[0] in self._values else None
        same = first is not None and schema.arguments[0].alias_info is not None
        passed = first is not None and schema.name.endswith("dropout") and found == self._values[first]
        self._memory[node] = self._memory.get(first, first) if same or passed else node
        if same and schema.arguments[0].alias_info.is_write and isinstance(found, Value):
            for other, value in self._values.items():
                if isinstance(value, Value) and self._memory.get(other, other) == self._memory[node]:
                    self._values[other] = Value(found.node, value.shape, found.whole)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return self._values[value]
        if isinstance(value, list | tuple):
            return [self._argument(each) for each in value]
        return value

    @staticmethod
    def shape(node: Any) -> tuple[int, ...] | None:
        shape = getattr(node.meta.get("val"), "shape", None)
        return None if shape is None else tuple(int(size) for size in shape)

    @staticmethod
    def _path(node: Any) -> str:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return stack[-1][0].partition("@")[0] if stack else ""

    def _at(self, node: Any) -> At:
        path, target = self._path(node), node.target
        operator = str(getattr(getattr(target, "_schema", None), "name", None) or getattr(target, "__name__", target))
        operator = operator.rpartition("::")[2]
        operator = operator[:-1] if operator.endswith("_") and operator[:-1] in _OPERATORS else operator
        own = path and type(self.module.get_submodule(path)).__module__.startswith("torch.nn.modules")
        name = path if own else f"{path}.{operator}" if path else operator
        return At(name, path or "the module", operator)

    def module_of(self, node: Any) -> Any:
        """The innermost that an operator is called in."""
        path = self._path(node)
        return self.module.get_submodule(path) if path else self.module

    def is_last(self, node: Any) -> bool:
        """Whether the module returns it and nothing else uses it."""
        return [each.op for each in node.users] == ["output"]


_COMPUTED = object()
"""In the place of a value: of the model's own numbers, and no longer one of its tensors."""
_Arguments = Mapping[str, Any]
_Operator = Callable[[_Walk, At, Any, _Arguments], Value]


def _value(arguments: _Arguments, name: str = "self") -> Value:
    value = arguments[name]
    return value if isinstance(value, Value) else Value(None, None)


def _tensor(arguments: _Arguments, name: str) -> Tensor | None:
    value = arguments[name]
    return value if isinstance(value, Tensor) else None


def _conv(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    weight, padding = _tensor(a, "weight"), a["padding"]
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        over = [d * (k - 1) for d, k in zip(two(a["dilation"]), weight.array.shape[2:] if weight else (1, 1), strict=True)]
        padding = None if any(each % 2 for each in over) else [each // 2 for each in over]
    return walk.conv(
        at,
        _value(a, "input"),
        weight,
        _tensor(a, "bias"),
        stride=two(a["stride"]),
        padding=None if padding is None else two(padding),
        dilation=two(a["dilation"]),
        groups=a["groups"],
        biased=a["bias"] is not None,
    )


def _linear(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    return walk.dense(at, _value(a, "input"), _tensor(a, "weight"), _tensor(a, "bias"), biased=a["bias"] is not None)


def _turned(tensor: Tensor | None) -> Tensor | None:
    return tensor.permuted(1, 0) if tensor is not None and tensor.array.ndim == 2 else None


def _matmul(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    second = a["other"] if "other" in a else a["mat2"]
    weight = _turned(second) if isinstance(second, Tensor) and isinstance(a["self"], Value) else None
    return walk.dense(at, _value(a), weight, None, biased=False)


def _addmm(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    if a["alpha"] != 1 or a["beta"] != 1:
        return walk.refuse(at, f"alpha {a['alpha']}, beta {a['beta']}")
    bias = _tensor(a, "self")
    if bias is not None and bias.array.ndim != 1:
        bias = None
    return walk.dense(at, _value(a, "mat1"), _turned(_tensor(a, "mat2")), bias, biased=True)


def _batch_norm(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    x = _value(a, "input")
    if getattr(walk.module_of(node), "momentum", 0.0) is None:
        return walk.refuse(at, "has no momentum: its running statistics are means of all steps", x.shape)
    mean = _tensor(a, "running_mean")
    if walk.module.training and mean is not None and not a["training"]:
        return walk.refuse(
            at, "is in eval() where the module is in train(): the graph's statistics are those of the batch", x.shape
        )
    return walk.batch_norm(
        at, x, _tensor(a, "weight"), _tensor(a, "bias"), mean, _tensor(a, "running_var"), epsilon=a["eps"], momentum=a["momentum"]
    )


def _dropout(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    if at.operator != "dropout" and a["train"]:
        return walk.refuse(at, "drops other values than one by one", _value(a, "input").shape)
    return walk.dropout(at, _value(a, "input"), a["p"], learning=a["train"])


def _clamp(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    least, most = a["min"], a.get("max")
    if not isinstance(least, int | float) or least != 0 or most is not None:
        return walk.refuse(at, "to other bounds than 0 and none; the graph has max(x, 0)", _value(a).shape)
    return walk.relu(at, _value(a))


def _max_pool(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    size = two(a["kernel_size"])
    return walk.pool(
        at,
        _value(a),
        MaxPool,
        size=size,
        stride=two(a["stride"]) if a["stride"] else size,
        padding=two(a["padding"]),
        dilation=two(a["dilation"]),
        ceil=a["ceil_mode"],
    )


def _avg_pool(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    size = two(a["kernel_size"])
    if a["divisor_override"] is not None:
        return walk.refuse(at, f"divides by {a['divisor_override']}", None)
    return walk.pool(
        at,
        _value(a),
        AvgPool,
        size=size,
        stride=two(a["stride"]) if a["stride"] else size,
        padding=two(a["padding"]),
        ceil=a["ceil_mode"],
        counts=a["count_include_pad"],
    )


def _adaptive(kind: type[MaxPool] | type[AvgPool]) -> _Operator:
    return lambda walk, at, node, a: walk.adaptive_pool(at, _value(a), kind, two(a["output_size"]))


def _mean(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    return walk.mean(at, _value(a), a.get("dim") or [], kept=a.get("keepdim", False))


def _add(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    one, other = a["self"], a["other"]
    if a["alpha"] != 1:
        return walk.refuse(at, f"alpha {a['alpha']}", None)
    if isinstance(one, Value) and isinstance(other, Value):
        return walk.add(at, [one, other])
    x, bias = (one, other) if isinstance(one, Value) else (other, one)
    return walk.bias(at, x if isinstance(x, Value) else Value(None, None), bias if isinstance(bias, Tensor) else None)


def _cat(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    if not all(isinstance(each, Value) for each in a["tensors"]):
        return walk.refuse(at, "puts the model's own numbers behind others")
    return walk.concat(at, a["tensors"], a["dim"])


def _reshape(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    return walk.reshape(at, _value(a), walk.shape(node) or ())


def _permute(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    x = _value(a)
    rank = len(x.shape or walk.shape(node) or ())
    axes = list(range(rank))
    if at.operator == "permute":
        axes = [axis % rank for axis in a["dims"]]
    elif at.operator == "transpose":
        one, other = a["dim0"] % rank, a["dim1"] % rank
        axes[one], axes[other] = axes[other], axes[one]
    else:
        axes.reverse()
    return walk.permute(at, x, axes)


def _same(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    x = _value(a)
    kinds = [each.meta["val"].dtype for each in (node, *node.all_input_nodes) if hasattr(each.meta.get("val"), "dtype")]
    if len(set(kinds)) > 1:
        return walk.refuse(at, f"from {kinds[1]} to {kinds[0]}", x.shape)
    return x


def _softmax(walk: _Walk, at: At, node: Any, a: _Arguments) -> Value:
    return walk.softmax(at, _value(a), a["dim"], last=walk.is_last(node))


_RESHAPES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
_OPERATORS: dict[str, _Operator] = {
    "conv2d": _conv,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "addmm": _addmm,
    "batch_norm": _batch_norm,
    "relu": lambda walk, at, node, a: walk.relu(at, _value(a)),
    "clamp_min": _clamp,
    "clamp": _clamp,
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "alpha_dropout": _dropout,
    "feature_alpha_dropout": _dropout,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive(AvgPool),
    "adaptive_max_pool2d": _adaptive(MaxPool),
    "mean": _mean,
    "add": _add,
    "cat": _cat,
    "concat": _cat,
    **dict.fromkeys(_RESHAPES, _reshape),
    **dict.fromkeys(("permute", "transpose", "t", "numpy_T"), _permute),
    **dict.fromkeys(("contiguous", "clone", "alias", "detach", "detach_", "to", "_to_copy"), _same),
    "softmax": _softmax,
    "log_softmax": _softmax,
}
