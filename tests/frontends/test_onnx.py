"""Files as exporters write them: operators one by one, against ONNX's own reference, and whole networks of torch's exporter."""

import itertools
import os

import numpy as np
import pytest
from nibblecore.sim.compiler.network import AvgPool, BatchNorm, Conv2d, Dense, LocalResponseNorm, MaxPool

pytest.importorskip("onnx", reason="ONNX is not installed: make test-torch installs it")
pytest.importorskip("torch", reason="PyTorch is not installed: make test-torch installs it")

import torch
from frontends.torches import outputs, settled
from nibblecore.sim.frontends.imported import Refused, Unsupported
from nibblecore.sim.frontends.models import MODELS
from nibblecore.sim.frontends.onnx import from_onnx
from onnx import TensorProto, helper, numpy_helper, save
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_shapes

IMAGE = ("batch", 3, 8, 6)


class File:
    """A model under construction: `add` a node, whose inputs are names or the numbers of an initializer."""

    def __init__(self, path, shape=IMAGE, opset=17, kind=TensorProto.FLOAT):
        self.path, self.shape, self.opset, self.kind = path / "model.onnx", shape, opset, kind
        self.nodes, self.held, self.rng = [], [], np.random.default_rng(0)

    def drawn(self, *shape):
        return self.rng.normal(0, prod_of(shape[1:]) ** -0.5, shape).astype(np.float32)

    def add(self, operator, *inputs, outputs=1, name=None, **attributes):
        names = []
        for each in inputs:
            if not isinstance(each, str):
                self.held.append(numpy_helper.from_array(np.asarray(each), f"held{len(self.held)}"))
                each = self.held[-1].name
            names.append(each)
        number = len(self.nodes)
        found = [f"value{number}_{output}" for output in range(outputs)]
        self.nodes.append(helper.make_node(operator, names, found, name=f"node{number}" if name is None else name, **attributes))
        return found[0]

    def write(self, *last):
        given = helper.make_tensor_value_info("x", self.kind, self.shape)
        ends = [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in last]
        graph = helper.make_graph(self.nodes, "model", [given], ends, self.held)
        model = infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8))
        for each in model.graph.output:
            if not each.type.tensor_type.HasField("shape"):
                each.type.tensor_type.shape.dim.add().dim_param = "open"
        save(model, self.path)
        return model


def prod_of(shape):
    return max(1, int(np.prod(shape)))


def agrees(file, last, samples=2):
    """The graph of a file, whose outputs are those of ONNX's reference."""
    model = file.write(last)
    x = np.random.default_rng(1).uniform(-1, 1, (samples, *(size for size in file.shape[1:]))).astype(np.float32)
    wanted = ReferenceEvaluator(model).run(None, {"x": x})[0].reshape(samples, -1)
    found = from_onnx(file.path)
    assert np.abs(wanted).max() > 1e-3 and np.abs(outputs(found, x) - wanted).max() < 1e-5
    return found


def layers(model):
    return [node.layer for node in model.graph.nodes]


def test_names_and_weights(tmp_path):
    file = File(tmp_path)
    weights, bias = file.drawn(4, 3, 3, 2), file.drawn(4)
    y = file.add("Conv", "x", weights, bias, name="/features/0/Conv", strides=[2, 1], pads=[1, 0, 1, 0])
    y = file.add("Relu", y, name="")
    model = agrees(file, y)
    assert [node.name for node in model.graph.nodes] == ["/features/0/Conv", "value1_0"]
    assert layers(model)[0] == Conv2d(4, (3, 2), (2, 1), (1, 0), bias=True)
    assert [tensor.name for tensor in model.tensors] == ["held0", "held1"] and model.graph.inputs == (8, 6, 3)
    returned = model.returned(model.parameters)
    assert (returned["held0"] == weights).all() and (returned["held1"] == bias).all()


@pytest.mark.parametrize(("turned", "biased"), itertools.product((0, 1), (False, True)))
def test_gemm(turned, biased, tmp_path):
    file = File(tmp_path, ("batch", 6))
    weights = file.drawn(5, 6) if turned else file.drawn(6, 5)
    y = file.add("Gemm", "x", weights, *([file.drawn(5)] if biased else []), transB=turned)
    assert layers(agrees(file, y)) == [Dense(5, bias=biased)]


@pytest.mark.parametrize("first", [False, True])
def test_a_product_and_a_sum(first, tmp_path):
    file = File(tmp_path, ("batch", 6))
    y = file.add("MatMul", "x", file.drawn(6, 5))
    bias = file.drawn(1, 5)
    y = file.add("Add", *((bias, y) if first else (y, bias)))
    assert layers(agrees(file, y)) == [Dense(5, bias=True)]


