"""Own networks on own samples: what a file may hold, what is refused, and that a training is taken up again to the same bits."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim import cli
from nibblecore.sim.compiler.compiler import SGD, BatchNorm, Conv2d, Dense, Graph, Relu, Training
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.refusal import Refusal
from nibblecore.sim.train import own, report
from nibblecore.sim.train.cambriconq.session import MEMORY_BYTES, Recipe, Session
from nibblecore.sim.train.cambriconq.state import save, trained
from nibblecore.sim.train.checkpoint import Checkpoint, CheckpointError

MODEL = """
from nibblecore.sim.compiler.compiler import BatchNorm, Conv2d, Dense, Graph, Relu

def build():
    return [Dense(12), Relu(), Dense(3, bias=True)]

def graph():
    graph = Graph((4, 4, 2))
    for layer in (Conv2d(3, 2, stride=2), BatchNorm(), Relu(), Dense(3, bias=True)):
        graph.add(layer)
    return graph

def number():
    return 3

def empty():
    return []

def wrong():
    return [Dense(3), 7]

def broken():
    return [Dense(1 // 0)]
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "_plot", lambda path, *_: path.write_bytes(b""))
    (tmp_path / "mine.py").write_text(MODEL)
    return tmp_path


def drawn(count=60, shape=(16,), seed=0):
    """Samples whose class is which of their first three values is the largest."""
    x = np.random.default_rng(seed).uniform(-1, 1, (count, *shape)).astype(np.float32)
    return x, x.reshape(count, -1)[:, :3].argmax(axis=1)


def stored(name="mine.npz", **arrays):
    if not arrays:
        arrays["x"], arrays["y"] = drawn()
    np.savez(name, **arrays)


def command(*words, steps=6):
    fixed = ["MACHINE=cambriconq", "TRANSPORT=functional", "OUTPUT=out", *([f"STEPS={steps}"] if steps else [])]
    return cli.main(["train", *fixed, *map(str, words)])


def test_layers_are_trained_on_samples(place, capsys):
    x, y = drawn(400)
    stored(x=x, y=y, x_test=drawn(50, seed=1)[0], y_test=drawn(50, seed=1)[1])
    assert command("MODEL=mine.py:build", "DATA=mine.npz", "LR=1.0", "BATCH=20", steps=60) == 0
    text = capsys.readouterr().out
    assert "16, dense 12, ReLU, dense 3 with bias, 231 weights, 8 bits" in text
    assert "60 steps of 20 images, sgd, seed 0" in text and "of 50 images" in text
    (file,) = place.joinpath("out").glob("mine-cambriconq-tiny-mine-sgd-8bit-seed0.json")
    summary = json.loads(file.read_text())["summary"]
    assert summary["test_accuracy"] > 0.6 and summary["recipe"]["lr"] == 1.0 and summary["recipe"]["batch"] == 20
    assert summary["recipe"]["model"] == "mine.py:build" and len(summary["recipe"]["digest"]) == 64


def test_a_graph_and_every_fifth_sample(capsys):
    x, y = drawn(63, (4, 4, 2))
    stored(x=x, y=y)
    found = own.load("mine.py:graph", Path("mine.npz"), 0)
    assert found.graph.description == "4×4×2, conv 3 of 2×2 by 2, batch norm, ReLU, dense 3 with bias"
    assert (found.samples.test_images == x[4::5].reshape(12, -1)).all() and (found.samples.test_labels == y[4::5]).all()
    assert len(found.samples.train_images) == 51 and found.classes == 3 and found.parameters is None
    assert (found.samples.train_images[4:8] == x[5:9].reshape(4, -1)).all()
    stored("flat.npz", x=x.reshape(63, -1), y=y)
    assert own.load("mine.py:graph", Path("flat.npz"), 0).digest == found.digest
    stored("other.npz", x=x, y=(y + 1) % 3)
    assert own.load("mine.py:graph", Path("other.npz"), 0).digest != found.digest
    assert command("MODEL=mine.py:graph", "DATA=mine.npz", steps=None) == 0
    assert "7 steps of 32 images" in capsys.readouterr().out  # five times through 51 samples


def test_images_without_an_axis_for_the_channel():
    x, y = drawn(20, (4, 4))
    stored(x=x, y=y)
    (place,) = (own.load("mine.py:build", Path("mine.npz"), 0),)
    assert place.graph.inputs == (4, 4, 1)


def test_a_file_beside_it_is_imported(place):
    place.joinpath("beside.py").write_text("HIDDEN = 5")
    place.joinpath("mine.py").write_text(
        "from beside import HIDDEN\nfrom nibblecore.sim.compiler.network import Dense\nbuild = lambda: [Dense(HIDDEN), Dense(3)]"
    )
    stored()
    assert own.load("mine.py", Path("mine.npz"), 0).graph.description == "16, dense 5, dense 3"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("MODEL=mine.py", "MODEL=mine.py: needs samples to train on: DATA=mine.npz"),
        ("DATA=mine.npz", "DATA=mine.npz: is for an own network: MODEL=mine.py:build"),
        ("MODEL=mine.py DATA=mine.npz NET=cnn", "NET=cnn: is one of the digits' networks; with MODEL= there is none to choose"),
        ("MODEL=none.py DATA=mine.npz", "MODEL=none.py: there is no file none.py; a model is FILE.py:FUNCTION or FILE.onnx"),
        ("MODEL=mine.npz DATA=mine.npz", "MODEL=mine.npz: mine.npz is neither Python (.py) nor ONNX (.onnx)"),
        ("MODEL=mine.py:none DATA=mine.npz", "MODEL=mine.py:none: mine.py has no function none"),
        (
            "MODEL=mine.py:number DATA=mine.npz",
            "MODEL=mine.py:number: mine.py:number returns int, neither a Graph, a list of layers nor a module of PyTorch",
        ),
        ("MODEL=mine.py:empty DATA=mine.npz", "MODEL=mine.py:empty: mine.py:empty has no layers"),
        ("MODEL=mine.py:wrong DATA=mine.npz", "MODEL=mine.py:wrong: layer 1 must be a .*, not 7"),
        ("MODEL=mine.py:broken DATA=mine.npz", r"MODEL=mine.py:broken: mine.py:23: ZeroDivisionError: .*"),
        ("MODEL=mine.py:graph DATA=mine.npz", "DATA=mine.npz: x must have samples of 4×4×2, as the model takes them, not of 16"),
        ("MODEL=mine.py DATA=mine.npz BATCH=49", "BATCH=49: there are 48 samples to train on"),
        ("MODEL=mine.py DATA=mine.npz LR=0", "LR=0: must be above 0, and finite"),
        ("MODEL=mine.py DATA=mine.npz MACHINE=ltoaq", "MODEL=mine.py: ltoaq takes no --model; cambriconq does"),
        ("MODEL=mine.py DATA=none.npz", "DATA=none.npz: cannot be read: No such file or directory"),
        ("MODEL=mine.py DATA=mine.py", "DATA=mine.py: is no .npz file: numpy.savez writes one"),
    ],
)
def test_refused_in_one_line(words, line, capsys):
    stored()
    assert command(*words.split()) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(re.escape(line).replace(r"\.\*", ".*"), error.strip()), error


