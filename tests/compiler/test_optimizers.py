"""Optimizers are what torch.optim documents, passes over equation (1) and all; where ε stands elsewhere, by how much they differ."""

import re
from typing import Any

import numpy as np
import pytest
import torch_optim
from nibblecore.hdl.cambriconq.program import isa
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.compiler.compiler import SGD, Adagrad, Adam, AdamW, CompileError, Dense, Optimizer, Relu, RMSprop, Training
from nibblecore.sim.golden.cambriconq.machine import Machine
from nibblecore.sim.golden.cambriconq.update import ndpo
from nibblecore.sim.golden.cambriconq.vector.sfu_function import function

STEPS = 100
SETTINGS: dict[str, Optimizer] = {
    "sgd": SGD(0.05),
    "sgd, weight decay": SGD(0.05, weight_decay=0.1),
    "momentum": SGD(0.02, momentum=0.9),
    "momentum, dampening": SGD(0.02, momentum=0.9, dampening=0.4),
    "momentum, weight decay": SGD(0.02, momentum=0.9, dampening=0.4, weight_decay=0.1),
    "nesterov": SGD(0.02, momentum=0.9, nesterov=True),
    "nesterov, weight decay": SGD(0.02, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adagrad": Adagrad(),
    "adagrad, falling": Adagrad(0.05, lr_decay=0.03),
    "rmsprop": RMSprop(),
    "rmsprop, momentum": RMSprop(alpha=0.9, momentum=0.8),
    "adam": Adam(),
    "adam, other betas": Adam(0.01, betas=(0.5, 0.9)),
    "adamw": AdamW(),
    "adamw, strong": AdamW(0.01, weight_decay=2.0),
}


class Twin:
    """Weights and moments in FP32, and what the hardware makes of them."""

    def __init__(self, w, m=0.0, v=0.0):
        self.w, self.m, self.v = (np.asarray(values, np.float32) + np.zeros_like(w) for values in (w, m, v))

    def step(self, optimizer, number, g, scale=1.0):
        for each in optimizer.passes(number, scale):
            hardware = ndpo.Optimizer()
            for register, value in each.constants.items():
                hardware.set(int(register), value)
            if each.exchanged:
                self.m, self.w, self.v = hardware.update(self.m, self.w, self.v, g)
            else:
                self.w, self.m, self.v = hardware.update(self.w, self.m, self.v, g)


def compared(optimizer, gradients, scales=None):
    """The largest distance of a weight from PyTorch's in double precision, relative to the largest magnitude that one has had."""
    rng = np.random.default_rng(5)
    w = rng.normal(0, 0.1, gradients.shape[1]).astype(np.float32)
    twin, theirs, scale, worst = Twin(w), torch_optim.State(w), np.abs(w).astype(np.float64), 0.0
    for number, g in enumerate(gradients, 1):
        factor = 1.0 if scales is None else scales[number - 1]
        twin.step(optimizer, number, g, factor)
        torch_optim.step(theirs, optimizer, number, g.astype(np.float64), optimizer.lr * factor)
        scale = np.maximum(scale, np.abs(theirs.w))
        worst = max(worst, (np.abs(twin.w - theirs.w) / scale).max())
    return worst


@pytest.mark.parametrize("name", SETTINGS)
def test_is_the_optimizer_of_that_name(name):
    """Over 100 steps, with gradients for which ε does not matter and a rate that falls."""
    rng = np.random.default_rng(1)
    signs = np.where(rng.random((STEPS, 500)) < rng.random(500), 1, -1)
    gradients = (signs * 10 ** rng.uniform(-1, 0, 500) * rng.uniform(0.5, 1.5, signs.shape)).astype(np.float32)
    scales = np.linspace(1, 0.1, STEPS)
    worst = compared(SETTINGS[name], gradients, scales)
    print(f"{name}: {worst:.1e}")
    assert 0 < worst < 1e-5


def test_defaults_are_pytorchs():
    assert SGD() == SGD(1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False)
    assert Adagrad() == Adagrad(1e-2, lr_decay=0, eps=1e-10)
    assert RMSprop() == RMSprop(1e-2, alpha=0.99, eps=1e-8, momentum=0)
    assert Adam() == Adam(1e-3, betas=(0.9, 0.999), eps=1e-8)
    assert AdamW() == AdamW(1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)


def excess(optimizer, size):
    """The largest share by which the sum of a weight's first steps exceeds PyTorch's, with gradients ±`size`."""
    signs = np.where(np.random.default_rng(2).random((STEPS, 200)) < 0.7, 1, -1)
    twin, theirs = Twin(np.zeros(200, np.float32)), torch_optim.State(np.zeros(200))
    worst = 0.0
    for number, sign in enumerate(signs, 1):
        before = twin.w.astype(np.float64), theirs.w.copy()
        twin.w, theirs.w = np.zeros(200, np.float32), np.zeros(200)
        twin.step(optimizer, number, (sign * size).astype(np.float32))
        torch_optim.step(theirs, optimizer, number, sign * size, optimizer.lr)
        moved = np.abs(theirs.w) > 0.1 * np.abs(theirs.w).max()
        worst = max(worst, (twin.w[moved] / theirs.w[moved] - 1).max())
        twin.w, theirs.w = (twin.w + before[0]).astype(np.float32), theirs.w + before[1]
    return worst


@pytest.mark.parametrize(
    "optimizer, least", [(Adam(), 1.0), (RMSprop(), 0.1), (Adagrad(), 1.0)], ids=["adam", "rmsprop", "adagrad"]
)
def test_the_effect_of_epsilon_inside_the_root(optimizer, least):
    """An update is larger than PyTorch's, by ε over the root of v at most, and never by more than √2 − 1."""
    for exponent in range(-8, 1):
        size = 10.0**exponent
        found, bound = excess(optimizer, size), min(optimizer.eps / (least * size), 2**0.5 - 1)
        print(f"{type(optimizer).__name__}, |g| = 1e{exponent}: {found:.1e}")
        assert 0.3 * bound - 1e-6 < found < bound + 1e-5


@pytest.mark.parametrize("config", ["tiny", "tiny_bus"])
@pytest.mark.parametrize("name", ["sgd", "nesterov, weight decay", "rmsprop, momentum", "adamw, strong"])
def test_a_program_makes_the_passes(name, config):
    """Every weight and moment after a step is bit for bit what the passes make of its gradient."""
    rng = np.random.default_rng(8)
    samples, labels = rng.normal(size=(8, 20)).astype(np.float32), np.eye(3, dtype=np.float32)[rng.integers(0, 3, 8)]
    starts = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((12, 20), (3, 12))]
    moments = [np.abs(rng.normal(0, 0.1, (2, w.size))).astype(np.float32) for w in starts]

    def stepped(optimizer, number, moments):
        """Weights and moments of each layer after this step."""
        t = Training(CAMBRICONQ[config], 20, [Dense(12), Relu(), Dense(3)], 8, 8, 8, optimizer, 1 << 16)
        machine = Machine(t.config, np.zeros(1 << 16, np.uint8), function)
        floats = machine.memory.view(np.float32)
        for at, values in t.initial(samples, labels, starts):
            machine.memory[at : at + len(values)] = np.frombuffer(values, np.uint8)
        places = [[slice(at // 4, at // 4 + w.size) for at in each] for each, w in zip(t.weights, starts, strict=True)]
        for (_, *behind), values in zip(places, moments, strict=True):
            for part, value in zip(behind, values, strict=True):
                floats[part] = value
        for program in (t.setup(), t.step(number, 0)):
            binary = program.binary()
            machine.memory[t.program_at : t.program_at + len(binary)] = np.frombuffer(binary, np.uint8)
            machine.run(t.program_at, isa.decode, isa.INSTRUCTION_BYTES)
        return [[floats[at].copy() for at in place] for place in places]

    # The first momentum is the gradient.
    gradients = [m for _, m, _ in stepped(SGD(0.5, momentum=0.9), 1, [np.zeros_like(values) for values in moments])]
    assert all(np.count_nonzero(g) > g.size / 3 for g in gradients)
    found = stepped(SETTINGS[name], 3, moments)
    for w, g, (m, v), values in zip(starts, gradients, moments, found, strict=True):
        twin = Twin(w.ravel(), m, v)
        twin.step(SETTINGS[name], 3, g)
        for expected, value in zip((twin.w, twin.m, twin.v), values, strict=True):
            assert expected.tobytes() == value.tobytes()


def wrong(value: Any) -> Any:
    return value


RATES = [-1.0, 0.0, float("nan"), float("inf"), wrong("1"), wrong(None), wrong(True), 1e39]


@pytest.mark.parametrize(
    "make, message",
    [
        *((lambda x=x: SGD(x), f"SGD: lr must be a finite number above 0, not {x!r}") for x in RATES),
        (lambda: SGD(1, momentum=1.0), "SGD: momentum must be a finite number of at least 0 and below 1, not 1.0"),
        (lambda: SGD(1, nesterov=True), "SGD: nesterov takes a momentum, and no dampening"),
        (lambda: SGD(1, momentum=0.9, dampening=0.1, nesterov=True), "SGD: nesterov takes a momentum, and no dampening"),
        (lambda: SGD(1, weight_decay=-1), "SGD: weight_decay must be a finite number of at least 0, not -1"),
        (lambda: SGD(0.5, weight_decay=2).passes(1), "SGD: weight_decay of 2 with a rate of 0.5 leaves nothing of the weights"),
        (lambda: AdamW(0.5, weight_decay=4).passes(1), "AdamW: weight_decay of 4 with a rate of 0.5 leaves nothing of the weights"),
        (lambda: Adagrad(eps=-1e-8), "Adagrad: eps must be a finite number of at least 0, not -1e-08"),
        (lambda: RMSprop(alpha=1), "RMSprop: alpha must be a finite number of at least 0 and below 1, not 1"),
        (lambda: Adam(betas=(0.9, 1.0)), "Adam: betas[1] must be a finite number of at least 0 and below 1, not 1.0"),
        (lambda: Adam(betas=wrong(0.9)), "Adam: betas must be two numbers, not 0.9"),
        (lambda: SGD(1).passes(0), "the number of a step must be a whole number, at least 1, not 0"),
        (lambda: SGD(1).passes(wrong(1.5)), "the number of a step must be a whole number, at least 1, not 1.5"),
        (lambda: SGD(1).passes(1, np.nan), "scale must be a finite number of at least 0, not nan"),
        (lambda: SGD(1e38).passes(1, 1e3), "lr times scale must be a finite number of at least 0, not 1e+41"),
    ],
)
def test_parameters_are_looked_at_where_they_enter(make, message):
    with pytest.raises(CompileError, match=f"^{re.escape(message)}$"):
        make()


def test_what_the_hardware_cannot_have_is_no_parameter():
    for make in (lambda: Adam(weight_decay=0.1), lambda: Adam(amsgrad=True), lambda: RMSprop(centered=True)):  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            make()
