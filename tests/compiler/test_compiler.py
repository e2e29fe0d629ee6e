import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from nibblecore.hdl.cambriconq.program import isa
from nibblecore.hdl.cambriconq.program.isa import Opcode, Unary
from nibblecore.hdl.config import CAMBRICONQ, CambriconqConfig, DramConfig
from nibblecore.sim.compiler import products
from nibblecore.sim.compiler.compiler import SGD, Adam, AvgPool, CompileError, Conv2d, Dense, Layer, MaxPool, Relu, Training, _Code
from nibblecore.sim.compiler.network import pair
from nibblecore.sim.compiler.program import Program, View
from nibblecore.sim.compiler.reference import Reference, loss
from nibblecore.sim.golden.cambriconq.control.scoreboard import Range, Space, ranges
from nibblecore.sim.golden.cambriconq.machine import Machine
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from nibblecore.sim.golden.cambriconq.program.instruction_checker import check
from nibblecore.sim.golden.cambriconq.update.ndp_engine import refusal

TINY = CAMBRICONQ["tiny"]
# So small that every product of the test comes in parts.
CRAMPED = CambriconqConfig(name="cramped", rows=4, cols=8, nbin_bytes=256, sb_bytes=128, nbout_bytes=1 << 14)
ROOMY = replace(CRAMPED, name="roomy", nbin_bytes=1 << 14, sb_bytes=1 << 14, nbout_bytes=1 << 16)
# So little to compute in that nearly every result goes to memory, and what is computed comes in parts.
SPILLED = replace(ROOMY, name="spilled", nbout_bytes=1 << 13)
# Not even a whole image fits.
TIGHT = replace(ROOMY, name="tight", nbout_bytes=1 << 11)
LAYERS: list[Layer] = [Dense(12), Relu(), Dense(9), Relu(), Dense(4)]
SIZE = 1 << 19


def function(number, x):
    """Stands in for the SFU: correctly rounded."""
    wide = x.astype(np.float64)
    return {
        Unary.COPY: lambda: wide,
        Unary.RELU: lambda: np.maximum(wide, 0),
        Unary.EXP: lambda: np.exp(wide),
        Unary.LOG: lambda: np.log(wide),
        Unary.RECIPROCAL: lambda: 1 / wide,
        Unary.RSQRT: lambda: 1 / np.sqrt(wide),
    }[number]().astype(np.float32)


class Session:
    """A machine with data and weights in memory."""

    def __init__(self, config, bits, optimizer, seed=0, inputs=20, layers=LAYERS, batch=6, size=SIZE):
        self.training = t = Training(config, inputs, layers, batch, 30, bits, optimizer, size)
        self.machine = Machine(config, np.zeros(size, np.uint8), function)
        self.floats = self.machine.memory.view(np.float32)
        rng = np.random.default_rng(seed)
        self.machine.nbout[:] = np.where(np.arange(self.machine.nbout.size) % 3, np.nan, 1e4)  # nothing is there by chance
        self.x, self.labels = rng.random((30, *np.atleast_1d(inputs))).astype(np.float32), rng.integers(0, 4, 30)
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

    def learned(self):
        return [self.get(at, shape).copy() for (at, _, _), shape in zip(self.training.weights, self.training.shapes, strict=True)]

    def run(self, program):
        binary = program.binary()
        assert len(binary) <= self.training.program_room
        at = self.training.program_at
        self.machine.memory[at : at + len(binary)] = np.frombuffer(binary, np.uint8)
        return self.machine.run(at, isa.decode, isa.INSTRUCTION_BYTES)


@pytest.fixture
def eager(monkeypatch):
    """Operands are quantized beforehand however little that saves."""
    monkeypatch.setattr(products, "_WORTHWHILE", 0)


def gradients(graph, weights, x, labels):
    """Mean loss, share of correct answers and gradients of what is learned, in double precision."""
    reference = Reference(graph, weights)
    cost, right, error = loss(reference.forward(x, learning=True), labels)
    return cost, right, reference.backward(error)[0]


