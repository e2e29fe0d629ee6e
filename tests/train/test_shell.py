"""What training does whatever the machine: the loop, its tests, the report, and every way it can end."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibblecore.sim import cli
from nibblecore.sim.compiler.compiler import SGD
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.train import data, report, shell
from nibblecore.sim.train.cambriconq import networks
from nibblecore.sim.train.cambriconq.learner import CambriconqLearner
from nibblecore.sim.train.checkpoint import Checkpoint
from nibblecore.sim.train.ltoaq.learner import LtoaqLearner

LEARNERS: dict[str, Any] = {"ltoaq": LtoaqLearner, "cambriconq": CambriconqLearner}

machines = pytest.mark.parametrize("machine", LEARNERS)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """A command that loads few images ends soon."""
    images = data.load()
    train, test = slice(0, 100), slice(0, 50)
    fewer = data.Digits(images.train_images[train], images.train_labels[train], images.test_images[test], images.test_labels[test])
    monkeypatch.setattr(data, "load", lambda: fewer)


def command(machine, folder, *arguments, steps=7):
    words = ["--transport", "functional", "--steps", str(steps), "--output", str(folder)]
    return cli.main(["train", "--machine", machine, *words, *map(str, arguments)])


def numbers(folder):
    """What the JSON holds; beside it lie figure and checkpoint, and nothing else."""
    files = {path.suffix: path for path in folder.iterdir()}
    assert files.keys() == {".png", ".json", ".npz"} and len({path.stem for path in files.values()}) == 1
    assert files[".png"].read_bytes().startswith(b"\x89PNG") and Checkpoint.read(files[".npz"]).header["checkpoint"] == 1
    return json.loads(files[".json"].read_text())


def only_a_checkpoint(folder):
    (file,) = folder.iterdir()
    return Checkpoint.read(file).arrays.keys() >= {"order"}


def failing(monkeypatch, machine, name, number, error):
    """The call with this number of a method of the machine's learner raises an error."""
    calls = []
    real = getattr(LEARNERS[machine], name)

    def replaced(self, *arguments):
        calls.append(name)
        if len(calls) > number:
            raise error
        return real(self, *arguments)

    monkeypatch.setattr(LEARNERS[machine], name, replaced)


@machines
def test_reports(machine, tmp_path, capsys):
    assert command(machine, tmp_path / "new" / "folder") == 0
    content = numbers(tmp_path / "new" / "folder")
    summary, history = content["summary"], content["history"]
    assert len(history["loss"]) == len(history["accuracy"]) == summary["steps"] == 7 and summary["interrupted"] is False
    assert [(step, images) for step, _, images in history["tests"]] == [*((step, 50) for step in range(6)), (6, 50)]
    assert summary["test_accuracy"] == history["tests"][-1][1] and summary["train_accuracy"] == history["train_accuracy"]
    names = [line.split("  ")[0] for line in (line.strip() for line in capsys.readouterr().out.splitlines()) if line]
    assert names[:5] == ["accelerator", "network", "training", "train accuracy", "test accuracy"]
    assert names[-3:] == ["golden model", "time", "written"]


@machines
def test_tests_are_five_and_one(machine, tmp_path):
    assert command(machine, tmp_path, steps=10) == 0
    assert [step for step, *_ in numbers(tmp_path)["history"]["tests"]] == [1, 3, 5, 7, 9]


@machines
def test_train_and_test_images_are_not_mixed_up(machine, tmp_path, monkeypatch):
    """The same images, with wrong labels among the tests."""
    images = data.load()
    labels = (images.train_labels + 1) % data.CLASSES
    monkeypatch.setattr(data, "load", lambda: data.Digits(*images[:2], images.train_images, labels))
    assert command(machine, tmp_path, steps=20) == 0
    summary = numbers(tmp_path)["summary"]
    assert summary["train_accuracy"] > 0.3 > summary["test_accuracy"]


@machines
def test_a_poor_accuracy_is_an_error(machine, tmp_path, capsys):
    assert command(machine, tmp_path, "--require", "1", steps=1) == 1
    assert capsys.readouterr().err.endswith("the test accuracy is below the required 100.0%\n")
    assert command(machine, tmp_path, "--require", "0", steps=1) == 0


