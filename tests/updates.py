"""What the benches of the weight update share: the optimizers, and numbers of ordinary sizes."""

import numpy as np
from nibblecore.sim.golden.cambriconq.update.ndpo import Optimizer
from numpy.typing import NDArray

# Constants c1..c5 and ε, selectors.
OPTIMIZERS = {
    "sgd": ((0, 0, 0, 0, 0.01, 0), 0),
    "adagrad": ((0, 0, 1, 1, 0.01, 0), 2),
    "rmsprop": ((0, 0, 0.99, 0.01, 0.001, 1e-8), 2),
    "adam": ((0.9, 0.1, 0.999, 0.001, 0.001, 1e-8), 3),
}


def twin(name: str) -> Optimizer:
    constants, selectors = OPTIMIZERS[name]
    optimizer = Optimizer(np.array(constants, np.float32))
    optimizer.set(6, selectors)
    return optimizer


def memory(words: int, rng: np.random.Generator) -> NDArray[np.uint32]:
    """Numbers of ordinary sizes; as second moments, positive ones."""
    return np.abs(rng.normal(0, 0.1, words)).astype(np.float32).view(np.uint32)


def numbers(rng: np.random.Generator, count: int) -> NDArray[np.uint32]:
    return rng.normal(0, 1, count).astype(np.float32).view(np.uint32)


def words_of(name: str) -> tuple[list[int], int]:
    """(c1..c5 and ε, selectors) of an optimizer as bits."""
    constants, selectors = OPTIMIZERS[name]
    return [int(word) for word in np.array(constants, np.float32).view(np.uint32)], selectors