def test_a_file_that_is_no_python(place, capsys):
    stored()
    place.joinpath("mine.py").write_text("def build(:\n    pass\n")
    assert command("MODEL=mine.py", "DATA=mine.npz") == 2
    assert re.fullmatch(r"MODEL=mine.py: mine.py:1: SyntaxError: .*\n", capsys.readouterr().err)
    place.joinpath("mine.py").write_text("import nothing_of_this_name\n")
    assert command("MODEL=mine.py", "DATA=mine.npz") == 2
    assert capsys.readouterr().err == "MODEL=mine.py: nothing_of_this_name is missing\n"


X, Y = drawn(10)
NAN = X.copy()
NAN[3, 5] = np.nan


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": X}, "has no y; it has x"),
        ({"y": Y, "z": X}, "has no x; it has y, z"),
        ({"x": X, "y": Y, "x_test": X}, "has one of x_test and y_test; it must have both or neither"),
        ({"x": X[:9], "y": Y}, "x has 9 samples, y 10 classes"),
        ({"x": X[:0], "y": Y[:0]}, "x has 0 samples, y 0 classes"),
        ({"x": X[:4], "y": Y[:4]}, "has 4 samples; every fifth is to test with, so there must be five or more"),
        ({"x": X[:, 0], "y": Y}, "x must be real numbers, samples along the first axis, not float32 [10]"),
        ({"x": X.astype(complex), "y": Y}, "x must be real numbers, samples along the first axis, not complex128 [10, 16]"),
        ({"x": X, "y": Y.astype(float)}, "y must be whole numbers, the class of each sample, not float64 [10]"),
        ({"x": X, "y": np.eye(3, dtype=int)[Y]}, "y must be whole numbers, the class of each sample, not int64 [10, 3]"),
        ({"x": X, "y": Y - 1}, "y has class -1; classes are 0 and more"),
        ({"x": X, "y": Y + 2}, "y has class 4, but the model has 3 outputs, for classes 0 to 2"),
        ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "y_test has class 3, but the model has 3 outputs, for classes 0 to 2"),
        ({"x": NAN, "y": Y}, "x has 1 numbers that are not finite in FP32"),
        ({"x": np.full((10, 16), 1e39), "y": Y}, "x has 160 numbers that are not finite in FP32"),
        ({"x": X, "y": Y, "x_test": X[:, :5], "y_test": Y}, "x_test must have samples of 16, as the model takes them, not of 5"),
        ({"x": X.reshape(10, 2, 2, 2, 2), "y": Y}, "x has samples of 2×2×2×2; a list of layers takes values or images"),
        ({"x": np.array([{}]), "y": Y}, "is no whole .npz file of numbers: .*"),
    ],
)
def test_samples_are_checked(arrays, reason):
    np.savez("mine.npz", **arrays)
    with pytest.raises(Refusal) as caught:
        own.load("mine.py:build", Path("mine.npz"), 0)
    assert caught.value.option == "data" and re.fullmatch(re.escape(reason).replace(r"\.\*", ".*"), caught.value.reason)