@machines
@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (Mismatch("step 2: it is 1, expected 0"), 1, "the accelerator differs from the golden model: step 2: it is 1, expected 0"),
        (TimeoutError("no interrupt"), 2, "training stopped: no interrupt"),
    ],
    ids=["differs", "stops"],
)
def test_errors_are_told(machine, error, status, line, tmp_path, capsys, monkeypatch):
    failing(monkeypatch, machine, "step", 2, error)
    assert command(machine, tmp_path) == status
    out, err = capsys.readouterr()
    assert not out and err.splitlines()[-1] == line and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("machine", "line"),
    [
        ("ltoaq", r"(evaluation after )?step [12], layer \d: the weights do not lie within ±2048, the range of 32-bit words"),
        (
            "cambriconq",
            r"step [12]: (the machine quantized NaN|the machine quantized an infinity|the loss is (nan|inf)|\d+ of \d+ weights)",
        ),
    ],
)
def test_a_rate_that_is_far_too_high_stops_the_training(machine, line, tmp_path, capsys, monkeypatch):
    if machine == "ltoaq":
        monkeypatch.setattr(LEARNERS[machine], "__init__", patched(LEARNERS[machine].__init__))
    else:
        monkeypatch.setitem(networks.NETWORKS["mlp"].optimizers, "sgd", SGD(1e38))
    assert command(machine, tmp_path) == 1
    out, err = capsys.readouterr()
    assert not out and not list(tmp_path.iterdir())
    assert re.fullmatch(f"training stopped: {line}.*; try a lower learning rate, or more bits", err.splitlines()[-1])


def patched(real):
    """A learner whose rate is far too high."""

    def opened(self, recipe, *arguments):
        real(self, replace(recipe, learning_rate=1e6), *arguments)

    return opened


@machines
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training(machine, bad, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(LEARNERS[machine], "step", lambda *_: (bad, 0.0))
    assert command(machine, tmp_path) == 1
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == f"training stopped: step 0: the loss is {bad}; try a lower learning rate, or more bits"
    )
    assert not list(tmp_path.iterdir())


@machines
@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_weights_that_are_not_finite_stop_the_training(machine, bad, tmp_path, capsys, monkeypatch):
    real, seen = LEARNERS[machine].weights, []

    def weights(self):
        found = [w.copy() for w in real(self)]
        seen.append(found)
        found[1][2, 3:5] = bad if len(seen) == 3 else 0
        return found

    monkeypatch.setattr(LEARNERS[machine], "weights", weights)
    assert command(machine, tmp_path) == 1
    assert re.search(r"step 2: 2 of \d+ weights of layer 1 are no longer finite; try", capsys.readouterr().err.splitlines()[-1])
    assert not list(tmp_path.iterdir()) and all(np.ptp(w) > 0 for w in seen[0])


