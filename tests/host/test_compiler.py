import numpy as np
import pytest
from nibblecore.hdl.cambriconq import isa
from nibblecore.hdl.cambriconq.isa import Opcode, Unary
from nibblecore.hdl.config import CAMBRICONQ, CambriconqConfig
from nibblecore.sim.golden.cambriconq.machine import Machine
from nibblecore.sim.host.compiler import CompileError, Dense, Optimizer, Relu, Training

TINY = CAMBRICONQ["tiny"]
# So small that every product of the test comes in parts.
CRAMPED = CambriconqConfig(name="cramped", rows=4, cols=8, nbin_bytes=256, sb_bytes=128, nbout_bytes=1 << 14)
LAYERS = [Dense(12), Relu(), Dense(9), Relu(), Dense(4)]
SIZE = 1 << 17


def function(number, x):
    """Stands in for the SFU: correctly rounded."""
    wide = x.astype(np.float64)
    return {Unary.RELU: lambda: np.maximum(wide, 0), Unary.EXP: lambda: np.exp(wide), Unary.LOG: lambda: np.log(wide),
            Unary.RECIPROCAL: lambda: 1 / wide}[number]().astype(np.float32)  # fmt: skip


class Session:
    """A machine with data and weights in memory."""

    def __init__(self, config, bits, optimizer, seed=0):
        self.training = t = Training(config, 20, LAYERS, 6, 30, bits, optimizer, SIZE)
        self.machine = Machine(config, np.zeros(SIZE, np.uint8), function)
        self.floats = self.machine.memory.view(np.float32)
        rng = np.random.default_rng(seed)
        self.x, self.labels = rng.random((30, 20)).astype(np.float32), rng.integers(0, 4, 30)
        self.put(t.data, self.x)
        self.put(t.labels, np.eye(4, dtype=np.float32)[self.labels])
        self.weights = [rng.normal(0, (2 / k) ** 0.5, (n, k)).astype(np.float32) for n, k in t.shapes]
        for (at, _, _), w in zip(t.weights, self.weights, strict=True):
            self.put(at, w)
        self.run(t.setup())

    def put(self, at, values):
        self.floats[at // 4 : at // 4 + values.size] = values.ravel()

    def get(self, at, shape):
        return self.floats[at // 4 : at // 4 + int(np.prod(shape))].reshape(shape)

    def run(self, program):
        binary = program.binary()
        assert len(binary) <= self.training.program_room
        at = self.training.program_at
        self.machine.memory[at : at + len(binary)] = np.frombuffer(binary, np.uint8)
        return self.machine.run(at, isa.decode, isa.INSTRUCTION_BYTES)


def gradients(weights, x, labels):
    """Mean loss, share of correct answers and gradients in double precision, by the textbook."""
    activations, passed = [x.astype(np.float64)], []
    for number, w in enumerate(weights):
        y = activations[-1] @ w.T.astype(np.float64)
        passed.append(y > 0 if number < len(weights) - 1 else np.ones_like(y, bool))
        activations.append(y * passed[-1])
    y = activations[-1] - activations[-1].max(axis=1, keepdims=True)
    p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(len(x)), labels]).mean()
    error = (p - np.eye(4)[labels]) / len(x)
    found = []
    for number in reversed(range(len(weights))):
        error = error * passed[number]
        found.insert(0, error.T @ activations[number])
        error = error @ weights[number]
    return loss, (p.argmax(axis=1) == labels).mean(), found


@pytest.mark.parametrize("config", [TINY, CRAMPED], ids=lambda config: config.name)
def test_a_step_of_16_bits_is_gradient_descent(config):
    """Loss, accuracy and every weight's change agree with double precision as far as 16-bit operands allow."""
    session = Session(config, 16, Optimizer("sgd", 0.25))
    t = session.training
    for step, first in enumerate((0, 6, 12), 1):
        before = [w.copy() for w in session.weights]
        loss, right, wanted = gradients(before, session.x[first : first + 6], session.labels[first : first + 6])
        session.run(t.step(step, first))
        assert session.get(t.results, 2) == pytest.approx([loss, right], rel=2e-4)
        session.weights = [session.get(at, shape).copy() for (at, _, _), shape in zip(t.weights, t.shapes, strict=True)]
        for old, new, gradient in zip(before, session.weights, wanted, strict=True):
            assert np.abs((old - new) / 0.25 - gradient).max() < 1e-3 * np.abs(gradient).max() + 1e-6
    loss, right, _ = gradients(session.weights, session.x[3:28], session.labels[3:28])
    session.run(t.test(3, 25))
    assert session.get(t.results, 2) == pytest.approx([loss, right], rel=2e-4)


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_a_cut_product_equals_the_whole(bits):
    """Tiling changes where a product is computed, not what: only the vector's length does, so both machines have the same."""
    roomy = CambriconqConfig(name="roomy", rows=4, cols=8, nbin_bytes=1 << 14, sb_bytes=1 << 14, nbout_bytes=1 << 14)
    results = []
    for config in (roomy, CRAMPED):
        session = Session(config, bits, Optimizer("sgd", 0.25))
        session.run(session.training.step(1, 0))
        places = zip(session.training.weights, session.training.shapes, strict=True)
        results.append([session.get(at, shape).copy() for (at, _, _), shape in places])
        counts = session.machine.executed
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
    assert counts["MM"] > 8


