"""A training that is interrupted and taken up again ends with the same bits as one that is not."""

import json
import re
import zipfile
from functools import partial

import numpy as np
import pytest
from nibblecore.sim import cli
from nibblecore.sim.refusal import Refusal
from nibblecore.sim.train import checkpoint, data, report
from nibblecore.sim.train.cambriconq.learner import CambriconqLearner
from nibblecore.sim.train.checkpoint import Checkpoint, CheckpointError
from nibblecore.sim.train.ltoaq.learner import LtoaqLearner

LEARNERS = {"ltoaq": LtoaqLearner, "cambriconq": CambriconqLearner}
STEPS = 6

machines = pytest.mark.parametrize("machine", LEARNERS)
combinations = pytest.mark.parametrize(
    "words",
    [
        "ltoaq BITS=4",
        "ltoaq BITS=8 SEED=3 CONFIG=fpga",
        "cambriconq NET=mlp OPT=momentum BITS=8",
        "cambriconq NET=mlp OPT=adamw BITS=4 CONFIG=tiny_bus",
        "cambriconq NET=cnn OPT=adagrad BITS=12 SEED=3",
        "cambriconq NET=pool OPT=rmsprop BITS=16",
        "ltoaq TRANSPORT=simulation",
        "cambriconq TRANSPORT=simulation",
    ],
)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """So few images that the epochs of six steps of 32 are three."""
    images = data.load()
    train, test = slice(0, 70), slice(0, 20)
    fewer = data.Digits(images.train_images[train], images.train_labels[train], images.test_images[test], images.test_labels[test])
    monkeypatch.setattr(data, "load", lambda: fewer)


@pytest.fixture
def no_figures(monkeypatch):
    """They take longer than the trainings."""
    monkeypatch.setattr(report, "_plot", lambda path, *_: path.write_bytes(b""))


def command(*words):
    return cli.main(["train", *map(str, words)])


def started(words, folder):
    machine, *options = words.split()
    return command(f"MACHINE={machine}", f"STEPS={STEPS}", "TRANSPORT=functional", f"OUTPUT={folder}", *options)


def interrupted_in(monkeypatch, machine, name, number, run):
    """Ctrl-C at the end of the call with this number of a method, when all that it changes is changed; its status."""
    real, calls = getattr(LEARNERS[machine], name), []

    def replaced(self, *arguments):
        result = real(self, *arguments)
        calls.append(name)
        if len(calls) > number:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(LEARNERS[machine], name, replaced)
        return run()


def in_parts(monkeypatch, words, folder, *interruptions):
    """A training that is interrupted and taken up again: in which call of which method, and how many steps are done then."""
    run = partial(started, words, folder)
    for name, number, done in interruptions:
        assert interrupted_in(monkeypatch, words.split()[0], name, number, run) == 130
        file = left(folder, ".npz", interrupted=True)
        assert Checkpoint.read(file).header["step"] == done
        run = partial(command, f"RESUME={file}", f"OUTPUT={folder}")
    assert run() == 0


def left(folder, ending, interrupted=False):
    (path,) = (path for path in folder.glob(f"*{ending}") if ("-interrupted." in path.name) == interrupted)
    return path


def history(folder):
    return json.loads(left(folder, ".json").read_text())["history"]


def assert_same(folder, reference):
    """Weights, thresholds, moments, order, losses and accuracies."""
    found, expected = (Checkpoint.read(left(place, ".npz")) for place in (folder, reference))
    assert found.arrays.keys() == expected.arrays.keys()
    for name, array in found.arrays.items():
        assert array.dtype == expected.arrays[name].dtype and array.tobytes() == expected.arrays[name].tobytes(), name
    assert found.header["more"] == expected.header["more"] and found.header["step"] == STEPS
    for name in ("loss", "accuracy", "tests", "train_accuracy"):
        assert history(folder)[name] == history(reference)[name] == found.header["history"][name]
    assert len(history(folder)["loss"]) == STEPS


def assert_all_parts_counted(folder, reference, firsts):
    """What was counted in `folder` is what `reference` counted; on Cambricon-Q the first program after a set-up is slower."""
    found, expected = history(folder), history(reference)
    if "phases" not in expected["measured"] or not expected["measured"]["phases"]:
        assert found == expected
        return
    for phase, cycles in found["measured"]["phases"].items():
        whole = expected["measured"]["phases"][phase]
        assert cycles == [whole[0] if step in firsts else count for step, count in enumerate(whole)]
        assert sum(cycles) <= found["counters"]["cycles"]


