"""The networks that are trained on Cambricon-Q, by name, each with its optimizers."""

from dataclasses import dataclass

from nibblecore.sim.compiler.compiler import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dense,
    Graph,
    Layer,
    MaxPool,
    Optimizer,
    Relu,
    RMSprop,
)
from nibblecore.sim.compiler.network import INPUT
from nibblecore.sim.train import data

__all__ = ["NETWORKS", "OPTIMIZERS", "Network", "own_network"]


OPTIMIZERS = ("sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw")


def _optimizers(sgd: float, adagrad: float, rmsprop: float, adam: float) -> dict[str, Optimizer]:
    """With these rates, else as PyTorch has them."""
    return {
        "sgd": SGD(sgd),
        "momentum": SGD(sgd / 5, momentum=0.9),
        "adagrad": Adagrad(adagrad),
        "rmsprop": RMSprop(rmsprop),
        "adam": Adam(adam),
        "adamw": AdamW(adam),
    }


@dataclass(frozen=True, kw_only=True)
class Network:
    """Layers, images a step, optimizers with their first rates, and how many steps: more in 4 bits, where there is time."""

    layers: tuple[Layer, ...] | Graph
    batch: int
    optimizers: dict[str, Optimizer]
    steps: int = 250
    narrow_steps: int = 250


def own_network(graph: Graph, samples: int) -> Network:
    """Of a user's: PyTorch's rates, and of SGD a tenth; five times through the samples."""
    batch = min(32, samples)
    optimizers = _optimizers(sgd=0.1, adagrad=0.01, rmsprop=0.001, adam=0.001)
    steps = max(1, 5 * samples // batch)
    return Network(layers=graph, batch=batch, optimizers=optimizers, steps=steps, narrow_steps=steps)


def _resnet() -> Graph:
    """Two blocks of ResNet, the second with fewer and deeper pixels."""
    graph = Graph(data.SHAPE)

    def normalized(layer: Conv2d, source: str) -> str:
        return graph.add(BatchNorm(), graph.add(layer, source))

    start = graph.add(Relu(), normalized(Conv2d(8, 3, stride=2, padding=1), INPUT))
    for channels, stride in ((8, 1), (16, 2)):
        main = graph.add(Relu(), normalized(Conv2d(channels, 3, stride=stride, padding=1), start))
        main = normalized(Conv2d(channels, 3, padding=1), main)
        shortcut = start if stride == 1 else normalized(Conv2d(channels, 1, stride=stride), start)
        start = graph.add(Relu(), graph.add(Add(), main, shortcut))
    graph.add(AvgPool(2))
    graph.add(Dense(data.CLASSES, bias=True))
    return graph


NETWORKS = {
    "mlp": Network(
        layers=(Dense(64), Relu(), Dense(data.CLASSES)),
        batch=32,
        narrow_steps=400,
        optimizers=_optimizers(sgd=1.0, adagrad=0.07, rmsprop=0.008, adam=0.015),
    ),
    "cnn": Network(
        layers=(Conv2d(16, 4, stride=2), Relu(), Dense(data.CLASSES)),
        batch=16,
        steps=300,
        narrow_steps=500,
        optimizers=_optimizers(sgd=0.7, adagrad=0.12, rmsprop=0.015, adam=0.03),
    ),
    "pool": Network(
        layers=(Conv2d(8, 3), MaxPool(2), Relu(), Dense(data.CLASSES)),
        batch=16,
        optimizers=_optimizers(sgd=0.7, adagrad=0.12, rmsprop=0.015, adam=0.03),
    ),
    "resnet": Network(layers=_resnet(), batch=16, optimizers=_optimizers(sgd=0.3, adagrad=0.1, rmsprop=0.01, adam=0.02)),
}