def test_a_file_that_is_cut_off(place):
    stored()
    place.joinpath("mine.npz").write_bytes(place.joinpath("mine.npz").read_bytes()[:-40])
    with pytest.raises(Refusal, match=r"is no \.npz file"):
        own.load("mine.py:build", Path("mine.npz"), 0)


@pytest.mark.parametrize("words", ["MODEL=mine.py:build OPT=adam", "MODEL=mine.py:graph BITS=16 LR=0.2 BATCH=8"])
def test_a_training_is_taken_up_again_for_more_steps(words, place, capsys):
    """With the options that it began with."""
    shape = (4, 4, 2) if "graph" in words else (16,)
    x, y = drawn(40, shape)
    stored(x=x, y=y)
    files: dict[str, Path] = {}
    for name, steps in (("whole", (9,)), ("parts", (4, 9))):
        for number, count in enumerate(steps):
            last = [f"RESUME={files[name]}"] if number else ["DATA=mine.npz", *words.split()]
            assert command(*last, f"OUTPUT={name}", steps=count) == 0
            (files[name],) = place.joinpath(name).glob("*.npz")
    whole, parts = (Checkpoint.read(files[name]) for name in ("whole", "parts"))
    assert whole.arrays.keys() == parts.arrays.keys() and parts.header["resumed"] == [4]
    assert any("w of layer 0" in name for name in whole.arrays)
    assert {**parts.header["recipe"]} == {**whole.header["recipe"]} and parts.header["bits"] == whole.header["bits"]
    assert parts.header["model"] == words.split()[0].removeprefix("MODEL=") and parts.header["data"] == "mine.npz"


