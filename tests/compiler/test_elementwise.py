"""Networks with branches, batch norms and biases, on the functional machine and in double precision."""

from dataclasses import replace

import numpy as np
import pytest
from compiler.test_compiler import CRAMPED, SPILLED, TIGHT, TINY, Session, gradients
from nibblecore.sim.compiler.compiler import (
    SGD,
    Add,
    AvgPool,
    BatchNorm,
    CompileError,
    Concat,
    Conv2d,
    Dense,
    Graph,
    MaxPool,
    Relu,
    Training,
)
from nibblecore.sim.compiler.network import INPUT, Dropout, Layer
from nibblecore.sim.compiler.reference import Reference, loss


def residual():
    """A block that keeps its images' shape, and one that does not."""
    graph = Graph((8, 7, 3))
    graph.add(Conv2d(6, 3, padding=1))
    graph.add(BatchNorm())
    start = graph.add(Relu())
    for layer in (Conv2d(6, 3, padding=1), BatchNorm(), Relu(), Conv2d(6, 3, padding=1), BatchNorm()):
        graph.add(layer)
    graph.add(Add(), graph.output, start)
    start = graph.add(Relu())
    for layer in (Conv2d(8, 3, stride=2, padding=1), BatchNorm(), Relu(), Conv2d(8, 3, padding=1), BatchNorm()):
        graph.add(layer)
    main = graph.output
    graph.add(Conv2d(8, 1, stride=2), start)
    graph.add(Add(), main, graph.add(BatchNorm()))
    graph.add(Relu())
    graph.add(AvgPool((4, 2)))
    graph.add(Dense(4, bias=True))
    return graph


def preactivated():
    """A ReLU and a sum that several read, and a sum of three."""
    graph = Graph((5, 6, 4))
    start = graph.add(Conv2d(4, 1, bias=True))
    branch = graph.add(Relu(), graph.add(BatchNorm(), start))
    one = graph.add(Conv2d(4, 3, padding=1, bias=True), branch)
    two = graph.add(Conv2d(4, 1), branch)
    both = graph.add(Add(), one, two, start)
    graph.add(Relu(), both)
    graph.add(Add(), graph.output, both)
    graph.add(BatchNorm(epsilon=0.5))
    graph.add(Dense(4))
    return graph


def branches():
    """As of GoogLeNet and SqueezeNet."""
    graph = Graph((6, 6, 2))
    graph.add(Conv2d(5, 3, bias=True))
    squeezed = graph.add(Relu())
    one = graph.add(Relu(), graph.add(Conv2d(3, 1, bias=True), squeezed))
    three = graph.add(Conv2d(5, 3, padding=1, bias=True), squeezed)
    graph.add(Concat(), one, three, squeezed)
    graph.add(Relu())
    graph.add(MaxPool(2))
    graph.add(Dense(6, bias=True))
    graph.add(BatchNorm())
    graph.add(Relu())
    graph.add(Dense(4, bias=True))
    return graph


def rectangles():
    """As of InceptionV3, kernels that are longer in one direction."""
    graph = Graph((6, 9, 3))
    graph.add(Conv2d(4, (1, 3), padding=(0, 1)))
    graph.add(Relu())
    graph.add(Conv2d(5, (3, 1), stride=(1, 2), padding=(2, 0)))
    graph.add(MaxPool((2, 1)))
    graph.add(Conv2d(3, (2, 3), padding=(1, 2)))
    graph.add(AvgPool((1, 2)))
    graph.add(Dense(4))
    return graph


def doubled():
    """Sums of a thing with itself, of the samples, and at the end."""
    graph = Graph(20)
    graph.add(Add(), INPUT, INPUT)
    graph.add(Dense(9))
    graph.add(Add(), graph.output, graph.output)
    graph.add(BatchNorm())
    start = graph.add(Relu())
    one, two = graph.add(Dense(4, bias=True), start), graph.add(Dense(4), start)
    graph.add(Add(), one, two)
    return graph


def one_pixel():
    """Of one channel."""
    graph = Graph((1, 1, 1))
    graph.add(BatchNorm())
    graph.add(Conv2d(1, 1, bias=True))
    graph.add(Concat(), graph.output, INPUT)
    graph.add(BatchNorm(momentum=1.0))
    graph.add(Dense(4, bias=True))
    return graph


def pooled():
    """Windows that overlap, leave pixels out, and reach out of the image."""
    graph = Graph((9, 8, 2))
    graph.add(Conv2d(5, 3, padding=1, bias=True))
    start = graph.add(Relu())
    one = graph.add(MaxPool(3, stride=1, padding=1), start)
    two = graph.add(AvgPool((3, 1), stride=1, padding=(1, 0)), start)
    graph.add(Add(), one, two)
    graph.add(MaxPool(3, stride=2, padding=1))
    graph.add(Conv2d(4, 1))
    graph.add(MaxPool((1, 2), stride=(2, 1)))
    graph.add(Relu())
    graph.add(AvgPool(3, stride=2, padding=1))
    graph.add(Dense(4))
    return graph


GRAPHS = {each.__name__: each for each in (residual, preactivated, branches, rectangles, doubled, one_pixel, pooled)}


