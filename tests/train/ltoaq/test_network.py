"""Training on the functional model and, for a step, on the Verilog."""

import json
import re
from typing import Any

import numpy as np
import pytest
from nibblecore.hdl.config import FPGA, TINY
from nibblecore.sim import cli
from nibblecore.sim.golden.ltoaq import top as golden
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.checked import CheckedAccelerator
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport
from nibblecore.sim.train import data
from nibblecore.sim.train.ltoaq import learner
from nibblecore.sim.train.ltoaq.network import _PIXELS, _SIGN, Network, Recipe, _cross_entropy, _pixels, _right

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def images():
    return data.load()


def network(transport="functional", *, check=True, config=TINY, **recipe):
    accelerator = LtoaqAccelerator(config, transport=transport)
    return Network(Recipe(**recipe), CheckedAccelerator(accelerator, check))


def steps(net, images, count):
    order = data.Batches(len(images.train_labels), net.recipe.batch, np.random.default_rng([net.recipe.seed, 1]))
    return [net.train(images.train_images[i], images.train_labels[i]) for i, _ in zip(order, range(count), strict=False)]


@pytest.mark.parametrize("bits", [4, 8])
def test_learns(images, bits):
    """Chance is 0.1; the same recipe in floating point reaches 0.77 to 0.86 in as many steps."""
    net = network(config=FPGA, check=False, bits=bits, steps=40)
    losses = [loss for loss, _ in steps(net, images, 40)]
    assert losses[0] > 2 and np.mean(losses[-5:]) < 1
    assert net.right(images.test_images, images.test_labels).mean() > 0.65
    ratios = net.outlier_ratios()
    assert set(ratios) == {"activation", "weight", "error"} and all(0 < ratio < 0.5 for ratio in ratios.values())


def test_a_small_memory_takes_the_images_in_parts(images):
    """The same of them are right, in more commands."""
    answers, commands = [], []
    for memory_size in (1 << 24, 1 << 17):
        accelerator = LtoaqAccelerator(TINY, transport="functional", memory_size=memory_size)
        net = Network(Recipe(steps=20), CheckedAccelerator(accelerator, False))
        steps(net, images, 20)
        before = accelerator.counters()["done"]
        answers.append(net.right(images.test_images[:200], images.test_labels[:200]))
        commands.append(accelerator.counters()["done"] - before)
    assert np.array_equal(answers[0], answers[1]) and answers[0].mean() > 0.2
    assert commands[1] == 5 * commands[0]


def test_a_dead_network_is_right_nowhere(images):
    net = network(check=False)
    for layer in net.layers:
        layer.weights[:] = 0
    (_, accuracy), *_ = steps(net, images, 1)
    assert accuracy == 0 and not net.right(images.test_images, images.test_labels).any()