def test_the_same_bits_after_an_interruption(place, monkeypatch, capsys):
    from nibblecore.sim.train.cambriconq.learner import CambriconqLearner

    x, y = drawn(40, (4, 4, 2))
    stored(x=x, y=y)
    words = ("MODEL=mine.py:graph", "DATA=mine.npz", "OPT=momentum")
    assert command(*words, "OUTPUT=whole") == 0
    real, calls = CambriconqLearner.step, []

    def interrupted(self, number):
        calls.append(number)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, number)

    monkeypatch.setattr(CambriconqLearner, "step", interrupted)
    assert command(*words, "OUTPUT=parts") == 130
    (file,) = place.joinpath("parts").glob("*-interrupted.npz")
    assert command(f"RESUME={file}", "OUTPUT=parts", steps=None) == 0
    ends = [Checkpoint.read(next(place.joinpath(name).glob("*seed0.npz"))) for name in ("whole", "parts")]
    for name, array in ends[0].arrays.items():
        assert array.tobytes() == ends[1].arrays[name].tobytes(), name
    assert {name.partition(" of")[0] for name in ends[0].arrays} == {"w", "m", "v", "mean", "variance", "order"}


def test_what_a_resumed_training_does_not_take(place, capsys):
    stored()
    assert command("MODEL=mine.py", "DATA=mine.npz", "LR=0.1", steps=2) == 0
    (file,) = place.joinpath("out").glob("*.npz")

    def refused(*words):
        capsys.readouterr()
        assert command(f"RESUME={file}", *words, steps=3) == 2
        return capsys.readouterr().err.strip().replace(str(file), "FILE")

    assert refused("LR=0.2") == "LR=0.2: the training to resume is one with 0.1; leave it out"
    assert refused("BATCH=4") == "BATCH=4: the training to resume is one with 32; leave it out"
    x, y = drawn(seed=1)
    stored(x=x, y=y)
    assert refused() == f"RESUME={file}: is a training on other samples than those of mine.npz".replace(str(file), "FILE")
    place.joinpath("mine.npz").unlink()
    assert refused() == "RESUME=FILE: its data mine.npz: cannot be read: No such file or directory"
    stored()
    place.joinpath("mine.py").write_text(MODEL.replace("Dense(12)", "Dense(13)"))
    assert "is of another training: w of layer 0 is float32 [12, 16], not float32 [13, 16]" in refused()


def test_the_model_may_have_moved(place, capsys):
    stored()
    assert command("MODEL=mine.py", "DATA=mine.npz", steps=2) == 0
    (file,) = place.joinpath("out").glob("*.npz")
    place.joinpath("moved").mkdir()
    for name in ("mine.py", "mine.npz"):
        place.joinpath(name).rename(place / "moved" / name)
    assert command(f"RESUME={file}", "MODEL=moved/mine.py", "DATA=moved/mine.npz", steps=3) == 0


def test_memory_is_as_large_as_it_has_to_be():
    """All samples lie in it where they have room; a network that is larger than the digits' memory has its own."""
    x, y = drawn(300, (900,))
    stored(x=x, y=y)
    found = own.load("mine.py:build", Path("mine.npz"), 0)
    recipe = Recipe(network="mine", model="mine.py", digest=found.digest, batch=4)
    session = Session(recipe, CAMBRICONQ["tiny"], found.samples, None, own=found)
    assert session.holds_all and session.memory_bytes == MEMORY_BYTES
    few = Session(recipe, CAMBRICONQ["tiny"], found.samples, 1 << 20, own=found)
    assert not few.holds_all and few.held % 4 == 0 and 4 * 900 * few.held < 1 << 20
    graph = Graph.sequence(900, [Dense(400), Relu(), Dense(3)])
    large = own.Own("mine.py", "mine.npz", graph, None, {}, [], found.samples, found.digest)
    session = Session(recipe, CAMBRICONQ["tiny"], found.samples, None, own=large)
    assert session.memory_bytes == 1 << 23 and session.holds_all