def parameters(graph, rng):
    """As `torch` begins, but for scales and shifts: from their first values some gradients are 0."""
    return [
        rng.normal(0, (2 / each.shape[1]) ** 0.5, each.shape)
        if each.kind == "weight"
        else rng.normal(each.kind == "scale", 0.25, each.shape)
        for each in graph.parameters
    ]


@pytest.mark.parametrize(
    "config, name",
    [(config, name) for config in (TINY, SPILLED) for name in GRAPHS]
    + [
        (CRAMPED, "doubled"),
        (CRAMPED, "one_pixel"),
        (replace(TIGHT, name="cut", nbout_bytes=1 << 12), "pooled"),
        (replace(SPILLED, name="wide", rows=32), "preactivated"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_step_of_16_bits_is_gradient_descent(config, name):
    graph = GRAPHS[name]()
    session = Session(config, 16, SGD(0.25), inputs=graph.inputs, layers=graph, size=1 << 21)
    t, rng = session.training, np.random.default_rng(3)
    session.weights = [each.astype(np.float32) for each in parameters(graph, rng)]
    one_hot = np.eye(4)[session.labels]
    for at, values in t.initial(session.x.reshape(30, -1), one_hot, session.weights):
        session.put(at, np.frombuffer(values, np.float32))
    statistics = None
    for step, first in enumerate((0, 6), 1):
        before = session.learned()
        reference = Reference(graph, before, statistics)
        cost, right, error = loss(reference.forward(session.x[first : first + 6], learning=True), session.labels[first : first + 6])
        wanted, _ = reference.backward(error)
        statistics, largest = reference.statistics, max(np.abs(each).max() for each in wanted)
        session.run(t.step(step, first))
        assert session.get(t.results, 2) == pytest.approx([cost, right], rel=1e-3)
        for number, (old, new, gradient) in enumerate(zip(before, session.learned(), wanted, strict=True)):
            # Behind a batch norm gradients cancel: what is left of larger ones has their error.
            most = np.abs(gradient).max() + largest / 20
            assert np.abs((old - new) / 0.25 - gradient).max() < 1e-3 * most, graph.parameters[number]
    kept = t.state(lambda at, size: session.machine.memory[at : at + size].tobytes())
    for number, (name, found) in enumerate((statistics or {}).items()):
        places = list(dict.fromkeys(each.node for each in graph.parameters))
        assert kept[f"mean of layer {places.index(name)}"] == pytest.approx(found[0], rel=1e-3, abs=1e-4), number
        assert kept[f"variance of layer {places.index(name)}"] == pytest.approx(found[1], rel=1e-3)
    reference = Reference(graph, session.learned(), statistics)
    cost, right, _ = loss(reference.forward(session.x[3:13]), session.labels[3:13])
    session.run(t.test(3, 10))
    assert session.get(t.results, 2) == pytest.approx([cost, right], rel=1e-3)


def test_a_relu_that_others_read_too_is_no_other_unit():
    """And one that alone reads is: `gradients` agrees with both, of which the step tells."""
    graph = preactivated()
    assert [(unit.name, unit.relu) for unit in Training(TINY, graph.inputs, graph, 6, 30, 8, SGD(1), 1 << 19).units] == [
        ("layer 0", False),
        ("layer 1", True),
        ("layer 3", False),
        ("layer 4", False),
        ("layer 5", False),
        ("layer 6", True),
        ("layer 7", False),
        ("layer 8", False),
        ("layer 9", False),
    ]
    assert len(gradients(graph, parameters(graph, np.random.default_rng(0)), np.ones((2, 5, 6, 4)), [0, 1])[2]) == 10


@pytest.mark.parametrize(
    "layer, message",
    [
        (Conv2d(4, 3, groups=2), "layer 0: convolutions in groups are not compiled yet"),
        (AvgPool(2, padding=1, padding_counts=False), "layer 0: means of as many pixels as are no padding are not compiled yet"),
        (Dropout(), "layer 0: Dropout is not compiled yet"),
    ],
)
def test_says_what_it_does_not_take(layer: Layer, message: str):
    with pytest.raises(CompileError, match=f"^{message}$"):
        Training(TINY, (8, 8, 2), [layer, Dense(4)], 6, 30, 8, SGD(1), 1 << 19)


def test_says_what_goes_nowhere():
    graph = Graph((8, 8, 2))
    graph.add(Conv2d(4, 3), name="lost")
    graph.add(Dense(4), INPUT)
    with pytest.raises(CompileError, match=r"^the outputs of lost go nowhere$"):
        Training(TINY, graph.inputs, graph, 6, 30, 8, SGD(1), 1 << 19)
    with pytest.raises(CompileError, match=r"^inputs must be those of the graph, \(8, 8, 2\), not 5$"):
        Training(TINY, 5, graph, 6, 30, 8, SGD(1), 1 << 19)


def test_little_room_to_compute_in_is_told():
    graph = residual()
    with pytest.raises(CompileError, match=r"NBout is too small|the resident half of NBout is too small"):
        Training(replace(TIGHT, nbout_bytes=1 << 8), graph.inputs, graph, 6, 30, 8, SGD(1), 1 << 19).step(1, 0)