def test_programs_never_leave_their_places():
    """Only weights, optimizer state and results change in memory."""
    session = Session(TINY, 8, Optimizer("sgd", 0.1))
    t, before = session.training, session.machine.memory.copy()
    session.run(t.step(1, 0))
    changed = np.flatnonzero(session.machine.memory != before)
    allowed = np.zeros(SIZE, bool)
    for places, (n, k) in zip(t.weights, t.shapes, strict=True):
        for at in places:
            allowed[at : at + 4 * n * k] = True
    allowed[t.results : t.results + 8] = True
    allowed[t.program_at :] = True
    assert allowed[changed].all() and len(changed)


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rmsprop", "adam"])
def test_constants_are_the_table_of_the_paper(name):
    """Equation (1) with the constants is the update that Table IV gives, here for three steps of one weight."""
    rate, beta1, beta2 = 0.1, 0.8, 0.95
    optimizer = Optimizer(name, rate, beta1, beta2)
    w = m = v = 0.0
    expected_w = expected_m = expected_v = 0.0
    for step, g in enumerate((0.5, -0.25, 2.0), 1):
        numbers = {int(k): np.array([b], np.uint32).view(np.float32)[0] for k, b in optimizer.constants(step).items() if k != 6}
        selectors = optimizer.constants(step)[6]
        c1, c2, c3, c4, c5, epsilon = (float(numbers[i]) for i in range(6))
        m, v = c1 * m + c2 * g, c3 * v + c4 * g * g
        w -= c5 * (m if selectors & 1 else g) * ((v + epsilon) ** -0.5 if selectors & 2 else 1)
        if name == "sgd":
            expected_w -= rate * g
        elif name == "adagrad":
            expected_m += g * g
            expected_w -= rate * g * expected_m**-0.5
        elif name == "rmsprop":
            expected_m = beta2 * expected_m + (1 - beta2) * g * g
            expected_w -= rate * g * expected_m**-0.5
        else:
            expected_m, expected_v = beta1 * expected_m + (1 - beta1) * g, beta2 * expected_v + (1 - beta2) * g * g
            expected_w -= rate * expected_m / (1 - beta1**step) * (expected_v / (1 - beta2**step)) ** -0.5
        assert w == pytest.approx(expected_w, rel=1e-6)


def small(**sizes):
    return CambriconqConfig(
        **{"name": "small", "rows": 4, "cols": 8, "nbin_bytes": 1024, "sb_bytes": 1024, "nbout_bytes": 1 << 14} | sizes
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"memory_bytes": 4096}, "memory is too small"),
        ({"config": small(nbin_bytes=64), "inputs": 200}, "rows of 200 values need"),
        ({"config": small(nbout_bytes=1024)}, "NBout is too small"),
        ({"optimizer": Optimizer("lion", 1)}, "optimizer 'lion'"),
    ],
)
def test_says_what_does_not_fit(change, message):
    given = {"config": TINY, "inputs": 20, "layers": LAYERS, "batch": 6, "samples": 30, "bits": 8, "optimizer": Optimizer("sgd", 1)}
    with pytest.raises(CompileError, match=message):
        Training(**{**given, "memory_bytes": SIZE} | change).step(1, 0)


def test_every_instruction_of_a_program_is_legal():
    program = Training(TINY, 20, LAYERS, 6, 30, 8, Optimizer("adam", 0.01), SIZE).step(3, 0)
    assert program.instructions[-1].opcode == Opcode.HALT
    binary = program.binary()
    for number, instruction in enumerate(program.instructions):
        raw = binary[number * isa.INSTRUCTION_BYTES : (number + 1) * isa.INSTRUCTION_BYTES]
        assert isa.decode(raw) == instruction