def test_a_convolution_and_a_sum(tmp_path):
    file = File(tmp_path)
    y = file.add("Add", file.add("Conv", "x", file.drawn(4, 3, 3, 3)), file.drawn(4, 1, 1))
    assert layers(agrees(file, y)) == [Conv2d(4, 3, bias=True)]


def flattened(file, y, way):
    if way == "flatten":
        return file.add("Flatten", y)
    if way == "axis -3":
        return file.add("Flatten", y, axis=-3)
    if way == "copied batch":
        return file.add("Reshape", y, np.array([0, -1]))
    if way == "open batch":
        return file.add("Reshape", y, np.array([-1, 4 * 7 * 5]))
    if way == "a constant":
        shape = file.add("Constant", value=numpy_helper.from_array(np.array([-1, 140])))
        return file.add("Reshape", y, shape)
    if way == "two steps":
        return file.add("Reshape", file.add("Reshape", y, np.array([0, 4, -1])), np.array([0, 140]))
    size = file.add("Gather", file.add("Shape", y), np.array(0), axis=0)
    whole = file.add("Concat", file.add("Unsqueeze", size, np.array([0])), np.array([-1]), axis=0)
    return file.add("Reshape", y, whole)


@pytest.mark.parametrize("way", ["flatten", "axis -3", "copied batch", "open batch", "a constant", "two steps", "computed"])
@pytest.mark.parametrize("batch", ["batch", 1, 2])
def test_ways_to_flatten(way, batch, tmp_path):
    file = File(tmp_path, (batch, 3, 8, 6))
    y = flattened(file, file.add("Conv", "x", file.drawn(4, 3, 2, 2), file.drawn(4)), way)
    y = file.add("Gemm", y, file.drawn(5, 140), file.drawn(5), transB=1)
    agrees(file, y, samples=1 if batch == 1 else 2)


def test_weights_that_are_turned_first(tmp_path):
    file = File(tmp_path)
    weights = file.add("Transpose", file.drawn(5, 140), perm=[1, 0])
    y = flattened(file, file.add("Conv", "x", file.drawn(4, 3, 2, 2)), "flatten")
    y = file.add("MatMul", y, weights)
    y = file.add("Add", y, file.add("Reshape", file.drawn(1, 1, 5), np.array([5])))
    model = agrees(file, y)
    assert [each.shape for each in model.returned(model.parameters).values()] == [(4, 3, 2, 2), (5, 140), (1, 1, 5)]


@pytest.mark.parametrize(
    ("operator", "attributes", "layer"),
    [
        ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 0]}, MaxPool((3, 2), (2, 1), (1, 0))),
        ("MaxPool", {"kernel_shape": [2, 2]}, MaxPool(2, 1)),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, MaxPool(2, 2)),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, AvgPool(3, 1, 1, False)),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, AvgPool(3, 1, 1)),
        ("AveragePool", {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, AvgPool(3, 1, 1, False)),
        ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "VALID", "strides": [2, 2]}, AvgPool(2, 2)),
        ("GlobalAveragePool", {}, AvgPool((8, 6), (8, 6))),
        ("GlobalMaxPool", {}, MaxPool((8, 6), (8, 6))),
        ("ReduceMean", {"axes": [2, 3]}, AvgPool((8, 6), (8, 6))),
        ("LRN", {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 2.0}, LocalResponseNorm(3, 0.5, 0.6, 2.0)),
    ],
)
def test_pools_and_norms(operator, attributes, layer, tmp_path):
    file = File(tmp_path)
    # ONNX's reference computes a response norm for as many channels as there are samples.
    model = agrees(file, file.add(operator, "x", **attributes), samples=3)
    assert layers(model) == [layer]


def test_a_batch_norm(tmp_path):
    file = File(tmp_path)
    numbers = [np.abs(file.drawn(3)) + 0.5 for _ in range(4)]
    y = file.add("BatchNormalization", "x", *numbers, epsilon=1e-3, momentum=0.8)
    model = agrees(file, y)
    assert layers(model) == [BatchNorm(1e-3, 0.2)]
    assert [tensor.name for tensor in model.running["node0"]] == ["held2", "held3"]


def test_branches(tmp_path):
    file = File(tmp_path)
    one = file.add("Relu", file.add("Conv", "x", file.drawn(4, 3, 3, 3), pads=[1, 1, 1, 1]))
    other = file.add("Conv", "x", file.drawn(4, 3, 1, 1))
    y = file.add("Concat", file.add("Sum", one, other, one), file.add("Identity", "x"), axis=1)
    y = file.add("Squeeze", file.add("GlobalAveragePool", file.add("Clip", y, np.float32(0))), np.array([2, 3]))
    agrees(file, y)


