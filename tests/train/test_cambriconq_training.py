"""Training on Cambricon-Q's functional model, and the comparison with it."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.compiler.compiler import CompileError, Phase
from nibblecore.sim.compiler.estimate import phases
from nibblecore.sim.host.cambriconq.backend import FunctionalBackend
from nibblecore.sim.train import cambriconq, data
from nibblecore.sim.train.check import Mismatch
from nibblecore.sim.train.memory_check import CheckedBackend

TINY = CAMBRICONQ["tiny"]


@pytest.fixture(scope="module")
def images():
    return data.load()


def session(images, config=TINY, **recipe):
    return cambriconq.Session(cambriconq.Recipe(**recipe), config, images)


def started(work, backend=None, config=TINY):
    """A functional backend with the session's memory."""
    backend = backend or FunctionalBackend(config, cambriconq.MEMORY_BYTES)
    work.load(backend)
    return backend


@pytest.mark.parametrize("optimizer", cambriconq.OPTIMIZERS)
def test_learns(images, optimizer):
    """Chance is 0.1."""
    work = session(images, optimizer=optimizer, batch=16, steps=16)
    backend = started(work)
    before = work.accuracy(backend, work.train_images, 64)
    losses = [work.step(backend, step)[0] for step in range(16)]
    assert np.mean(losses[-3:]) < 0.75 * losses[0]
    assert work.accuracy(backend, work.train_images, 64) > before + 0.2


@pytest.mark.parametrize("config", ["tiny", "tiny_bus"])
@pytest.mark.parametrize("network, bits", [("cnn", 4), ("pool", 4), ("pool", 16)])
def test_a_convolutional_network_follows_its_gradient(images, network, bits, config):
    """A step on one batch again and again lowers its loss."""
    work = session(images, CAMBRICONQ[config], network=network, bits=bits, steps=4)
    backend = started(work, config=CAMBRICONQ[config])
    losses = []
    for number in range(1, 4):
        program = work.training.step(number, 0, 0.25)
        losses.append(work._run(backend, program)[0])
    assert losses[0] > losses[1] > losses[2]


def test_same_seed_same_weights(images):
    memories = []
    for seed in (1, 1, 2):
        work = session(images, seed=seed)
        backend = started(work)
        work.step(backend, 0)
        memories.append(backend.read_memory(0, work.training.program_at))
    assert memories[0] == memories[1] != memories[2]


def test_no_batch_has_a_test_image(images):
    work = session(images)
    firsts = [work.first(step) for step in range(500)]
    assert min(firsts) == 0 and max(firsts) + work.batch <= work.train_images == 1437
    covered = {image for first in firsts[:46] for image in range(first, first + work.batch)}
    assert len(covered) > 0.97 * work.train_images and len(set(firsts)) > 300


class Faulty(FunctionalBackend):
    """Spoils a byte of memory after the program with number `program`."""

    def __init__(self, program, address):
        super().__init__(TINY, cambriconq.MEMORY_BYTES)
        self.program, self.address, self.count = program, address, 0

    def run(self, entry):
        super().run(entry)
        if self.count == self.program:
            self.machine.memory[self.address] ^= 0x10
        self.count += 1


@pytest.mark.parametrize(
    "region, byte, message",
    [
        (
            "v of layer 0",
            4 * (5 * 64 + 7) + 1,
            r"^step 1: v of layer 0, element \[5, 7\], is \S+ \(0x0*1000\), expected 0 \(0x0*\) \(1 of",
        ),
        ("w of layer 1", 0, r"^step 1: w of layer 1, element \[0, 0\], is \S+ \(0x\w{8}\), expected \S+ \(0x"),
        ("loss and accuracy", 4, r"^step 1: loss and accuracy, element \[1\], is"),
        ("labels", 4 * 25, r"^step 1: labels, element \[2, 5\], is"),
        (None, 12, r"^step 1: byte 0xc, where nothing is meant to be, is 0x10, expected 0x00"),
    ],
)
def test_a_wrong_byte_is_located(images, region, byte, message):
    work = session(images)
    at = next((r.at for r in work.regions if r.name == region), 0) + byte
    checked = CheckedBackend(Faulty(2, at), FunctionalBackend(TINY, cambriconq.MEMORY_BYTES), work.regions)
    started(work, checked)
    checked.place = "step 0"
    work.step(checked, 0)
    assert checked.comparisons == 2 * cambriconq.MEMORY_BYTES
    checked.place = "step 1"
    with pytest.raises(Mismatch, match=message):
        work.step(checked, 1)


def test_regions_are_apart(images):
    for network in cambriconq.NETWORKS:
        work = session(images, network=network)
        regions = sorted(work.regions, key=lambda region: region.at)
        assert all(a.at + a.size <= b.at for a, b in pairwise(regions))
        assert regions[-1].at + regions[-1].size == cambriconq.MEMORY_BYTES


