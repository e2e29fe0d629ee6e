import re
from typing import Any

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
    Layer,
    LocalResponseNorm,
    MaxPool,
    Parameter,
    Relu,
)
from nibblecore.sim.compiler.program import CompileError


def block():
    """As of ResNet."""
    graph = Graph((8, 8, 3))
    start = graph.add(Conv2d(4, 3, padding=1))
    graph.add(BatchNorm())
    graph.add(Relu())
    graph.add(Conv2d(4, 3, padding=1, bias=True), name="second")
    graph.add(Add(), "second", start)
    graph.add(Concat(), "layer 4", start)
    graph.add(Dense(10, bias=True))
    return graph


def test_a_graph_knows_shapes_and_parameters():
    graph = block()
    assert [graph.shape(node.name) for node in graph.nodes] == [(8, 8, 4)] * 5 + [(8, 8, 8), (1, 1, 10)]
    assert graph.shape(INPUT) == (8, 8, 3) and graph.output == "layer 6" and not graph.unused
    assert graph.nodes[4].sources == ("second", "layer 0")
    assert graph.parameters == [
        Parameter("layer 0", "weight", (4, 27)),
        Parameter("layer 1", "scale", (1, 4)),
        Parameter("layer 1", "shift", (1, 4)),
        Parameter("second", "weight", (4, 36)),
        Parameter("second", "bias", (1, 4)),
        Parameter("layer 6", "weight", (10, 512)),
        Parameter("layer 6", "bias", (1, 10)),
    ]
    assert graph.description == (
        "8×8×3, conv 4 of 3×3 padded by 1, batch norm, ReLU, conv 4 of 3×3 padded by 1 with bias, sum with layer 0, "
        "channels with layer 0, dense 10 with bias"
    )


@pytest.mark.parametrize(
    "layer, shape, parameters",
    [
        (Conv2d(6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (5, 7, 6), (6, 12)),
        (Conv2d(8, (1, 7), padding=(0, 3)), (9, 8, 8), (8, 28)),
        (MaxPool(3, stride=2, padding=1), (5, 4, 4), None),
        (MaxPool((2, 3)), (4, 2, 4), None),
        (AvgPool(9, stride=1, padding=(0, 2)), (1, 4, 4), None),
        (LocalResponseNorm(5), (9, 8, 4), None),
        (Dropout(0.1), (9, 8, 4), None),
        (Dense(7), (1, 1, 7), (7, 288)),
    ],
)
def test_shapes(layer, shape, parameters):
    graph = Graph.sequence((9, 8, 4), [layer])
    assert graph.shape(graph.output) == shape
    assert [each.shape for each in graph.parameters] == ([parameters] if parameters else [])


def test_equal_sizes_are_one_number():
    assert Conv2d(4, (3, 3), stride=(2, 2), padding=(1, 1)) == Conv2d(4, 3, stride=2, padding=1)
    assert MaxPool([2, 2], stride=[3, 1]) == MaxPool(2, stride=(3, 1))  # type: ignore[arg-type]


def wrong(value: Any) -> Any:
    """Of a type that no annotation allows."""
    return value


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda g: g.add(Add(), INPUT, "nobody"), "layer 1: there is no node 'nobody' before it"),
        (lambda g: g.add(Add()), "layer 1: Add does not take the outputs of 1"),
        (lambda g: g.add(Relu(), INPUT, "first"), "layer 1: Relu does not take the outputs of 2"),
        (lambda g: g.add(Add(), INPUT, "first"), "layer 1: a sum of 6×6×2 and 5×5×3"),
        (lambda g: g.add(Concat(), INPUT, "first"), "layer 1: channels of images of 6×6 and 5×5"),
        (lambda g: g.add(Relu(), name="first"), "there are two nodes of the name 'first'"),
        (lambda g: g.add(Conv2d(4, 2, groups=3), INPUT), "layer 1: 2 channels to 4 in 3 groups"),
        (lambda g: g.add(MaxPool(2, padding=2)), "layer 1: windows of 2×2 pixels with more than half of them padding, 2"),
        (lambda g: g.add(MaxPool((6, 2))), "layer 1: windows of 6×2 pixels, 6×2 apart, in images of 5×5"),
        (
            lambda g: g.add(Relu),
            "layer 1 must be a Dense, Conv2d, BatchNorm, MaxPool, AvgPool, LocalResponseNorm, Dropout, Relu, Add or Conc",
        ),
        (lambda g: Conv2d(4, (3, 0)), "Conv2d: kernel must be a whole number, at least 1, not 0"),
        (
            lambda g: Conv2d(4, wrong((3, 1, 1))),
            "Conv2d: kernel must be a number, or one for rows and one for columns, not (3, 1, 1)",
        ),
        (lambda g: Conv2d(wrong((4, 4)), 3), "Conv2d: channels must be a whole number, at least 1, not (4, 4)"),
        (lambda g: Conv2d(4, 3, bias=wrong(1)), "Conv2d: bias must be True or False, not 1"),
        (lambda g: BatchNorm(epsilon=-1e-5), "BatchNorm: epsilon must be a finite number of at least 0, not -1e-05"),
        (lambda g: BatchNorm(momentum=float("nan")), "BatchNorm: momentum must be a finite number of at least 0, not nan"),
        (lambda g: Dropout(1.0), "Dropout: rate must be a finite number of at least 0 and below 1, not 1.0"),
        (lambda g: AvgPool(wrong(None)), "AvgPool: size must be a whole number, at least 1, not None"),
        (lambda g: Graph(wrong((8, 8))), "inputs must be a number, or height, width and channels of an image, not (8, 8)"),
    ],
)
def test_says_what_does_not_go_together(make, message):
    graph = Graph((6, 6, 2))
    graph.add(Conv2d(3, 2), name="first")
    with pytest.raises(CompileError, match=f"^{re.escape(message)}"):
        make(graph)
    layers: list[Layer] = [node.layer for node in graph.nodes]
    assert layers == [Conv2d(3, 2)], "nothing is added that is refused"