def assert_all_parts_measured(folder, reference):
    """Nothing is compared twice, but Cambricon-Q is set up in each part; cycles of half a step passed all the same."""
    found, expected = (Checkpoint.read(left(place, ".npz")).header for place in (folder, reference))
    again = 2 if expected["machine"] == "cambriconq" and expected["comparisons"] else 1
    assert expected["comparisons"] <= found["comparisons"] <= again * expected["comparisons"]
    assert found["simulated_cycles"] >= expected["simulated_cycles"]


@combinations
@pytest.mark.usefixtures("no_figures")
def test_the_same_bits(words, tmp_path, monkeypatch, capsys):
    """Interrupted in the third step, in the test after it, in the last step and in the test at the end; each time taken up again."""
    assert started(words, tmp_path / "whole") == 0
    folder = tmp_path / "parts"
    in_parts(monkeypatch, words, folder, ("step", 2, 2), ("accuracy", 0, 3), ("step", 2, 5), ("accuracy", 1, 6))
    assert_same(folder, tmp_path / "whole")
    assert_all_parts_counted(folder, tmp_path / "whole", {2, 5})  # after the third step a test comes first
    assert_all_parts_measured(folder, tmp_path / "whole")
    assert json.loads(left(folder, ".json").read_text())["summary"]["resumed"] == [2, 3, 5, 6]
    assert "; resumed after 2 and 3 and 5 and 6, all figures are of all parts\n" in capsys.readouterr().out


@machines
@pytest.mark.usefixtures("no_figures")
def test_what_is_done_but_not_noted_is_done_again(machine, tmp_path, monkeypatch):
    """Interrupted while the state is taken: after the third step, after the test behind it, after the tests at the end."""
    assert started(machine, tmp_path / "whole") == 0
    folder = tmp_path / "parts"
    in_parts(monkeypatch, machine, folder, ("state", 4, 2), ("state", 2, 3), ("state", 7, 6))
    assert_same(folder, tmp_path / "whole")
    assert_all_parts_counted(folder, tmp_path / "whole", ())


@machines
@pytest.mark.usefixtures("no_figures")
def test_time_goes_on(machine, tmp_path, monkeypatch):
    assert interrupted_in(monkeypatch, machine, "step", 1, lambda: started(machine, tmp_path)) == 130
    part = Checkpoint.read(file := left(tmp_path, ".npz", interrupted=True))
    Checkpoint({**part.header, "seconds": part.header["seconds"] + 1000}, part.arrays).write(file)
    assert command(f"RESUME={file}", f"OUTPUT={tmp_path}") == 0
    assert json.loads(left(tmp_path, ".json").read_text())["summary"]["seconds"] > 1000 + part.header["seconds"]


@machines
@pytest.mark.usefixtures("no_figures")
def test_more_steps_train_on(machine, tmp_path, capsys):
    assert started(machine, tmp_path) == 0
    before = Checkpoint.read(left(tmp_path, ".npz"))
    assert command(f"RESUME={left(tmp_path, '.npz')}", f"OUTPUT={tmp_path}", f"STEPS={STEPS + 2}") == 0
    after = Checkpoint.read(left(tmp_path, ".npz"))
    assert after.header["history"]["loss"][:STEPS] == before.header["history"]["loss"]
    assert len(after.header["history"]["loss"]) == after.header["step"] == after.header["steps"] == STEPS + 2
    name = next(name for name in after.arrays if name.startswith("w"))
    assert not np.array_equal(after.arrays[name], before.arrays[name])


def one_line(capsys, *words, status=2):
    capsys.readouterr()
    assert command(*words) == status
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    return err[:-1]


@machines
@pytest.mark.usefixtures("no_figures")
def test_what_contradicts_is_refused_by_name(machine, tmp_path, capsys):
    assert started(machine, tmp_path) == 0
    file = left(tmp_path, ".npz")
    other = {"ltoaq": "cambriconq", "cambriconq": "ltoaq"}[machine]
    for words, value in (
        (f"MACHINE={other}", machine),
        ("CONFIG=fpga", "tiny"),
        ("BITS=4" if machine == "cambriconq" else "BITS=8", 8 if machine == "cambriconq" else 4),
        ("SEED=1", 0),
        ("CHECK=0", 1),
        ("--transport simulation", "functional"),
        *([("NET=cnn", "mlp"), ("OPT=adam", "sgd")] if machine == "cambriconq" else []),
    ):
        expected = f"{words}: RESUME={file} is of {value}; leave it out"
        assert one_line(capsys, f"RESUME={file}", "STEPS=9", *words.split()) == expected
    said = one_line(capsys, f"RESUME={file}", "STEPS=5")
    assert said == "STEPS=5: the training to resume is one of 6 steps, 6 of them done; it can have more, not fewer"
    said = one_line(capsys, f"RESUME={file}")
    assert said == f"RESUME={file}: all 6 steps of this training are done; to train on, ask for more of them with STEPS="
    assert command(f"RESUME={file}", f"MACHINE={machine}", "CONFIG=tiny", "SEED=0x0", "STEPS=7", f"OUTPUT={tmp_path}") == 0