@pytest.mark.parametrize("opset", [9, 11, 13, 17])
def test_operators_of_earlier_years(opset, tmp_path):
    """Where axes, ratios and bounds are attributes, and softmax means all axes from one on."""
    file = File(tmp_path, opset=opset)
    y = file.add("Conv", "x", file.drawn(4, 3, 3, 3))
    y = file.add("Clip", y, min=0.0) if opset < 11 else file.add("Clip", y, np.float32(0))
    y = file.add("Dropout", y, ratio=0.3) if opset < 12 else file.add("Dropout", y, np.float32(0.3))
    y = file.add("GlobalAveragePool", y)
    y = file.add("Squeeze", y, axes=[2, 3]) if opset < 13 else file.add("Squeeze", y, np.array([2, 3]))
    y = file.add("Gemm", y, file.drawn(5, 4), file.drawn(5), transB=1)
    model = agrees(file, y)
    assert model.notes == ["node2: Dropout: drops nothing in a test, rate 0.3: not in the graph"]
    file.write(file.add("Softmax", y))
    assert layers(from_onnx(file.path)) == layers(model)


def test_what_nothing_needs_is_left_out(tmp_path):
    file = File(tmp_path)
    y = file.add("Conv", "x", file.drawn(4, 3, 3, 3))
    file.add("Tanh", y)
    assert layers(agrees(file, y)) == [Conv2d(4, 3)]


def test_all_is_refused_in_one_list(tmp_path):
    file = File(tmp_path)
    y = file.add("Conv", "x", file.drawn(4, 3, 3, 3), dilations=[2, 2], name="first")
    y = file.add("Tanh", y, name="second")
    y = file.add("Conv", y, file.drawn(4, 4, 2, 2), name="third")
    y = file.add("Mul", y, np.float32(2), name="fourth")
    file.write(file.add("Conv", y, file.drawn(4, 4, 1, 1), dilations=[3, 3], name="fifth"))
    with pytest.raises(Unsupported) as caught:
        from_onnx(file.path)
    assert caught.value.refused == (
        Refused("first", "Conv", "dilation 2×2"),
        Refused("second", "Tanh", "is not one of the graph's layers"),
        Refused("fourth", "Mul", "is not one of the graph's layers"),
        Refused("fifth", "Conv", "dilation 3×3"),
    )


