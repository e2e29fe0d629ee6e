"""Trainings that are put aside and taken up again: arrays, and a header in JSON, in one ``.npz`` file that holds no pickles."""

import json
import os
import platform
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.sim.refusal import Refusal
from numpy.typing import NDArray

__all__ = ["SETTLED", "Checkpoint", "CheckpointError", "of_training", "settled"]

FORMAT = 1

SETTLED = ("machine", "config", "bits", "net", "opt", "seed", "transport", "check")
"""Options of ``nibblecore train`` that a checkpoint settles, where its machine has them."""

_NEEDED = {*SETTLED, "recipe", "batch", "step", "steps", "more", "history", "comparisons", "simulated_cycles", "seconds", "resumed"}
_NEEDED -= {"net", "opt"}


class CheckpointError(ValueError):
    """A file that is no checkpoint, or not one of this training; the message says what of it."""


@dataclass(frozen=True)
class Checkpoint:
    """Numbers with names, and what is to be known of them.

    Parameters
    ----------
    header : dict
        Whatever JSON can say. `write` adds ``checkpoint``, the number of the format, and ``versions``.
    arrays : dict of arrays
        Of numbers, under any name but ``header``.
    """

    header: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def write(self, path: Path) -> None:
        """To `path`, in one go: no one ever finds half a file there. Raises ValueError for a header that JSON cannot say."""
        versions = {"nibblecore": version("nibblecore"), "numpy": np.__version__, "python": platform.python_version()}
        header = json.dumps({**self.header, "checkpoint": FORMAT, "versions": versions}, allow_nan=False)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
            made = Path(temporary, path.name)
            with made.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, header=np.array(header), **self.arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(made, path)

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Raises `CheckpointError` unless a whole checkpoint of this format lies there."""
        try:
            if path.is_file() and not zipfile.is_zipfile(path):
                raise CheckpointError("is no checkpoint, or not a whole one")
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            header = json.loads(str(arrays.pop("header")))
            number = header["checkpoint"]
        except OSError as error:
            raise CheckpointError(f"no checkpoint: {error.strerror or error}") from None
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error):
            raise CheckpointError("is no checkpoint, or not a whole one") from None
        if number != FORMAT:
            raise CheckpointError(f"is a checkpoint of format {number}; this nibblecore reads format {FORMAT}")
        return cls(header, arrays)

    def require(self, expected: Mapping[str, NDArray[Any]]) -> None:
        """Raises `CheckpointError` unless names, shapes and types are those of `expected`."""
        if self.arrays.keys() != expected.keys():
            raise CheckpointError(f"holds {', '.join(self.arrays)}, not {', '.join(expected)}")
        for name, array in self.arrays.items():
            kinds = [f"{a.dtype} {list(a.shape)}" for a in (array, expected[name])]
            if kinds[0] != kinds[1]:
                raise CheckpointError(f"{name} is {kinds[0]}, not {kinds[1]}")


def of_training(path: Path) -> Checkpoint:
    """What ``nibblecore train`` left. Raises `Refusal` of the option ``resume``."""
    try:
        checkpoint = Checkpoint.read(path)
    except CheckpointError as error:
        raise Refusal("resume", str(error)) from None
    if not checkpoint.header.keys() >= _NEEDED:
        raise Refusal("resume", "is a checkpoint, but none of nibblecore train")
    return checkpoint


def settled(path: Path) -> dict[str, str]:
    """The options of `SETTLED` with which a checkpoint's training began, as a user types them. Raises `Refusal`."""
    header = of_training(path).header
    return {name: str(int(header[name]) if name == "check" else header[name]) for name in SETTLED if name in header}
