import numpy as np
import pytest
from nibblecore.sim.compiler.network import (
    INPUT,
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    Dropout,
    Graph,
    LocalResponseNorm,
    MaxPool,
    Relu,
)
from nibblecore.sim.compiler.reference import Reference, loss


def everything():
    """Every kind of layer, and more than one that reads the same."""
    graph = Graph((7, 6, 4))
    start = graph.add(Conv2d(6, (3, 2), stride=(1, 2), padding=(1, 0), groups=2, bias=True))
    graph.add(BatchNorm(), name="bn")
    kept = graph.add(Dropout(0.25), name="drop")
    left = graph.add(Conv2d(6, 3, padding=1), graph.add(Relu(), kept))
    both = graph.add(Add(), left, start)
    side = graph.add(MaxPool((2, 3), stride=1, padding=1), both)
    other = graph.add(AvgPool(2, stride=1, padding=(1, 1), padding_counts=False), both)
    third = graph.add(AvgPool((2, 1), stride=1, padding=(1, 0)), both)
    graph.add(Concat(), graph.add(Conv2d(3, 1), side), graph.add(Conv2d(3, (1, 2)), other), third)
    graph.add(LocalResponseNorm(3, alpha=0.5))
    graph.add(Dense(5, bias=True))
    return graph


def numbers(graph, rng):
    return [rng.normal(size=each.shape) for each in graph.parameters]


@pytest.mark.parametrize("learning", [False, True])
def test_gradients_are_those_of_small_steps(learning):
    rng = np.random.default_rng(0)
    graph = everything()
    parameters, x, labels = numbers(graph, rng), rng.normal(size=(3, *graph.inputs)), [0, 3, 4]
    masks = {"drop": rng.random((3, *graph.shape("drop"))) < 0.75}
    statistics = {"bn": (rng.normal(size=6), rng.random(6) + 0.5)}

    def value(parameters, x):
        return loss(Reference(graph, parameters, statistics).forward(x, learning=learning, masks=masks), labels)[0]

    reference = Reference(graph, parameters, statistics)
    _, _, error = loss(reference.forward(x, learning=learning, masks=masks), labels)
    found, to_x = reference.backward(error)
    assert [each.shape for each in found] == [each.shape for each in graph.parameters]
    for number, gradient in enumerate(found):
        step = rng.normal(size=gradient.shape)
        moved = [[each + s * 1e-5 * step if i == number else each for i, each in enumerate(parameters)] for s in (1, -1)]
        assert (value(moved[0], x) - value(moved[1], x)) / 2e-5 == pytest.approx((gradient * step).sum(), rel=1e-5, abs=1e-9)
    step = rng.normal(size=x.shape)
    assert (value(parameters, x + 1e-5 * step) - value(parameters, x - 1e-5 * step)) / 2e-5 == pytest.approx(
        (to_x * step).sum(), rel=1e-5
    )


def test_statistics_move_in_training_alone():
    graph = Graph.sequence((4, 4, 2), [BatchNorm(momentum=0.25), Dense(3)])
    rng = np.random.default_rng(1)
    reference = Reference(graph, numbers(graph, rng))
    x = rng.normal(3, 2, (5, 4, 4, 2))
    reference.forward(x)
    assert np.array_equal(reference.statistics["layer 0"], ([0, 0], [1, 1]))
    reference.forward(x, learning=True)
    mean, variance = reference.statistics["layer 0"]
    assert np.allclose(mean, x.mean(axis=(0, 1, 2)) / 4)
    assert np.allclose(variance, 0.75 + x.var(axis=(0, 1, 2), ddof=1) / 4)


def test_what_a_reference_refuses():
    graph = Graph.sequence(4, [Dense(3), Dropout(), Dense(2)])
    with pytest.raises(ValueError, match="parameters must have the shapes"):
        Reference(graph, [np.zeros((4, 3)), np.zeros((2, 3))])
    with pytest.raises(ValueError, match="layer 1: which values remain is not said"):
        Reference(graph, [np.zeros((3, 4)), np.zeros((2, 3))]).forward(np.zeros((1, 4)), learning=True)


def test_a_tie_is_wrong():
    share = loss(np.array([[1, 1, 0], [2, 1, 0], [0, 0, 0.5]]), [0, 0, 0])[1]
    assert share == pytest.approx(1 / 3)
    assert INPUT == "input"
