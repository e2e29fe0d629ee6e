"""The state of a training with a script of its own: weights and moments in a file, and back into memory."""

from pathlib import Path
from typing import Any

from nibblecore.sim.compiler.compiler import Training
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.train.checkpoint import Checkpoint, CheckpointError

__all__ = ["load", "save"]


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
