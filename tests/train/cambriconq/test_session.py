"""Training on Cambricon-Q's functional model, and the comparison with it."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES
from nibblecore.hdl.cambriconq.registers import PHASES
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim import cli
from nibblecore.sim.compiler.compiler import SGD, CompileError, Phase
from nibblecore.sim.compiler.estimate import phases
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator, ProgramError
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.cambriconq.functional import FunctionalTransport
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.refusal import Refusal
from nibblecore.sim.train import data
from nibblecore.sim.train.cambriconq import learner, networks
from nibblecore.sim.train.cambriconq.session import MEMORY_BYTES, Recipe, Session, _differing
from nibblecore.sim.train.shell import Diverged

TINY = CAMBRICONQ["tiny"]


@pytest.fixture(scope="module")
def images():
    return data.load()


def session(images, config=TINY, **recipe):
    return Session(Recipe(**recipe), config, images)


def functional(transport="functional", config=TINY):
    return CambriconqAccelerator(config, transport=transport, memory_size=MEMORY_BYTES)


def started(work, accelerator=None, config=TINY):
    """The functional model with the session's memory."""
    accelerator = accelerator or functional(config=config)
    work.load(accelerator)
    return accelerator


@pytest.mark.parametrize("optimizer", networks.OPTIMIZERS)
def test_learns(images, optimizer):
    """Chance is 0.1."""
    work = session(images, optimizer=optimizer, batch=16, steps=16)
    accelerator = started(work)
    before = work.accuracy(accelerator, work.train_images, 64)
    losses = [work.step(accelerator, step)[0] for step in range(16)]
    assert np.mean(losses[-3:]) < 0.75 * losses[0]
    assert work.accuracy(accelerator, work.train_images, 64) > before + 0.2


@pytest.mark.parametrize("config", ["tiny", "tiny_bus"])
@pytest.mark.parametrize("network, bits", [("cnn", 4), ("pool", 4), ("pool", 16)])
def test_a_convolutional_network_follows_its_gradient(images, network, bits, config):
    """A step on one batch again and again lowers its loss."""
    work = session(images, CAMBRICONQ[config], network=network, bits=bits, steps=4)
    accelerator = started(work, config=CAMBRICONQ[config])
    losses = []
    for number in range(1, 4):
        program = work.training.step(number, 0, 0.25)
        losses.append(work._run(accelerator, program)[0])
    assert losses[0] > losses[1] > losses[2]


def test_same_seed_same_weights(images):
    memories = []
    for seed in (1, 1, 2):
        work = session(images, seed=seed)
        accelerator = started(work)
        work.step(accelerator, 0)
        memories.append(accelerator.read_memory(0, work.training.program_at))
    assert memories[0] == memories[1] != memories[2]


def test_no_batch_has_a_test_image(images):
    work = session(images)
    firsts = [work.first(step) for step in range(500)]
    assert min(firsts) == 0 and max(firsts) + work.batch <= work.train_images == 1437
    covered = {image for first in firsts[:46] for image in range(first, first + work.batch)}
    assert len(covered) > 0.97 * work.train_images and len(set(firsts)) > 300


class Faulty(FunctionalTransport):
    """Spoils a byte of memory after the program with number `program`."""

    def __init__(self, program, address):
        super().__init__(TINY, MEMORY_BYTES)
        self.program, self.address, self.count = program, address, 0

    def _run(self, entry):
        super()._run(entry)
        if self.count == self.program:
            self.memory[self.address] ^= 0x10
        self.count += 1


