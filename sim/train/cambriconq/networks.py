"""The networks that are trained on Cambricon-Q, by name, and how fast each learns with which optimizer."""

from dataclasses import dataclass

from nibblecore.sim.compiler.compiler import Conv2d, Dense, Layer, MaxPool, Relu
from nibblecore.sim.compiler.network import OPTIMIZERS
from nibblecore.sim.train import data

__all__ = ["NETWORKS", "OPTIMIZERS", "Network"]


@dataclass(frozen=True, kw_only=True)
class Network:
    """Layers, images a step, the rate of the first step by optimizer, and how many steps: more in 4 bits, where there is time."""

    layers: tuple[Layer, ...]
    batch: int
    rates: dict[str, float]
    steps: int = 250
    narrow_steps: int = 250


NETWORKS = {
    "mlp": Network(
        layers=(Dense(64), Relu(), Dense(data.CLASSES)),
        batch=32,
        narrow_steps=400,
        rates={"sgd": 1.0, "adagrad": 0.07, "rmsprop": 0.008, "adam": 0.015},
    ),
    "cnn": Network(
        layers=(Conv2d(16, 4, stride=2), Relu(), Dense(data.CLASSES)),
        batch=16,
        steps=300,
        narrow_steps=500,
        rates={"sgd": 0.7, "adagrad": 0.12, "rmsprop": 0.015, "adam": 0.03},
    ),
    "pool": Network(
        layers=(Conv2d(8, 3), MaxPool(2), Relu(), Dense(data.CLASSES)),
        batch=16,
        rates={"sgd": 0.7, "adagrad": 0.12, "rmsprop": 0.015, "adam": 0.03},
    ),
}