@pytest.fixture(scope="module")
def verilog():
    with cambriconq.rtl_backend(TINY, 0, False) as backend:
        yield backend


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "adam"},
        {"network": "cnn", "optimizer": "adagrad"},
        {"network": "pool", "optimizer": "rmsprop", "bits": 4},
        {"bits": 16, "batch": 5},
    ],
    ids=str,
)
def test_a_step_on_the_verilog_leaves_the_memory_of_the_model(images, verilog, recipe):
    """And its cycles are those of the phases, about as many as estimated."""
    work = session(images, steps=1, **recipe)
    checked = CheckedBackend(verilog, FunctionalBackend(TINY, cambriconq.MEMORY_BYTES), work.regions)
    started(work, checked)
    work.accuracy(checked, work.train_images, work.batch)  # the buffers forget their lines after a reset, for some 2000 cycles
    before, cycles = np.array(checked.phase_cycles()), checked.cycles()
    work.step(checked, 0)
    spent = np.array(checked.phase_cycles()) - before
    assert spent.sum() == checked.cycles() - cycles and spent[: len(Phase)].all() and not spent[len(Phase) :].any()
    estimated = phases(work.program(0), TINY)
    assert spent.sum() == pytest.approx(sum(estimated.values()), rel=0.05)
    for phase, expected in estimated.items():
        assert spent[phase] == pytest.approx(expected, abs=0.05 * spent.sum()), phase
    work.accuracy(checked, work.train_images, 2 * work.batch + 3)
    assert checked.comparisons == 4 * cambriconq.MEMORY_BYTES


class Stopped(FunctionalBackend):
    """Ends every program after the first with an error."""

    def __init__(self):
        super().__init__(TINY, cambriconq.MEMORY_BYTES)
        self.count = 0

    def run(self, entry):
        self.count += 1
        if self.count > 1:
            raise RuntimeError("instruction 3: NO_TAG")
        super().run(entry)


def test_stopping_alone_is_a_difference(images):
    work = session(images)
    for sides, message in (
        ((Stopped, None), r"was stopped \(instruction 3: NO_TAG\)"),
        ((None, Stopped), r"model stopped it \(instr"),
    ):
        hardware, model = (side() if side else FunctionalBackend(TINY, cambriconq.MEMORY_BYTES) for side in sides)
        checked = CheckedBackend(hardware, model, work.regions)
        started(work, checked)
        with pytest.raises(Mismatch, match=message):
            work.step(checked, 0)
    checked = CheckedBackend(Stopped(), Stopped(), work.regions)
    started(work, checked)
    with pytest.raises(RuntimeError, match="NO_TAG"):
        work.step(checked, 0)


def test_memory_too_small_is_said(images):
    with pytest.raises(CompileError, match=r"memory is too small: \d+ needed, 100000 there"):
        cambriconq.Session(cambriconq.Recipe(), TINY, images, 100000)


@pytest.fixture
def few(images, monkeypatch):
    """A command that loads few images ends soon."""
    train, test = slice(0, 100), slice(0, 50)
    fewer = data.Digits(images.train_images[train], images.train_labels[train], images.test_images[test], images.test_labels[test])
    monkeypatch.setattr(data, "load", lambda: fewer)


def run(tmp_path, *arguments):
    return cambriconq.main(["--backend", "functional", "--steps", "2", "--output", str(tmp_path), *arguments])


def test_the_command_reports(few, tmp_path, capsys):
    assert run(tmp_path, "--seed", "3", "--opt", "adam") == 0
    text = capsys.readouterr().out
    for fact in ("tiny, functional", "dense 64, ReLU, dense 10", "2 steps of 32", "adam", "of 50 images", "nothing to compare"):
        assert fact in text
    (numbers,) = tmp_path.glob("*.json")
    content = json.loads(numbers.read_text())
    assert len(content["history"]["loss"]) == 2 and content["summary"]["cycles"] is None
    (figure,) = tmp_path.glob("*.png")
    assert figure.read_bytes().startswith(b"\x89PNG")


class Clocked(FunctionalBackend):
    """Counts a hundred cycles of every phase a program."""

    programs = 0

    def run(self, entry):
        super().run(entry)
        self.programs += 1

    def phase_cycles(self):
        return [100 * self.programs] * 8

    def cycles(self):
        return 800 * self.programs


def test_cycles_are_divided(few, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cambriconq, "FunctionalBackend", Clocked)
    assert run(tmp_path) == 0
    text = capsys.readouterr().out
    for fact in (
        "cycles of training  1,200, 600 a step",
        "FW, forward  200 (16.7%)",
        "S, statistic  0: taken on the fly",
        "simulated cycles/s",
    ):
        assert fact in text


def test_exit_status(few, tmp_path, capsys, monkeypatch):
    assert run(tmp_path, "--require", "0.95") == 1
    assert "below the required 95.0%" in capsys.readouterr().err
    for arguments, message in (
        (["--steps", "0"], "at least 1"),
        (["--require", "95"], "0..1"),
        (["--waves"], "no signals"),
        (["--bits", "7"], "7"),
        (["--seed", "-1"], "negative"),
        (["--config", "huge"], "tiny"),
        (["--net", "rnn"], "mlp"),
        (["--opt", "lion"], "adam"),
    ):
        with pytest.raises(SystemExit) as info:
            run(tmp_path, *arguments)
        assert info.value.code == 2 and message in capsys.readouterr().err
    monkeypatch.setattr(cambriconq, "FunctionalBackend", lambda config, size: Stopped())
    assert run(tmp_path) == 2
    assert "training stopped: instruction 3: NO_TAG" in capsys.readouterr().err


def test_one_command_reaches_both_machines():
    """Each machine's own switches are in the help of ``--machine`` …; without it the machine is LT-OAQ."""
    for machine, own in (([], "--transport"), (["--machine", "ltoaq"], "--transport"), (["--machine", "cambriconq"], "--opt")):
        result = subprocess.run(
            [sys.executable, "-m", "nibblecore.sim.train", *machine, "--help"], capture_output=True, text=True, check=True
        )
        assert own in result.stdout