@pytest.mark.parametrize(
    "region, byte, message",
    [
        (
            "v of layer 0",
            4 * (5 * 64 + 7) + 1,
            r"^step 1, v of layer 0: element \[5, 7\] is \S+ \(0x0*1000\), expected 0 \(0x0*\) \(1 of",
        ),
        ("w of layer 1", 0, r"^step 1, w of layer 1: element \[0, 0\] is \S+ \(0x\w{8}\), expected \S+ \(0x"),
        ("loss and accuracy", 4, r"^step 1, loss and accuracy: element \[1\] is"),
        ("labels", 4 * 25, r"^step 1, labels: element \[2, 5\] is"),
        (None, 12, r"^step 1, memory: the word at 0xc, where nothing is meant to be, is 0x00000010, expected 0x00000000 \(1 of"),
    ],
)
def test_a_wrong_byte_is_located(images, region, byte, message):
    work = session(images)
    at = next((r.at for r in work.regions if r.name == region), 0) + byte
    checked = CheckedAccelerator(functional(Faulty(2, at)), regions=work.regions)
    started(work, checked)
    checked.place = "step 0"
    work.step(checked, 0)
    assert checked.comparisons == 2 * MEMORY_BYTES
    checked.place = "step 1"
    with pytest.raises(Mismatch, match=message):
        work.step(checked, 1)