def test_a_tie_is_wrong():
    logits = np.array([[1, 1, 0], [2, 1, 0], [1, 2, 2], [-3, -2, -1], [np.nan, 0, 0], [1, np.nan, 0], [np.inf, 0, 0]])
    assert _right(logits, np.zeros(7, int)).tolist() == [False, True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be a whole number, at least 1, not 0"),
        ({"batch": -1}, "batch must be a whole number, at least 1, not -1"),
        ({"batch": 2.5}, "batch must be a whole number, at least 1, not 2.5"),
        ({"hidden": (48, 0)}, "hidden must be a whole number, at least 1, not 0"),
        ({"bits": 6}, "bits must be 4 or 8, not 6"),
        ({"seed": -1}, "seed must be a whole number, at least 0, not -1"),
        *(({"learning_rate": x}, f"learning_rate must be a finite number above 0, not {x!r}") for x in (0, -1, NAN, INF, "1")),
        *(({"momentum": x}, f"momentum must be a finite number of at least 0 and below 1, not {x!r}") for x in (1, -0.1, NAN)),
        *(({"threshold_rate": x}, f"threshold_rate must be a finite number of at least 0, not {x!r}") for x in (-1, INF)),
    ],
)
def test_a_recipe_is_looked_at(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Recipe(**change)
    long: Any = np.int64
    assert Recipe(hidden=(long(48), 48), batch=long(32)) == Recipe()


def test_thresholds_learn(images):
    net = network(check=False, steps=10)
    steps(net, images, 1)
    before = [threshold.alpha for layer in net.layers for threshold in layer.thresholds]
    steps(net, images, 2)
    after = [threshold.alpha for layer in net.layers for threshold in layer.thresholds]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_gradients_are_those_of_the_loss(images):
    """Against a numerical derivative of the same network in floating point; 8-bit codes come within a few per cent."""
    net = network(check=False, bits=8)
    x, labels = images.train_images[:32], images.train_labels[:32]
    weights = [layer.weights.astype(float) for layer in net.layers]
    net.train(x, labels)

    def loss():
        y = x / data.PIXEL_MAX
        for w in weights[:-1]:
            y = np.maximum(y @ w.T, 0)
        return _cross_entropy(y @ weights[-1].T, labels)[0]

    for index, layer in enumerate(net.layers):
        gradient = -layer.velocity / net.recipe.learning_rate
        direction = gradient / np.linalg.norm(gradient)
        origin, h = weights[index], 1e-4
        weights[index] = origin + h * direction
        above = loss()
        weights[index] = origin - h * direction
        slope = (above - loss()) / (2 * h)
        weights[index] = origin
        assert slope == pytest.approx(np.linalg.norm(gradient), rel=0.05), f"layer {index}"


def test_same_seed_same_weights(images):
    first, second, other = (network(check=False, seed=seed) for seed in (1, 1, 2))
    for net in (first, second, other):
        steps(net, images, 2)
    assert all(np.array_equal(a.weights, b.weights) for a, b in zip(first.layers, second.layers, strict=True))
    assert not np.array_equal(first.layers[0].weights, other.layers[0].weights)


def test_a_step_on_the_verilog_equals_a_step_on_the_functional_model(images):
    nets = []
    for transport in ("simulation", "functional"):
        nets.append(network(transport, hidden=(16, 8), batch=16))
        with nets[-1].accelerator:
            steps(nets[-1], images, 2)
    verilog, functional = nets
    assert verilog.accelerator.comparisons == functional.accelerator.comparisons > 5000
    for a, b in zip(verilog.layers, functional.layers, strict=True):
        assert np.array_equal(a.weights, b.weights)
        assert [t.alpha for t in a.thresholds] == [t.alpha for t in b.thresholds]


class Faulty(FunctionalTransport):
    """Spoils a byte of what the command with number `command` writes."""

    def __init__(self, command, region, offset=0):
        super().__init__(TINY)
        self.command, self.region, self.offset, self.count = command, region, offset, 0

    def _run(self, address):
        d = self.descriptor(address)
        super()._run(address)
        if self.count == self.command:
            self.memory[d[self.region] + self.offset] ^= 0x10
        self.count += 1

    def descriptor(self, address):
        from nibblecore.hdl.ltoaq.command.descriptor import DESCRIPTOR_BYTES, unpack

        return unpack(self.read_memory(address, DESCRIPTOR_BYTES))


@pytest.mark.parametrize(
    ("command", "region", "offset", "message"),
    [
        (1, "raw0_address", 4 * 50, r"^step 0, layer 0, forward product: element \[1, 2\] is -?\d+, expected -?\d+ \(1 of 1536 el"),
        (
            3,
            "out_codes",
            9,
            r"^step 0, layer 1, quantizing the weights: element \[\d+, \d+\] is (normal|outlier) code \d+, expected",
        ),
        (2, "out_header", 4, r"^step 0, layer 1, quantizing the activations: x_max is \d+, expected \d+$"),
        (2, "out_header", 8, r"^step 0, layer 1, quantizing the activations: outliers is \d+, expected \d+$"),
        (2, "out_runs", 0, r"^step 0, layer 1, quantizing the activations: (element \[|the tensor in memory is malformed)"),
        (10, "out_header", 16, r"^step 0, layer 2, weight threshold gradient: the sum is -?\d+, expected -?\d+$"),
        (
            13,
            "out_codes",
            9,
            r"^step 0, layer 2, the derivative of ReLU: element \[\d+, \d+\] is (normal|outlier) code \d+, expected",
        ),
    ],
)
def test_a_wrong_result_is_located(images, command, region, offset, message):
    with pytest.raises(Mismatch, match=message):
        steps(network(Faulty(command, region, offset)), images, 1)


def test_pixels_are_quantized_by_the_host_as_by_the_accelerator():
    images = np.arange(data.PIXEL_MAX + 1, dtype=np.int32).reshape(1, -1)
    expected, _ = golden.quantize(images, _PIXELS)
    assert _pixels(images).first_difference(expected) is None and expected.outlier[0, -1]


def test_signs_of_all_there_is():
    words = np.array([[-(2**31), -1, 0, 1, 2, 2**31 - 2, 2**31 - 1]], np.int32)
    tensor, _ = golden.quantize(words, _SIGN)
    assert np.array_equal((tensor.codes > 0) | tensor.outlier, words > 0)


def test_weights_are_sent_once(images, monkeypatch):
    """With the step that made them; a test sends none, and what was restored is sent again."""
    net, sent = network(check=False), []
    store = net.accelerator.accelerator.store_raw

    def counted(handle, matrix):
        if handle.reserved:
            sent.append(handle.shape)
        store(handle, matrix)

    monkeypatch.setattr(net.accelerator.accelerator, "store_raw", counted)
    shapes = [layer.weights.shape for layer in net.layers]
    steps(net, images, 1)
    assert sent == [*shapes, *reversed(shapes)]
    sent.clear()
    net.right(images.test_images[:40], images.test_labels[:40])
    assert not sent
    net.layers[1].restore({name: array.copy() for name, array in net.layers[1].state().items()})
    net.right(images.test_images[:40], images.test_labels[:40])
    assert sent == [shapes[1]]


def test_a_step_that_breaks_off_changes_no_layer(images, monkeypatch):
    net = network(check=False)
    steps(net, images, 1)
    before = [(layer.weights, layer.velocity) for layer in net.layers]
    later = net.accelerator.accelerator.download_later

    def lost(handle):
        def taken():
            raise ConnectionError("lost")

        return taken if handle.shape == net.layers[0].weights.shape else later(handle)

    monkeypatch.setattr(net.accelerator.accelerator, "download_later", lost)
    with pytest.raises(ConnectionError):
        steps(net, images, 1)
    assert all(layer.weights is w and layer.velocity is v for layer, (w, v) in zip(net.layers, before, strict=True))


def test_without_check_nothing_is_compared(images):
    net = network(Faulty(3, "out_codes", 9), check=False)
    steps(net, images, 1)
    assert net.accelerator.comparisons == 0


def command(tmp_path, *arguments):
    words = ["--transport", "functional", "--steps", "2", "--output", str(tmp_path), *arguments]
    return cli.main(["train", *words])


def test_the_command_reports(tmp_path, capsys):
    assert command(tmp_path, "--seed", "3") == 0
    text = capsys.readouterr().out
    for fact in (
        "LT-OAQ tiny, functional",
        "64-48-48-10",
        "2 steps of 32",
        "of 360 images",
        "outliers",
        "numbers compared, all equal",
    ):
        assert fact in text
    content = json.loads((tmp_path / "digits-ltoaq-tiny-4bit-seed3.json").read_text())
    assert content["summary"]["comparisons"] > 10_000 and content["summary"]["measured"]["cycles"] is None
    assert [len(ratios) for ratios in content["history"]["measured"]["outliers"].values()] == [2, 2, 2]
    # Forward, both gradients but the first layer's neurons', and the tests: after the first step and twice at the end.
    weights, first = 64 * 48 + 48 * 48 + 48 * 10, 64 * 48
    assert content["summary"]["measured"]["multiplications"] == 2 * 32 * (3 * weights - first) + (120 + 360 + 360) * weights


def test_cycles_are_those_of_the_verilog(tmp_path, capsys):
    """The picture is drawn with them."""
    assert command(tmp_path, "--transport", "simulation", "--steps", "1") == 0
    text = capsys.readouterr().out
    content = json.loads((tmp_path / "digits-ltoaq-tiny-4bit-seed0.json").read_text())
    measured = content["summary"]["measured"]
    assert f"busy cycles  {measured['cycles']:,}\n" in text and "simulated cycles/s" in text
    assert 0 < measured["array_cycles"] < measured["cycles"] < content["summary"]["simulated_cycles"]
    assert measured["utilization"] == measured["array_cycles"] / measured["cycles"]
    assert 0 < content["history"]["measured"]["utilization"]["array"][0] < 1


def test_the_command_says_where_it_differs_or_stops(tmp_path, capsys, monkeypatch):
    def use(transport):
        monkeypatch.setattr(learner, "LtoaqAccelerator", lambda config, **options: LtoaqAccelerator(config, transport=transport))

    use(Faulty(1, "raw0_address"))
    assert command(tmp_path) == 1
    error = capsys.readouterr().err
    assert "differs from the golden model: step 0, layer 0, forward product: element [0, 0]" in error
    use(Faulty(2, "out_header"))
    assert command(tmp_path, "--no-check") == 2
    assert "training stopped: MALFORMED_RUNS in GEMM" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