def test_what_is_no_checkpoint(tmp_path, capsys):
    file = tmp_path / "file.npz"

    def said():
        return one_line(capsys, f"RESUME={file}").removeprefix(f"RESUME={file}: ")

    assert said() == "no checkpoint: No such file or directory"
    assert one_line(capsys, f"RESUME={tmp_path}") == f"RESUME={tmp_path}: no checkpoint: Is a directory"
    whole = Checkpoint({"step": 1}, {"w": np.arange(4000.0)})
    whole.write(file)
    assert said() == "is a checkpoint, but none of nibblecore train"
    good = file.read_bytes()
    spoiled = bytearray(good)
    spoiled[len(good) // 2] ^= 0x55
    for content in (b"", b"text", good[:-1], good[: len(good) // 2], bytes(spoiled), b"\x93NUMPY\x01\x00"):
        file.write_bytes(content)
        assert said() == "is no checkpoint, or not a whole one"
    for content in (np.array(0), np.array("[]"), np.array("{}"), np.array("{")):
        np.savez(file, header=content)
        assert said() == "is no checkpoint, or not a whole one"
    np.savez(file, w=np.arange(3))
    assert said() == "is no checkpoint, or not a whole one"
    np.save(file.with_suffix(".npy"), np.arange(3))
    file.write_bytes(file.with_suffix(".npy").read_bytes())
    assert said() == "is no checkpoint, or not a whole one"
    np.savez(file, allow_pickle=True, header=np.array({"checkpoint": 1}, object))
    assert said() == "is no checkpoint, or not a whole one"
    np.savez(file, header=np.array('{"checkpoint": 2}'))
    assert said() == "is a checkpoint of format 2; this nibblecore reads format 1"


@machines
@pytest.mark.usefixtures("no_figures")
def test_a_checkpoint_of_another_training(machine, tmp_path, capsys):
    assert started(machine, tmp_path) == 0
    whole = Checkpoint.read(file := left(tmp_path, ".npz"))
    name = next(name for name in whole.arrays if name.startswith("w"))
    for arrays, said in (
        ({**whole.arrays, name: whole.arrays[name][1:]}, rf"{name} is float32 \[\d+, \d+\], not float32 \[\d+, \d+\]"),
        ({**whole.arrays, name: whole.arrays[name].astype(float)}, rf"{name} is float64 .*, not float32 .*"),
        ({n: array for n, array in whole.arrays.items() if n != name}, rf"holds .*, not .*{name}.*"),
    ):
        Checkpoint(whole.header, arrays).write(file)
        assert_refused(file, f"is of another training: {said}", capsys)


def assert_refused(file, pattern, capsys):
    assert re.fullmatch(re.escape(f"RESUME={file}: ") + pattern, one_line(capsys, f"RESUME={file}", "STEPS=9"))


@pytest.mark.usefixtures("no_figures")
def test_what_a_file_holds(tmp_path):
    """A zip of arrays without pickles, whose header says what it is of."""
    assert started("cambriconq NET=cnn OPT=adam BITS=12 SEED=5", tmp_path) == 0
    file = left(tmp_path, ".npz")
    assert all(info.filename.endswith(".npy") for info in zipfile.ZipFile(file).infolist())
    header = json.loads(str(np.load(file, allow_pickle=False)["header"]))
    expected = {
        "machine": "cambriconq",
        "config": "tiny",
        "net": "cnn",
        "opt": "adam",
        "bits": 12,
        "seed": 5,
        "batch": 16,
        "step": STEPS,
    }
    assert expected.items() <= header.items() and header["versions"].keys() == {"nibblecore", "numpy", "python"}
    assert checkpoint.settled(file) == {
        **{name: str(value) for name, value in expected.items() if name not in ("batch", "step")},
        "transport": "functional",
        "check": "1",
    }


def test_nothing_half_written(tmp_path, monkeypatch):
    file = tmp_path / "file.npz"
    Checkpoint({"step": 1}, {"w": np.arange(3)}).write(file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        Checkpoint({"loss": float("nan")}, {}).write(file)

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", fails)
    with pytest.raises(OSError, match="No space"):
        Checkpoint({"step": 2}, {"w": np.arange(3)}).write(file)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_refusals_in_python(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint: No such file"):
        Checkpoint.read(tmp_path / "none")
    with pytest.raises(Refusal, match="no checkpoint: No such file"):
        checkpoint.settled(tmp_path / "none")