@pytest.mark.parametrize(("value", "met"), [(np.nan, "NaN"), (-np.inf, "an infinity")])
@pytest.mark.parametrize("check", [True, False])
def test_what_was_quantized_is_looked_at_after_every_program(images, value, met, check):
    work = session(images)
    checked = CheckedAccelerator(functional(), check, work.regions)
    started(work, checked)
    checked.place = "step 0"
    work.step(checked, 0)
    checked.write_memory(work.training.data + 4 * 40 * 64, np.float32(value).tobytes())
    checked.place = "step 1"
    with pytest.raises(Diverged, match=rf"^step 1: the machine quantized {met}; try"), np.errstate(all="ignore"):
        work.step(checked, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be a whole number, at least 1, not 0"),
        ({"batch": 0}, "batch must be a whole number, at least 1, not 0"),
        ({"batch": "8"}, "batch must be a whole number, at least 1, not '8'"),
        ({"batch": 1438}, "batch must be a whole number, 1..1437, not 1438"),
        ({"seed": None}, "seed must be a whole number, at least 0, not None"),
        ({"bits": 6}, "bits must be 4, 8, 12 or 16, not 6"),
        ({"network": "rnn"}, "network must be one of mlp, cnn, pool, resnet, not 'rnn'"),
    ],
)
def test_a_recipe_is_looked_at(images, change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        session(images, **change)


def test_regions_are_apart(images):
    for network in networks.NETWORKS:
        work = session(images, network=network)
        regions = sorted(work.regions, key=lambda region: region.at)
        assert all(a.at + a.size <= b.at for a, b in pairwise(regions))
        assert regions[-1].at + regions[-1].size == MEMORY_BYTES


@pytest.fixture(scope="module")
def verilog():
    with CambriconqAccelerator(TINY, memory_size=MEMORY_BYTES) as accelerator:
        yield accelerator


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
    checked = CheckedAccelerator(verilog, regions=work.regions)
    started(work, checked)
    work.accuracy(checked, work.train_images, work.batch)  # the buffers forget their lines after a reset, for some 2000 cycles
    before = checked.counters()
    work.step(checked, 0)
    passed = {name: count - before[name] for name, count in checked.counters().items()}
    spent = np.array([passed[f"phase{n}"] for n in range(PHASES)])
    assert spent.sum() == passed["cycles"] and spent[: len(Phase)].all() and not spent[len(Phase) :].any()
    estimated = phases(work.program(0), TINY)
    assert spent.sum() == pytest.approx(sum(estimated.values()), rel=0.05)
    for phase, expected in estimated.items():
        assert spent[phase] == pytest.approx(expected, abs=0.05 * spent.sum()), phase
    work.accuracy(checked, work.train_images, 2 * work.batch + 3)
    assert checked.comparisons == 4 * MEMORY_BYTES


class Stopped(FunctionalTransport):
    """Ends every program after the first with an error."""

    def __init__(self):
        super().__init__(TINY, MEMORY_BYTES)
        self.count = 0

    def _run(self, entry):
        self.count += 1
        if self.count == 1:
            super()._run(entry)
        else:
            self._registers.update(ERROR=ErrorCode.NO_TAG, INDEX=3, STARTED=3)
            self._set("IRQ_STATUS", done=1)


STOPPED = r"NO_TAG in instruction 3 of the program at 0x\w+ \([A-Z]+ .*\)"


def test_stopping_alone_is_a_difference(images):
    work = session(images)
    for sides, message in (
        ((Stopped(), "functional"), rf"^step 0: the program's end is {STOPPED}, expected HALT$"),
        (("functional", Stopped()), rf"^step 0: the program's end is HALT, expected {STOPPED}$"),
    ):
        checked = CheckedAccelerator(functional(sides[0]), regions=work.regions)
        checked.model = functional(sides[1])
        started(work, checked)
        checked.place = "step 0"
        with pytest.raises(Mismatch, match=message):
            work.step(checked, 0)
    checked = CheckedAccelerator(functional(Stopped()), regions=work.regions)
    checked.model = functional(Stopped())
    started(work, checked)
    with pytest.raises(ProgramError, match=STOPPED):
        work.step(checked, 0)
    checked.model.write_memory(0, b"\x01")
    with pytest.raises(Mismatch, match="memory: the word at 0x0"):
        work.step(checked, 0)


def test_memory_too_small_is_said(images):
    with pytest.raises(CompileError, match="memory is too small: 79296 needed, 79292 there, 4 bytes short of a batch of 32"):
        Session(Recipe(), TINY, images, 79292)
    assert Session(Recipe(), TINY, images, 79296).held == 32


@pytest.mark.parametrize(
    ("recipe", "memory_bytes", "held"),
    [
        ({"optimizer": "momentum", "steps": 50}, 90_000, 64),
        ({"optimizer": "adam", "bits": 4, "batch": 24}, 1 << 17, 168),
        ({"network": "cnn", "bits": 16}, 1 << 18, 400),
        ({"network": "pool", "optimizer": "adagrad", "bits": 4}, 80_000, 32),
    ],
    ids=str,
)
def test_images_that_memory_has_no_room_for_are_brought(images, recipe, memory_bytes, held):
    """To the same losses, accuracies and weights as where all lie in memory."""

    def learned(work):
        accelerator = CambriconqAccelerator(TINY, transport="functional", memory_size=work.training.memory_bytes)
        work.load(accelerator)
        found = [work.step(accelerator, step) for step in (0, 1, 44)]
        places = ((work.train_images, 120), (work.train_images, work.test_images), (0, 100))
        found += [work.accuracy(accelerator, first, count) for first, count in places]
        return found, {name: values.tobytes() for name, values in work.training.state(accelerator.read_memory).items()}

    work = Session(Recipe(**recipe), TINY, images, memory_bytes)
    assert work.held == held and not work.holds_all
    assert learned(work) == learned(session(images, **recipe))


def test_of_a_program_only_what_differs_is_written(images, monkeypatch):
    """Memory has the whole of it whatever ran before; from step to step a few instructions change, and after `load` none is there."""
    work = Session(Recipe(), TINY, images, 1 << 18)
    accelerator, written = functional(), []
    write, at = accelerator.write_memory, work.training.program_at

    def counting(address, values):
        written.append((address, len(values)))
        write(address, values)

    monkeypatch.setattr(accelerator, "write_memory", counting)

    def program():
        """Bytes written of the program since the last look."""
        found = sum(size for address, size in written if address >= at)
        written.clear()
        return found

    def there(binary):
        return accelerator.read_memory(at, len(binary)) == binary

    work.load(accelerator)
    written.clear()
    first, second = (work.program(step).binary() for step in (0, 1))
    work.step(accelerator, 0)
    assert there(first) and len(first) - 2 * INSTRUCTION_BYTES <= program() <= len(first)
    work.step(accelerator, 1)
    assert there(second) and 0 < program() <= 8 * INSTRUCTION_BYTES
    work.accuracy(accelerator, 0, 32)
    work.step(accelerator, 1)
    assert there(second) and program() < 2 * len(first)
    work.step(accelerator, 1)
    assert there(second) and program() == 0
    work.load(accelerator)
    written.clear()
    work.step(accelerator, 1)
    assert there(second)


@pytest.mark.parametrize(
    ("before", "after", "runs"),
    [
        ("", "", {}),
        ("", "abc", {0: "abc"}),
        ("abc", "abc", {}),
        ("abcde", "axxdy", {1: "xx", 4: "y"}),
        ("abcde", "ab", {}),
        ("ab", "xbc", {0: "x", 2: "c"}),
    ],
)
def test_instructions_that_differ(before, after, runs):
    def binary(text):
        return b"".join(letter.encode() * INSTRUCTION_BYTES for letter in text)

    assert dict(_differing(binary(before), binary(after))) == {at * INSTRUCTION_BYTES: binary(run) for at, run in runs.items()}


def test_an_optimizer_that_the_network_lacks_is_refused(images, monkeypatch):
    monkeypatch.setitem(
        networks.NETWORKS, "mlp", networks.Network(layers=networks.NETWORKS["mlp"].layers, batch=32, optimizers={"sgd": SGD(1)})
    )
    with pytest.raises(Refusal, match="network mlp has none of that name; it has sgd"):
        session(images, optimizer="adam")


@pytest.fixture
def few(images, monkeypatch):
    """A command that loads few images ends soon."""
    train, test = slice(0, 100), slice(0, 50)
    fewer = data.Digits(images.train_images[train], images.train_labels[train], images.test_images[test], images.test_labels[test])
    monkeypatch.setattr(data, "load", lambda: fewer)


def command(tmp_path, *arguments):
    words = ["--transport", "functional", "--steps", "2", "--output", str(tmp_path), *arguments]
    return cli.main(["train", "--machine", "cambriconq", *words])


def test_the_command_reports(few, tmp_path, capsys):
    assert command(tmp_path, "--seed", "3", "--opt", "adam") == 0
    text = capsys.readouterr().out
    for fact in (
        "Cambricon-Q tiny, functional",
        "dense 64, ReLU, dense 10",
        "2 steps of 32",
        "adam",
        "of 50 images",
        "nothing to compare",
    ):
        assert fact in text
    content = json.loads((tmp_path / "digits-cambriconq-tiny-mlp-adam-8bit-seed3.json").read_text())
    assert content["summary"]["measured"] == {"instructions": 98, "cycles": None, "phases": None}
    assert content["summary"]["recipe"]["batch"] == 32 and content["summary"]["comparisons"] is None


class Clocked(FunctionalTransport):
    """Counts a hundred cycles of every phase a program."""

    def _run(self, entry):
        super()._run(entry)
        for name in ("CYCLES", *(f"PHASE{n}" for n in range(PHASES))):
            self._registers[name] += 100 if name != "CYCLES" else 100 * PHASES


def use(transport, monkeypatch):
    """The command reaches an accelerator over this transport."""
    monkeypatch.setattr(
        learner, "CambriconqAccelerator", lambda config, **options: CambriconqAccelerator(config, transport=transport)
    )


def test_cycles_are_divided(few, tmp_path, capsys, monkeypatch):
    use(Clocked(TINY, MEMORY_BYTES), monkeypatch)
    assert command(tmp_path) == 0
    text = capsys.readouterr().out
    for fact in ("cycles of training  1,200, 600 a step", "FW, forward  200 (16.7%)", "S, statistic  0: taken on the fly"):
        assert fact in text


def test_all_of_memory_is_compared_with_the_verilogs(few, tmp_path, capsys):
    """After set-up, a step of two passes and two tests."""
    assert command(tmp_path, "--transport", "simulation", "--steps", "1", "--opt", "adamw") == 0
    text = capsys.readouterr().out
    assert f"golden model  {4 * MEMORY_BYTES:,} bytes of memory compared, all equal" in text and "simulated cycles/s" in text


def test_the_command_says_why_it_stops(few, tmp_path, capsys, monkeypatch):
    use(Stopped(), monkeypatch)
    assert command(tmp_path) == 2
    assert re.search(rf"training stopped: {STOPPED}", capsys.readouterr().err) and not list(tmp_path.iterdir())
    monkeypatch.setattr(Session.__init__, "__defaults__", (70_000,))
    assert command(tmp_path) == 2
    assert "training stopped: memory is too small" in capsys.readouterr().err