# Some of its rows of windows have zeros alone.
WIDELY = Conv2d(3, 2, stride=3, padding=4)
IMAGES: dict[str, tuple[tuple[int, int, int], list[Layer]]] = {
    "pooled before ReLU": ((9, 8, 2), [Conv2d(4, 3), MaxPool(2), Relu(), Conv2d(6, 2), Relu(), Dense(4)]),
    "odd channels": ((7, 9, 3), [Conv2d(5, 2), Relu(), AvgPool(2), Conv2d(3, 2, stride=2), Relu(), Dense(7), Relu(), Dense(4)]),
    "pooled inputs": ((8, 8, 1), [AvgPool(2), Conv2d(8, 2), Relu(), MaxPool(2), Dense(4)]),
    "many windows": ((8, 8, 1), [Conv2d(2, 2), Relu(), Conv2d(4, 3), AvgPool(2), Dense(4)]),
    "padded": (
        (7, 6, 2),
        [Conv2d(4, 3, padding=1), Relu(), Conv2d(5, 3, stride=2, padding=1), MaxPool(2), Relu(), Conv2d(3, 1, padding=1), Dense(4)],
    ),
    "padded widely": ((3, 5, 3), [Conv2d(4, 2, padding=3), Relu(), WIDELY, Relu(), Conv2d(4, 4, padding=1), Dense(4)]),
    "overlapping": ((9, 9, 1), [Conv2d(4, 3, stride=2), Conv2d(6, 3), Relu(), Conv2d(4, 2)]),
    "pooled last": ((6, 6, 2), [Conv2d(4, 3), MaxPool(4)]),
}


