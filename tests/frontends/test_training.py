"""A module of PyTorch, or a file of ONNX, is trained on Cambricon-Q, and its weights return."""

import numpy as np
import pytest
from nibblecore.sim import cli
from nibblecore.sim.compiler.reference import Reference, loss
from nibblecore.sim.train import own, report
from nibblecore.sim.train.cambriconq.state import trained
from nibblecore.sim.train.checkpoint import Checkpoint

pytest.importorskip("torch", reason="PyTorch is not installed: make test-torch installs it")

import torch
from nibblecore.sim.frontends.pytorch import from_torch, to_torch

MODEL = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(2, 4, 2, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 3)
    ).eval()

def learning():
    return build().train()

def transformer():
    return nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(16, 2, 8, batch_first=True))
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "_plot", lambda path, *_: path.write_bytes(b""))
    tmp_path.joinpath("mine.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (50, 2, 4, 4)).astype(np.float32)
    np.savez("mine.npz", x=x, y=x.reshape(50, -1)[:, :3].argmax(axis=1))
    return tmp_path


def command(*words):
    return cli.main(["train", "MACHINE=cambriconq", "TRANSPORT=functional", "OUTPUT=out", "DATA=mine.npz", *words])


def test_a_module_is_trained_and_its_weights_return(place, capsys):
    assert command("MODEL=mine.py:build", "OPT=momentum", "LR=0.05", "BITS=16", "BATCH=20", "STEPS=3", "SEED=4") == 0
    out, err = capsys.readouterr()
    assert "note: 4: dropout: drops nothing in a test, rate 0.3: not in the graph" in err.splitlines()
    assert "4×4×2, conv 4 of 2×2 by 2 with bias, batch norm, ReLU, dense 3 with bias, 95 weights, 16 bits" in out
    (file,) = place.joinpath("out").glob("mine-cambriconq-tiny-mine-momentum-16bit-seed4.npz")

    module = own._built("mine.py:build", 4)
    model = from_torch(module, torch.zeros(1, 2, 4, 4))
    before = [each.copy() for each in model.parameters]
    parameters, statistics = trained(file, model.graph)
    to_torch(module, model, parameters, statistics)
    # A batch norm takes away what the bias before it adds.
    unchanged = [tensor.name for tensor, a, b in zip(model.tensors, before, parameters, strict=True) if np.array_equal(a, b)]
    assert unchanged in ([], ["0.bias"])
    state = module.state_dict()
    assert (
        state["0.weight"].numpy() == Checkpoint.read(file).arrays["w of layer 0"].reshape(4, 2, 2, 2).transpose(0, 3, 1, 2)
    ).all()
    assert (state["1.running_var"].numpy() == Checkpoint.read(file).arrays["variance of layer 1"]).all()


def test_a_training_begins_with_the_modules_weights(place):
    """Its first loss is that of the module, but for 16 bits."""
    assert command("MODEL=mine.py:build", "BITS=16", "BATCH=40", "STEPS=1", "SEED=4") == 0
    (file,) = place.joinpath("out").glob("*.npz")
    first = Checkpoint.read(file).header["history"]["loss"][0]
    mine = own.load("mine.py:build", place / "mine.npz", 4)
    assert mine.parameters is not None
    reference = Reference(mine.graph, mine.parameters, mine.statistics)
    outputs = reference.forward(mine.samples.train_images.reshape(40, 4, 4, 2), learning=True)
    assert first == pytest.approx(loss(outputs.reshape(40, -1), mine.samples.train_labels)[0], rel=2e-3)
    other = own.load("mine.py:build", place / "mine.npz", 5)
    assert other.parameters is not None and not np.array_equal(mine.parameters[0], other.parameters[0])


def test_a_file_of_onnx_is_trained(place, capsys):
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.random.default_rng(2).normal(0, 0.3, (3, 32)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["y"]), helper.make_node("Gemm", ["y", "w"], ["z"], transB=1)]
    given, end = (helper.make_tensor_value_info(*each) for each in (("x", 1, ["n", 2, 4, 4]), ("z", 1, ["n", 3])))
    assert given.type.tensor_type.elem_type == TensorProto.FLOAT
    graph = helper.make_graph(nodes, "model", [given], [end], [numpy_helper.from_array(weights, "w")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net.onnx")
    assert command("MODEL=net.onnx", "STEPS=1") == 0
    assert "4×4×2, dense 3, 96 weights" in capsys.readouterr().out


def test_what_cannot_be_trained_is_told(capsys):
    assert command("MODEL=mine.py:learning") == 2
    assert "training stopped: 4: Dropout is not compiled yet" in capsys.readouterr().err
    assert command("MODEL=mine.py:transformer") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("MODEL=mine.py:transformer: the graph of layers has no place for ")
    assert any("layer_norm" in line for line in lines[1:])


def test_an_example_may_be_an_array():
    assert from_torch(torch.nn.Linear(4, 3), np.zeros((1, 4), np.float32)).graph.inputs == 4