@machines
def test_numbers_that_are_not_finite_reach_no_report(machine, tmp_path, monkeypatch):
    """JSON has no NaN."""
    real = LEARNERS[machine].facts
    monkeypatch.setattr(LEARNERS[machine], "facts", lambda *arguments: real(*arguments) | {"share": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        command(machine, tmp_path, steps=1)
    assert only_a_checkpoint(tmp_path)


@machines
@pytest.mark.parametrize(
    ("name", "number", "steps", "tests"), [("step", 3, 3, 3), ("accuracy", 2, 3, 2), ("accuracy", 6, 7, 6)], ids=str
)
def test_an_interruption_leaves_what_was_done(machine, name, number, steps, tests, tmp_path, capsys, monkeypatch):
    """In a step, in a test between steps and in the one at the end; with numbers of whole steps and tests alone."""
    failing(monkeypatch, machine, name, number, KeyboardInterrupt())
    assert command(machine, tmp_path) == 130
    content = numbers(tmp_path)
    assert content["summary"]["interrupted"] is True and content["summary"]["steps"] == len(content["history"]["loss"]) == steps
    assert content["summary"]["test_accuracy"] is None and len(content["history"]["tests"]) == tests
    out, err = capsys.readouterr()
    (file,) = tmp_path.glob("*.npz")
    assert err.splitlines()[-1] == f"interrupted after {steps} of 7 steps; to go on: RESUME={file}"
    assert f"{steps} of 7 steps of " in out and ": interrupted\n" in out and f"of 50 images after step {tests - 1}\n" in out
    assert "train accuracy  not measured\n" in out and "-interrupted.png" in out


@machines
def test_an_interruption_before_the_first_step_leaves_nothing(machine, tmp_path, capsys, monkeypatch):
    failing(monkeypatch, machine, "load", 0, KeyboardInterrupt())
    assert command(machine, tmp_path) == 130
    out, err = capsys.readouterr()
    assert not out and err.splitlines()[-1] == "interrupted after 0 of 7 steps" and not list(tmp_path.iterdir())


@machines
def test_an_interruption_spares_the_files_of_a_whole_training(machine, tmp_path, monkeypatch):
    assert command(machine, tmp_path) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    failing(monkeypatch, machine, "step", 1, KeyboardInterrupt())
    assert command(machine, tmp_path) == 130
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.items() <= after.items() and len(after) == 6 and sum("-interrupted." in name for name in after) == 3


@machines
def test_nothing_is_left_half_written(machine, tmp_path, capsys, monkeypatch):
    """A second Ctrl-C while numbers are written, after the figure: what was trained is there all the same."""
    monkeypatch.setattr(report, "asdict", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert command(machine, tmp_path, steps=1) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted" and only_a_checkpoint(tmp_path)


@machines
def test_a_folder_that_cannot_be_made_is_said_before_the_training(machine, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command(machine, tmp_path / "file" / "folder") == 1
    assert capsys.readouterr().err == f"{tmp_path}/file/folder: Not a directory\n"


@machines
def test_a_folder_that_cannot_be_written_is_said_before_the_training(machine, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shell.os, "access", lambda path, mode: Path(path) != tmp_path)
    assert command(machine, tmp_path) == 1
    assert capsys.readouterr().err == f"{tmp_path}: Permission denied; name another folder with OUTPUT= or --output\n"


@machines
def test_waves_of_a_model_are_refused(machine, tmp_path, capsys):
    assert command(machine, tmp_path, "WAVES=1") == 2
    assert capsys.readouterr().err == "WAVES=1: the functional model has no signals\n" and not list(tmp_path.iterdir())


@machines
def test_a_waveform_has_one_step(machine, tmp_path, monkeypatch):
    """Unless more are asked for."""
    module = sys.modules[LEARNERS[machine].__module__]
    opened: list[bool] = []

    def instead(config, **options):
        opened.append(options["waves"])
        raise RuntimeError("not today")

    steps: list[int] = []
    real = module.Recipe

    def noted(**recipe):
        steps.extend([recipe["steps"]] if recipe else [])
        return real(**recipe)

    monkeypatch.setattr(module, {"ltoaq": "LtoaqAccelerator", "cambriconq": "CambriconqAccelerator"}[machine], instead)
    monkeypatch.setattr(module, "Recipe", noted)
    for words in (["WAVES=1"], ["WAVES=1", "STEPS=3"]):
        assert cli.main(["train", "--machine", machine, f"OUTPUT={tmp_path}", *words]) == 2
    assert opened == [True, True] and steps == [1, 3]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_signals(number, status, tmp_path):
    """As a terminal and as a batch system sends them, to a training that would take minutes."""
    words = ["train", "TRANSPORT=functional", "STEPS=5000", "CHECK=0", f"OUTPUT={tmp_path}"]
    code = "import sys; from nibblecore.sim import cli; sys.exit(cli.main(sys.argv[1:]))"
    # A shell starts what runs in the background with SIGINT ignored, and children inherit that.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert process.stderr is not None
    seen = ""
    until = time.monotonic() + 100
    while "3/5000" not in seen and time.monotonic() < until:
        seen += process.stderr.read(1)
    process.send_signal(number)
    out, err = process.communicate(timeout=100)
    assert process.returncode == status and "Traceback" not in err
    content = numbers(tmp_path)
    (file,) = tmp_path.glob("*.npz")
    done = content["summary"]["steps"]
    assert 3 <= done < 5000 and Checkpoint.read(file).header["step"] == done
    assert err.splitlines()[-1] == f"interrupted after {done} of 5000 steps; to go on: RESUME={file}" and ": interrupted\n" in out