@pytest.mark.parametrize(
    "config, network",
    [(TINY, name) for name in ("dense", *IMAGES)]
    + [(SPILLED, name) for name in IMAGES]
    + [(CRAMPED, name) for name in ("dense", "overlapping")]
    + [(replace(ROOMY, name="narrow", nbout_bytes=1 << 10), "dense")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_step_of_16_bits_is_gradient_descent(config, network):
    """Loss, accuracy and every weight's change agree with double precision as far as 16-bit operands allow."""
    inputs, layers = IMAGES.get(network, (20, LAYERS))
    session = Session(config, 16, SGD(0.25), inputs=inputs, layers=layers)
    t = session.training
    for step, first in enumerate((0, 6, 12), 1):
        before = [w.copy() for w in session.weights]
        loss, right, wanted = gradients(t.graph, before, session.x[first : first + 6], session.labels[first : first + 6])
        session.run(t.step(step, first))
        assert session.get(t.results, 2) == pytest.approx([loss, right], rel=2e-4)
        session.weights = session.learned()
        for old, new, gradient in zip(before, session.weights, wanted, strict=True):
            assert np.abs((old - new) / 0.25 - gradient).max() < 1e-3 * np.abs(gradient).max() + 1e-6
    loss, right, _ = gradients(t.graph, session.weights, session.x[3:28], session.labels[3:28])
    session.run(t.test(3, 25))
    assert session.get(t.results, 2) == pytest.approx([loss, right], rel=2e-4)


TAPS: dict[str, tuple[tuple[int, int, int], list[Layer]]] = {
    "one pixel": ((1, 1, 3), [Conv2d(5, 1), Relu(), Conv2d(6, 1), Relu(), Conv2d(4, 1)]),
    "kernel as large as the image": ((4, 3, 2), [Conv2d(3, 1), Relu(), Conv2d(5, 3), Relu(), Dense(4)]),
    "padded to the kernel's reach": ((5, 4, 2), [Conv2d(9, 2), Relu(), Conv2d(7, 3, padding=2), AvgPool(2), Dense(4)]),
    "rows cut": ((3, 3, 1), [Conv2d(1, 1), Relu(), Conv2d(70, 2), Relu(), Dense(4)]),
    "many channels": (
        (4, 4, 2),
        [Conv2d(17, 3, padding=1), Relu(), Conv2d(33, 3, padding=1), Relu(), Conv2d(9, 2, padding=1), Dense(4)],
    ),
}
# NBin holds few rows of the error, SB not all pixels of the kernel.
SMALL = replace(ROOMY, name="small", nbin_bytes=1 << 11, sb_bytes=1 << 11)


# SB holds only a part of a row of weights.
SHORT = replace(ROOMY, name="short", sb_bytes=1 << 7)


@pytest.mark.parametrize(
    "config, network",
    [(config, name) for config in (TINY, SMALL, SPILLED) for name in (*TAPS, *IMAGES) if name != "pooled last"]
    + [(SHORT, "rows cut")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_the_gradient_by_taps_is_that_of_the_windows(config, network, monkeypatch):
    """Agrees with double precision as far as 16-bit operands allow, wherever it is possible."""
    inputs, layers = (TAPS | IMAGES)[network]
    used = []
    by_taps = _Code._gradient_by_taps

    def seen(code: _Code, *units: Any) -> None:
        used.append(units)
        by_taps(code, *units)

    monkeypatch.setattr(_Code, "_taps_pay", lambda code, layer, width, values: True)
    monkeypatch.setattr(_Code, "_gradient_by_taps", seen)
    session = Session(config, 16, SGD(0.25), inputs=inputs, layers=layers)
    t = session.training
    before = [w.copy() for w in session.weights]
    loss, right, wanted = gradients(t.graph, before, session.x[:6], session.labels[:6])
    session.run(session.training.step(1, 0))
    assert session.get(session.training.results, 2) == pytest.approx([loss, right], rel=2e-4)
    for old, new, gradient in zip(before, session.learned(), wanted, strict=True):
        assert np.abs((old - new) / 0.25 - gradient).max() < 1e-3 * np.abs(gradient).max() + 1e-6
    possible = any(
        isinstance(layer, Conv2d) and layer.stride == 1 and layer.kernel != 1 and pair(layer.padding) < pair(layer.kernel)
        for layer in layers[1:]
    )
    assert bool(used) == possible


@pytest.mark.parametrize("network", ["dense", *IMAGES])
def test_operands_quantized_beforehand_are_those_of_gradient_descent(network, eager):
    """So is what is turned on its way, from memory through NBout."""
    inputs, layers = IMAGES.get(network, (20, LAYERS))
    session = Session(TINY, 16, SGD(0.25), inputs=inputs, layers=layers)
    t = session.training
    before = [w.copy() for w in session.weights]
    loss, right, wanted = gradients(t.graph, before, session.x[:6], session.labels[:6])
    session.run(session.training.step(1, 0))
    assert session.get(session.training.results, 2) == pytest.approx([loss, right], rel=2e-4)
    for old, new, gradient in zip(before, session.learned(), wanted, strict=True):
        assert np.abs((old - new) / 0.25 - gradient).max() < 1e-3 * np.abs(gradient).max() + 1e-6
    assert network == "pooled last" or session.machine.executed["VLOAD"]


@pytest.mark.parametrize(
    "network, config",
    [
        ("dense", CRAMPED),
        ("dense", replace(ROOMY, name="narrow", nbout_bytes=1 << 10)),
        *((name, SPILLED) for name in IMAGES),
        *((name, TIGHT) for name in IMAGES),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_cutting_changes_no_result(network, config, eager):
    """What does not fit is computed in parts, or goes to memory in between; all machines have vectors of one length, so the same numbers."""
    inputs, layers = IMAGES.get(network, (20, LAYERS))
    results, counts = [], []
    for each in (ROOMY, config):
        session = Session(each, 8, SGD(0.25), inputs=inputs, layers=layers)
        session.run(session.training.step(1, 0))
        session.run(session.training.step(2, 7))
        results.append(session.learned())
        counts.append(session.machine.executed)
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
    assert counts[1]["MM"] + counts[1]["SSTORE"] > counts[0]["MM"] + counts[0]["SSTORE"]


def places(session):
    """Byte ranges of operands that are kept quantized."""
    return [range(r.at, r.at + r.size) for r in session.training.regions if r.name.endswith("quantized")]


@pytest.mark.parametrize(
    "config, network, bits, stores",
    [
        (TIGHT, "padded widely", 8, "VSTORE"),
        (CRAMPED, "overlapping", 8, "QSTORE"),
        (CRAMPED, "padded", 16, "VSTORE"),
        (CRAMPED, "dense", 16, "VSTORE"),
        (SPILLED, "padded", 8, "QMOVE"),
    ],
    ids=lambda value: value.name if isinstance(value, CambriconqConfig) else str(value),
)
def test_what_is_fetched_often_is_quantized_once(config, network, bits, stores, eager, monkeypatch):
    """With the same numbers, where memory has a place for it; where it has none all is as it was."""
    inputs, layers = IMAGES.get(network, (20, LAYERS))
    results, counts, words = [], [], []
    for there in (True, False):
        if not there:
            monkeypatch.setattr(Training, "quantized_place", lambda training, name, size: None)
        session = Session(config, bits, SGD(0.25), inputs=inputs, layers=layers)
        session.machine.memory[session.training.program_at :] = 0xA5
        session.run(session.training.step(1, 0))
        session.run(session.training.step(2, 7))
        results.append((session.learned(), session.get(session.training.results, 2).copy()))
        counts.append(session.machine.executed)
        quantized = [
            i.fields for i in session.training.step(1, 0).instructions if i.opcode in (Opcode.QLOAD, Opcode.QMOVE, Opcode.QSTORE)
        ]
        words.append(sum(f["rows"] * f["cols"] for f in quantized))
        assert bool(places(session)) == there
    kept, again = counts
    assert kept[stores] and kept["VLOAD"] and not again["VLOAD"] + again["VSTORE"] + again["QSTORE"]
    assert words[0] < words[1]
    assert np.array_equal(results[0][1], results[1][1])
    assert all(np.array_equal(a, b) for a, b in zip(results[0][0], results[1][0], strict=True))


def test_places_of_quantized_operands_never_take_the_program_s(eager):
    """In memory that is just large enough without them, or with some, the program has its room."""
    inputs, layers = IMAGES["padded widely"]

    def training_in(size: int) -> Training:
        return Training(TIGHT, inputs, layers, 6, 30, 8, SGD(1), size)

    roomy = training_in(SIZE)
    most = roomy.program_at + len(roomy.step(1, 0).binary())
    found = set()
    kept = sum(region.size for region in roomy.regions if region.name.endswith("quantized"))
    for size in range(most - kept - 1024, most + 1024, (kept + 2048) // 16):
        training = training_in(size)
        program = training.step(1, 0).binary()
        quantized = [region for region in training.regions if region.name.endswith("quantized")]
        found.add(len(quantized))
        if quantized:
            assert len(program) <= training.program_room
        assert all(region.at + region.size <= training.program_at for region in training.regions if region.name != "program")
    assert len(found) > 2 and 0 in found


def test_copies_of_whole_beats_go_straight_to_memory():
    """Others are put side by side word by word, in NBout."""
    counts = []
    for channels in (TINY.beat_words, TINY.beat_words + 1):
        layers: list[Layer] = [Conv2d(4, 3, padding=1), Relu(), Dense(4)]
        session = Session(replace(TINY, nbout_bytes=1 << 12), 8, SGD(0.25), inputs=(7, 6, channels), layers=layers)
        program = session.training.step(1, 0)
        windows = next(region for region in session.training.regions if region.name.startswith("windows"))
        to_windows = [
            each.fields["cols"]
            for each in program.instructions
            if each.opcode == Opcode.SSTORE and windows.at <= each.fields["dest"] < windows.at + windows.size
        ]
        copied = sum(
            each.fields["rows"] * each.fields["cols"]
            for each in program.instructions
            if each.opcode == Opcode.VFUN and each.fields["function"] == Unary.COPY and each.fields["a_col"]
        )
        counts.append((len(to_windows), copied))
        if channels == TINY.beat_words:
            assert set(to_windows) == {3 * channels}
    assert not counts[0][1] and counts[1][1] >= 6 * 7 * 6 * 9 * (TINY.beat_words + 1)
    assert counts[0][0] > counts[1][0]


@pytest.mark.parametrize("config", [TINY, CRAMPED, SPILLED], ids=lambda config: config.name)
@pytest.mark.parametrize("network", ["dense", *IMAGES])
def test_a_part_lies_beside_the_one_before(config, network, eager):
    """So one is loaded while another is multiplied. Parts of operands that are divided are small enough for that."""
    inputs, layers = IMAGES.get(network, (20, LAYERS))
    program = Session(config, 8, SGD(0.25), inputs=inputs, layers=layers).training.step(1, 0)
    sizes = {Space.NBIN: config.nbin_lines, Space.SB: config.sb_lines}
    before: dict[Space, Range] = {}
    for instruction in program.instructions:
        written = [r for r in ranges(instruction.opcode.name, instruction.fields, config) if r.write and r.space in sizes]
        for place in written:
            last = before.get(place.space)
            if last and place.high - place.low + last.high - last.low <= sizes[place.space] // 2:
                assert place.high <= last.low or last.high <= place.low
            before[place.space] = place
    moved = [r for each in program.instructions if each.opcode == Opcode.SSTORE for r in ranges("SSTORE", each.fields, config)[:1]]
    apart = [not (a.low < b.high and b.low < a.high) for a, b in pairwise(moved)]
    assert not moved or len(moved) == 1 or any(apart)


def test_programs_never_leave_their_places():
    """Only weights, optimizer state and results change in memory."""
    session = Session(TINY, 8, SGD(0.1))
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


@pytest.mark.parametrize(
    "bits, offsets, tried",
    [(4, (), (0, -1)), (8, (), (0,)), (16, (), (0,)), (4, (0,), (0,)), (4, (0, -1, -2, 1), (0, -1, -2, 1)), (12, [3, -8], (3, -8))],
)
def test_every_candidate_has_the_width(bits, offsets, tried):
    """And only its offset is its own; a step or a test sets how many there are by itself."""
    t = Training(TINY, 20, LAYERS, 6, 30, bits, SGD(1), SIZE, offsets)
    machine = Machine(TINY, np.zeros(SIZE, np.uint8), function)
    for program in (t.setup(), t.step(1, 0), t.test(0, 6)):
        machine.core_squ.count = machine.memory_squ.count = 4
        for each in program.instructions:
            if each.opcode == Opcode.CROSET:
                machine._croset(**each.fields)
        for squ in (machine.core_squ, machine.memory_squ):
            p = squ.parameters()
            assert [(c.bits, c.offset, c.limit) for c in p.candidates] == [(bits, offset, 2 ** (bits - 1) - 1) for offset in tried]
            assert not p.illegal and p.metric == 0 and p.exponent is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"memory_bytes": 4096}, r"memory is too small: \d+ needed, 4096 there"),
        (
            {"config": replace(TINY, nbout_bytes=64)},
            r"NBout is too small: rows of the loss need \d+ words to compute in, \d+ are free",
        ),
        (
            {"config": replace(ROOMY, nbout_bytes=1 << 9), "inputs": (9, 24, 2), "layers": IMAGES["pooled before ReLU"][1]},
            r"NBout is too small: a row of windows need \d+ words",
        ),
        ({"config": replace(ROOMY, sb_bytes=64, cols=32, rows=64), "bits": 16}, "SB 4"),
        ({"layers": [Conv2d(4, 3), Dense(4)]}, r"layer 0: windows of 3×3 pixels, 1 apart, in images of 1×1"),
        ({"layers": [Conv2d(4, 4, padding=1), Dense(4)]}, r"layer 0: windows of 4×4 pixels, 1 apart, in images of 1×1 padded by 1"),
        ({"layers": [Relu(), Dense(4)]}, "the first layer must not be Relu"),
        ({"layers": [Dense(4), Relu()]}, "the last layer must not be Relu"),
        (
            {"config": replace(TINY, dram=DramConfig(rows=2)), "layers": [Dense(60), Dense(4)]},
            r"weights up to 0x[0-9a-f]+ do not fit the 0x4000 bytes of banks",
        ),
        ({"bits": 6}, "bits must be 4, 8, 12 or 16, not 6"),
        ({"bits": 0}, "not 0"),
        ({"offsets": (0, -9)}, r"one to four candidates with offsets -8..7, not \[0, -9\]"),
        ({"offsets": range(5)}, r"not \[0, 1, 2, 3, 4\]"),
        ({"bits": "8"}, "^bits must be a whole number, at least 0, not '8'"),
        ({"batch": 0}, "^batch must be a whole number, at least 1, not 0"),
        ({"batch": 2.5}, r"^batch must be a whole number, at least 1, not 2\.5"),
        ({"samples": -1}, "^samples must be a whole number, at least 1, not -1"),
        ({"memory_bytes": float(SIZE)}, "^memory_bytes must be a whole number"),
        ({"inputs": 0}, "^inputs must be a whole number, at least 1, not 0"),
        ({"inputs": (8, 0, 1)}, "^inputs: width must be a whole number, at least 1, not 0"),
        ({"inputs": (8, 8)}, r"^inputs must be a number, or height, width and channels of an image, not \(8, 8\)"),
        ({"layers": []}, "^layers must be at least one"),
        ({"layers": [Dense(4), Relu]}, "^layer 1 must be a Dense, .* or Concat, not <class"),
        ({"optimizer": "sgd"}, "^optimizer must be an Optimizer, not 'sgd'"),
    ],
)
def test_says_what_does_not_fit(change, message):
    given = {"config": TINY, "inputs": 20, "layers": LAYERS, "batch": 6, "samples": 30, "bits": 8, "optimizer": SGD(1)}
    with pytest.raises(CompileError, match=message):
        Training(**{**given, "memory_bytes": SIZE} | change).step(1, 0)


@pytest.mark.parametrize(
    "outputs, right",
    [
        ([[0, 0, 0, 0]] * 6, 0),
        ([[1, 1, 0, 0], [2, 1, 0, 0], [0, 3, 3, 3], [-1, -2, -3, -4], [0, 0, 0, 2**-149], [1, 1 + 2**-23, 1, 1]], 2 / 6),
        ([[np.nan, 0, 0, 0], [1, np.nan, 0, 0], [np.nan] * 4, [np.inf, 0, 0, 0], [np.inf, np.inf, 0, 0], [3, 0, 0, 0]], 1 / 6),
    ],
    ids=["dead", "ties", "broken"],
)
@pytest.mark.parametrize("learning", [True, False])
def test_a_tie_is_wrong(outputs, right, learning, monkeypatch):
    """Class 0 is the answer of every sample; what the last layer gives is put in the place of its product."""
    session = Session(TINY, 8, SGD(0.25), layers=[Dense(4)])
    t = session.training
    session.put(t.labels, np.eye(4, dtype=np.float32)[np.zeros(30, int)])
    session.put(t.data, np.array(outputs, np.float32))
    y = View.matrix(t.data, 6, 4, 4, True)
    monkeypatch.setattr(
        _Code, "forward", lambda self, first, count, learning: self.program.copy(t.units[0].output.matrix(0, count), y)
    )
    with np.errstate(all="ignore"):
        session.run(t.step(1, 0) if learning else t.test(0, 6))
    assert session.get(t.results, 2)[1] == np.float32(right)


def test_a_dead_network_is_right_nowhere():
    session = Session(TINY, 8, SGD(0.25))
    t = session.training
    session.put(t.data, np.zeros((30, 20), np.float32))
    for program in (t.step(1, 0), t.step(2, 6), t.test(0, 30)):
        session.run(program)
        assert session.get(t.results, 2) == pytest.approx([np.log(4), 0], rel=1e-5)


def wrong(value: Any) -> Any:
    """Of a type that no annotation allows."""
    return value


RATES = (0, -1.0, np.nan, np.inf, 1e39, 1e-60, "1", None, True)
BETAS = (1, 1.5, -0.1, np.nan)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Dense(0), "Dense: outputs must be a whole number, at least 1, not 0"),
        (lambda: Dense(-3), "Dense: outputs must be a whole number, at least 1, not -3"),
        (lambda: Dense(wrong(4.0)), "Dense: outputs must be a whole number, at least 1, not 4.0"),
        (lambda: Dense(wrong(True)), "Dense: outputs must be a whole number, at least 1, not True"),
        (lambda: Conv2d(4, 0), "Conv2d: kernel must be a whole number, at least 1, not 0"),
        (lambda: Conv2d(4, 1, stride=0), "Conv2d: stride must be a whole number, at least 1, not 0"),
        (lambda: Conv2d(4, 1, padding=-1), "Conv2d: padding must be a whole number, at least 0, not -1"),
        (lambda: MaxPool(wrong(None)), "MaxPool: size must be a whole number, at least 1, not None"),
        (lambda: AvgPool(wrong("2")), "AvgPool: size must be a whole number, at least 1, not '2'"),
    ],
)
def test_sizes_are_looked_at_where_they_enter(make, message):
    with pytest.raises(CompileError, match=f"^{re.escape(message)}$"):
        make()


