"""The state of a training with a script of its own: weights and moments in a file, and back into memory."""

from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.sim.compiler.compiler import Graph, Training
from nibblecore.sim.compiler.layout import learned_names
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.train.checkpoint import Checkpoint, CheckpointError
from numpy.typing import NDArray

__all__ = ["load", "save", "trained"]


def _identity(training: Training) -> dict[str, Any]:
    return {"network": training.description, "bits": training.bits, "optimizer": type(training.optimizer).__name__}


def save(
    file: str | Path, training: Training, accelerator: CambriconqAccelerator | CheckedAccelerator, *, step: int, **more: Any
) -> None:
    """Writes weights and moments as memory holds them, in one go, with how many steps are done.

    `more` is whatever else the script wants back and JSON can say: the order of the samples, the state of a random generator.
    """
    header = {"training": _identity(training), "step": step, "more": more}
    Checkpoint(header, training.state(accelerator.read_memory)).write(Path(file))


def load(
    file: str | Path, training: Training, accelerator: CambriconqAccelerator | CheckedAccelerator
) -> tuple[int, dict[str, Any]]:
    """Writes weights and moments to memory; returns how many steps are done, and what else `save` was given.

    Samples, labels and `Training.setup` are the caller's, as before a first step. Raises `CheckpointError` if the file is no checkpoint, or
    one of another network, width or optimizer; memory is unchanged then. Rates may be other ones.
    """
    checkpoint = Checkpoint.read(Path(file))
    found, here = checkpoint.header.get("training"), _identity(training)
    if not isinstance(found, dict):
        raise CheckpointError("is a checkpoint, but none of a Training")
    for name, value in here.items():
        if found.get(name) != value:
            raise CheckpointError(f"is of another training: {name} is {found.get(name)!r}, not {value!r}")
    checkpoint.require(training.state(accelerator.read_memory))
    for at, values in training.restored(checkpoint.arrays):
        accelerator.write_memory(at, values)
    return checkpoint.header["step"], checkpoint.header["more"]


def trained(
    file: str | Path, graph: Graph
) -> tuple[list[NDArray[np.float32]], dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]]:
    """Parameters of a graph, in their order, and the statistics of its batch norms by their names, from a checkpoint of `save` or of
    ``nibblecore train``.

    Raises `CheckpointError` if the file is no checkpoint, or one of another graph.
    """
    arrays = Checkpoint.read(Path(file)).arrays
    names, norms = learned_names(graph)

    def found(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name not in arrays or arrays[name].shape != shape:
            raise CheckpointError(f"has no {name} of {'×'.join(map(str, shape))} numbers")
        return arrays[name]

    parameters = [found(f"w of {name}", each.shape) for name, each in zip(names, graph.parameters, strict=True)]
    statistics = {
        node: (found(f"mean of {layer}", graph.shape(node)[2:]), found(f"variance of {layer}", graph.shape(node)[2:]))
        for node, layer in norms.items()
    }
    if more := [name for name in arrays if name.startswith("w of ") and name.removeprefix("w of ") not in names]:
        raise CheckpointError(f"has {', '.join(more)}, which the graph has not")
    return parameters, statistics