def test_initial_weights_and_statistics_are_the_models():
    """And what was trained comes back in their order."""
    graph = Graph.sequence((4, 4, 2), [Conv2d(3, 2, stride=2), BatchNorm(), Relu(), Dense(3, bias=True)])
    rng = np.random.default_rng(1)
    parameters = [rng.normal(size=each.shape).astype(np.float32) for each in graph.parameters]
    statistics = {"layer 1": (np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32))}
    x, y = drawn(40, (4, 4, 2))
    samples = own.Digits(x.reshape(40, -1), y, x.reshape(40, -1), y)
    mine = own.Own("mine.py", "mine.npz", graph, parameters, statistics, [], samples, "")
    session = Session(Recipe(network="mine", model="mine.py", digest=""), CAMBRICONQ["tiny"], samples, own=mine)
    model = CambriconqAccelerator(CAMBRICONQ["tiny"], transport="functional", memory_size=MEMORY_BYTES)
    accelerator = CheckedAccelerator(model, check=False)
    session.load(accelerator)
    save("state.npz", session.training, accelerator, step=0)
    found, running = trained("state.npz", graph)
    assert all((a == b).all() for a, b in zip(found, parameters, strict=True))
    assert all((a == b).all() for a, b in zip(running["layer 1"], statistics["layer 1"], strict=True))
    with pytest.raises(CheckpointError, match="has no w of layer 0 of 4×8 numbers"):
        trained("state.npz", Graph.sequence((4, 4, 2), [Conv2d(4, 2, stride=2), BatchNorm(), Relu(), Dense(3, bias=True)]))
    with pytest.raises(CheckpointError, match="has w of layer 2, w of layer 2's bias, which the graph has not"):
        trained("state.npz", Graph.sequence((4, 4, 2), [Conv2d(3, 2, stride=2), BatchNorm()]))


def test_statistics_are_checked():
    graph = Graph.sequence(4, [Dense(3), BatchNorm(), Dense(2)])
    training = Training(CAMBRICONQ["tiny"], 4, graph, 2, 2, 8, SGD(0.1), 1 << 16)
    weights = [np.zeros(shape) for shape in training.shapes]
    samples, labels = np.zeros((2, 4)), np.eye(2)
    with pytest.raises(ValueError, match="variance of layer 1"):
        training.initial(samples, labels, weights, {"layer 1": (np.zeros(3), np.full(3, np.inf))})
    with pytest.raises(ValueError, match="mean of layer 1"):
        training.initial(samples, labels, weights, {"layer 1": (np.zeros(2), np.ones(3))})


def test_an_own_network_is_estimated(capsys):
    assert cli.main(["estimate", "MODEL=mine.py:graph", "CONFIG=tiny", "BATCH=8"]) == 0
    assert "mine.py:graph on cambriconq_tiny, 8 bits, 8 images of 4 × 4" in capsys.readouterr().out
    assert cli.main(["estimate", "MODEL=mine.py", "CONFIG=tiny"]) == 2
    assert "mine.py returns list, which does not say what it is given: DATA=mine.npz does" in capsys.readouterr().err
    stored()
    assert cli.main(["estimate", "MODEL=mine.py", "DATA=mine.npz", "CONFIG=tiny", "JSON=1"]) == 0
    assert json.loads(capsys.readouterr().out)["macs"] == 32 * (2 * 16 * 12 + 3 * 12 * 3)
    assert cli.main(["estimate", "MODEL=mine.py", "NET=cnn"]) == cli.main(["estimate", "DATA=mine.npz"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "NET=cnn: is of the networks that NET= names; with MODEL= there is none to choose",
        "DATA=mine.npz: is for an own network: MODEL=mine.py:build",
    ]