def test_numbers_of_numpy_compile_to_the_same_program():
    long: Any = np.int64
    layers: list[Layer] = [Conv2d(4, 2, stride=2, padding=1), Relu(), MaxPool(2), Dense(4)]
    alike: list[Layer] = [Conv2d(*map(long, (4, 2, 2, 1))), Relu(), MaxPool(long(2)), Dense(long(4))]
    rate: Any = np.float32(0.25)
    plain = Training(TINY, (8, 8, 1), layers, 6, 30, 8, SGD(0.25), SIZE)
    numpy = Training(TINY, (long(8), 8, long(1)), alike, long(6), long(30), long(8), SGD(rate), long(SIZE))
    assert plain.layers == numpy.layers and repr(plain.layers) == repr(numpy.layers) and plain.regions == numpy.regions
    assert plain.step(1, 6).binary() == numpy.step(long(1), long(6), np.float64(1)).binary()


def test_what_memory_holds_at_first():
    """Samples, labels and weights where they belong, moments of 0, and nothing else."""
    t, rng = Training(TINY, (4, 5, 1), LAYERS, 6, 30, 8, SGD(1), SIZE), np.random.default_rng(0)
    samples, labels = rng.random((30, 4, 5, 1)), np.eye(4, dtype=int)[rng.integers(0, 4, 30)]
    weights = [rng.normal(size=shape) for shape in t.shapes]
    memory = np.full(SIZE // 4, np.nan, np.float32)
    for at, values in t.initial(samples, labels, weights):
        memory[at // 4 : at // 4 + len(values) // 4] = np.frombuffer(values, np.float32)
    found = {region.name: memory[region.at // 4 :][: region.size // 4].reshape(region.shape) for region in t.regions}
    assert np.array_equal(found["inputs"], samples.astype(np.float32)) and np.array_equal(found["labels"], labels)
    for number, w in enumerate(weights):
        assert np.array_equal(found[f"w of layer {number}"], w.astype(np.float32))
        assert not found[f"m of layer {number}"].any() and not found[f"v of layer {number}"].any()
    assert np.count_nonzero(~np.isnan(memory)) == 30 * 24 + 3 * sum(n * k for n, k in t.shapes)


@pytest.mark.parametrize(
    "name, place, value, message",
    [
        ("samples", (3, 7), np.nan, r"samples: element [3, 7] is nan, which is no finite FP32 number (1 of 600 are not)"),
        ("samples", (29, 19), -np.inf, r"samples: element [29, 19] is -inf, which"),
        ("samples", (0, 0), 1e39, r"samples: element [0, 0] is 1e+39, which"),
        ("labels", (5, 1), np.nan, r"labels: element [5, 1] is nan, which is no finite FP32 number (1 of 120 are not)"),
        ("labels", (5,), 0, r"labels: that of sample 5 is not one-hot, 1 for its class and 0 elsewhere"),
        ("labels", (6,), 1, r"labels: that of sample 6 is not one-hot"),
        ("labels", (7, 0), 0.5, r"labels: that of sample 7 is not one-hot"),
        ("weights", (2, 3), np.inf, r"weights 1: element [2, 3] is inf, which is no finite FP32 number (1 of 108 are not)"),
    ],
)
def test_numbers_that_are_not_finite_are_refused_by_name(name, place, value, message):
    t = Training(TINY, 20, LAYERS, 6, 30, 8, SGD(1), SIZE)
    samples, labels, weights = np.ones((30, 20)), np.eye(4)[np.arange(30) % 4], [np.ones(shape) for shape in t.shapes]
    t.initial(samples, labels, weights)
    {"samples": samples, "labels": labels, "weights": weights[1]}[name][place] = value
    with pytest.raises(CompileError, match=f"^{re.escape(message)}"):
        t.initial(samples, labels, weights)


def test_arrays_of_other_shapes_are_refused_by_name():
    t = Training(TINY, 20, LAYERS, 6, 30, 8, SGD(1), SIZE)
    samples, labels, weights = np.ones((30, 20)), np.eye(4)[np.arange(30) % 4], [np.ones(shape) for shape in t.shapes]
    for given, message in (
        ((samples[:29], labels, weights), "samples must be 30×20 numbers, not 29×20"),
        ((samples, labels.argmax(axis=1), weights), "labels must be 30×4 numbers, not 30"),
        ((samples, labels, weights[:2]), "weights must be 3 matrices, one for each layer that has any, not 2"),
        ((samples, labels, [weights[0].T, *weights[1:]]), "weights 0 must be 12×20 numbers, not 20×12"),
        ((np.full((30, 20), "a"), labels, weights), "samples are no array of 30×20 numbers"),
    ):
        with pytest.raises(CompileError, match=f"^{re.escape(message)}$"):
            t.initial(*given)


def test_samples_that_memory_does_not_hold_are_refused():
    t = Training(TINY, 20, LAYERS, 6, 30, 8, SGD(1), SIZE)
    for program, numbers in (
        (lambda: t.step(1, 25), "6 samples from sample 25 on: memory holds samples 0 to 29"),
        (lambda: t.step(1, -1), "6 samples from sample -1 on"),
        (lambda: t.test(10, 21), "21 samples from sample 10 on"),
        (lambda: t.test(30, 1), "1 samples from sample 30 on"),
        (lambda: t.test(4, 0), "0 samples from sample 4 on"),
    ):
        with pytest.raises(ValueError, match=numbers):
            program()
    assert t.step(1, 24).instructions and t.test(0, 30).instructions and t.test(29, 1).instructions


@pytest.mark.parametrize(
    "config, inputs, layers, batch",
    [
        (TINY, 20, LAYERS, 6),
        (TINY, 900, [Dense(700), Relu(), Dense(300)], 100),
        (TINY, 70000, [Dense(20), Relu(), Dense(7)], 5),
        (TINY, 5, [Dense(40000), Relu(), Dense(2)], 2),
        (TINY, (24, 24, 3), [Conv2d(16, 5, padding=2), MaxPool(2), Relu(), Conv2d(32, 3), Relu(), AvgPool(4), Dense(10)], 16),
        (
            CAMBRICONQ["paper"],
            (32, 32, 3),
            [Conv2d(24, 3), Relu(), Conv2d(30, 3, stride=2, padding=1), Relu(), MaxPool(2), Dense(99), Dense(10)],
            32,
        ),
        (CAMBRICONQ["paper_bus"], 2000, [Dense(900), Relu(), Dense(300)], 200),
    ],
    ids=["small", "large", "wide inputs", "wide layer", "images", "paper", "paper_bus"],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_what_memory_holds_compiles_to_legal_instructions(config, inputs, layers, batch, bits):
    memory = 1 << 27
    training = Training(config, inputs, layers, batch, 2 * batch + 3, bits, Adam(0.01), memory)
    updated = 0
    for program in (training.setup(), training.step(3, batch), training.test(1, batch + 3)):
        assert program.instructions[-1].opcode == Opcode.HALT and len(program.binary()) <= training.program_room
        for instruction in program.instructions:
            fields = instruction.fields
            assert isa.decode(isa.encode(instruction)) == instruction
            assert check(instruction.opcode.name, fields, config, memory) == ErrorCode.NONE, instruction
            if instruction.opcode == Opcode.WGSTORE:
                updated += fields["rows"] * fields["cols"]
                if config.dram is not None:
                    count = fields["rows"] * fields["cols"] if fields["mem_row"] == 4 * fields["cols"] else fields["cols"]
                    assert refusal(config.dram, (fields["w"], fields["m"], fields["v"]), count) is None
    assert updated == sum(rows * cols for rows, cols in training.shapes)


def test_a_program_refuses_places_that_an_instruction_cannot_reach():
    program = Program()
    here, there, small = View.matrix(0, 4, 4, 4), View.matrix(64, 4, 4, 4, True), View.matrix(0, 2, 2, 2)
    for wrong in (
        lambda: program.combine(Opcode.VADD, here, here, there),
        lambda: program.scale(there, here, 2.0),
        lambda: program.function(Unary.RELU, here, there),
        lambda: program.reduce(Opcode.HADD, there, here),
    ):
        with pytest.raises(ValueError, match="NBout alone"):
            wrong()
    with pytest.raises(ValueError, match="within memory"):
        program.copy(there, View.matrix(256, 4, 4, 4, True))
    with pytest.raises(ValueError, match="different sizes"):
        program.copy(small, there)
    assert not program.instructions
    program.copy(here, there)
    program.copy(there, here)
    assert [each.opcode for each in program.instructions] == [Opcode.SLOAD, Opcode.SSTORE]


def test_more_rows_than_an_instruction_takes():
    config = CambriconqConfig(name="long", rows=64, cols=64, nbin_bytes=1 << 18, sb_bytes=1 << 23, nbout_bytes=1 << 21)
    training = Training(config, 8, [Dense(70000), Relu(), Dense(2)], 1, 1, 4, SGD(1), 1 << 24)
    columns = [each.cols for each in training.step(1, 0).instructions if each.opcode == Opcode.MM]
    assert sum(columns) >= 70000 and max(columns) <= 65535