REFUSED = {
    "sides that differ": (
        lambda f: f.add("Conv", "x", f.drawn(4, 3, 2, 2), pads=[0, 0, 1, 1]),
        "more padding at one side than at the other",
    ),
    "the same by auto_pad": (
        lambda f: f.add("Conv", "x", f.drawn(4, 3, 2, 2), auto_pad="SAME_UPPER"),
        "more padding at one side than at the other",
    ),
    "another factor": (lambda f: f.add("Gemm", f.add("Flatten", "x"), f.drawn(144, 5), alpha=0.5), "alpha 0.5, beta 1, transA 0"),
    "a bound": (
        lambda f: f.add("Clip", "x", np.float32(0), np.float32(6)),
        "to other bounds than 0 and none; the graph has max(x, 0)",
    ),
    "a computed weight": (
        lambda f: f.add("Conv", "x", f.add("Mul", f.drawn(4, 3, 2, 2), np.float32(2))),
        "value0_0 is no parameter, and the graph learns all its weights",
    ),
    "a shape that depends": (
        lambda f: f.add("Reshape", "x", f.add("Cast", f.add("Flatten", "x"), to=TensorProto.INT64)),
        "to a shape that depends on the samples",
    ),
    "a product of two": (
        lambda f: f.add("MatMul", "x", f.add("Transpose", "x", perm=[0, 1, 3, 2])),
        "a product of two numbers that are computed",
    ),
    "a norm of an even number": (
        lambda f: f.add("LRN", "x", size=4),
        "of 4 channels, one more behind than before; the graph has it the other way round",
    ),
    "a cast": (lambda f: f.add("Cast", "x", to=TensorProto.FLOAT16), "to FLOAT16"),
    "softmax of pixels": (lambda f: f.add("Softmax", "x", axis=2), "of 3×3×8×6 numbers along axis 2, not of the classes"),
    "a sum of three": (lambda f: f.add("Sum", "x", "x", f.drawn(3, 1, 1)), "adds the model's own numbers to a sum"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    build, reason = REFUSED[name]
    file = File(tmp_path)
    file.write(build(file))
    with pytest.raises(Unsupported) as caught:
        from_onnx(file.path)
    assert reason in [each.reason for each in caught.value.refused]


def test_inputs_and_outputs(tmp_path):
    def reasons(file, *last):
        file.write(*last)
        with pytest.raises(Unsupported) as caught:
            from_onnx(file.path)
        return [each.reason for each in caught.value.refused]

    file = File(tmp_path, ("batch", 3, "height", "width"))
    assert reasons(file, file.add("Relu", "x"))[0] == "leaves the size of an image open; the graph has one size"
    file = File(tmp_path, ("batch", 4), kind=TensorProto.INT64)
    assert "numbers of INT64; the graph is given real ones" in reasons(file, file.add("Cast", "x", to=TensorProto.FLOAT))
    file = File(tmp_path)
    assert reasons(file, file.add("Relu", "x"), file.add("Relu", "x")) == ["has 2 tensors; the graph has one output"]


def test_what_is_no_file_of_onnx(tmp_path):
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("this is no model")
    with pytest.raises(Unsupported, match="is no whole model"):
        from_onnx(tmp_path / "text.onnx")
    file = File(tmp_path)
    file.write(file.add("Relu", "x"))
    file.path.write_bytes(file.path.read_bytes()[:-20])
    with pytest.raises(Unsupported, match="is no whole model"):
        from_onnx(file.path)


def pieces(file, source, size, pads=None, shape=(-1, 1, 4, 6, 4), alpha=0.5, mode="constant"):
    """A response norm as torch's exporter writes it."""
    squared = file.add("Reshape", file.add("Mul", source, source), np.array(shape))
    pads = [0, 0, size // 2, 0, 0, 0, 0, (size - 1) // 2, 0, 0] if pads is None else pads
    mean = file.add(
        "AveragePool", file.add("Pad", squared, np.array(pads), mode=mode), kernel_shape=[size, 1, 1], strides=[1, 1, 1]
    )
    scaled = file.add("Mul", file.add("Squeeze", mean, np.array([1])), np.float32(alpha))
    return file.add("Div", source, file.add("Pow", file.add("Add", scaled, np.float32(2)), np.float32(0.6)))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_response_norm_in_pieces(size, tmp_path):
    file = File(tmp_path)
    y = pieces(file, file.add("Conv", "x", file.drawn(4, 3, 3, 3)), size, shape=(-1, 1, 4, 6, 4))
    assert layers(agrees(file, y)) == [Conv2d(4, 3), LocalResponseNorm(size, 0.5, 0.6, 2.0)]


@pytest.mark.parametrize(
    "change", [{"pads": [0, 0, 0, 0, 0, 0, 0, 2, 0, 0]}, {"mode": "reflect"}, {"shape": (-1, 4, 1, 6, 4), "pads": [0] * 10}]
)
def test_what_is_only_like_a_response_norm(change, tmp_path):
    file = File(tmp_path)
    file.write(pieces(file, file.add("Conv", "x", file.drawn(4, 3, 3, 3)), 3, **change))
    with pytest.raises(Unsupported, match="Div: is not one of the graph's layers"):
        from_onnx(file.path)


def test_a_response_norm_whose_pieces_others_read(tmp_path):
    file = File(tmp_path)
    source = file.add("Conv", "x", file.drawn(4, 3, 3, 3))
    y = pieces(file, source, 3)
    file.write(file.add("Add", y, file.nodes[-2].output[0]))
    with pytest.raises(Unsupported, match="Pow: is not one of the graph's layers"):
        from_onnx(file.path)


SIZES = {"inception_v3": 75, "vgg16": 32, "vgg7": 16, "squeezenet": 48, "alexnet": 67, "googlenet": 48}


QUICK = ("vgg7", "squeezenet")
"""The exporter takes half a minute and more for the others."""


@pytest.mark.parametrize("name", sorted(MODELS) if os.environ.get("LONG") == "1" else QUICK)
def test_networks_by_torchs_exporter(name, tmp_path):
    """With batch norms folded into convolutions, and any number of samples."""
    size = SIZES.get(name, 32)
    module, x = settled(MODELS[name](10, size, 0.05)), torch.rand(2, 3, size, size)
    path = tmp_path / "model.onnx"
    torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False)
    found = from_onnx(path)
    assert not any(isinstance(node.layer, BatchNorm) for node in found.graph.nodes)
    with torch.no_grad():
        wanted = module.double()(x.double()).numpy()
    assert np.abs(wanted).max() > 1e-3 and np.abs(outputs(found, x.numpy()) - wanted).max() < 1e-5
