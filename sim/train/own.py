"""An own network and own samples: a function in a file of Python, or a file of ONNX, and arrays in an ``.npz`` file."""

import hashlib
import importlib.util
import sys
import traceback
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.sim.compiler.network import Graph, Image
from nibblecore.sim.compiler.program import CompileError
from nibblecore.sim.frontends.imported import Imported
from nibblecore.sim.refusal import Refusal
from numpy.typing import NDArray

from .data import Digits

__all__ = ["Own", "graph", "load"]

_TESTED = 5
"""Of so many samples one is to test with, where the file does not say which."""


@dataclass(frozen=True)
class Own:
    """What is trained on instead of the digits.

    Members
    -------
    model, data : str
        As the user named them.
    graph : Graph
    parameters : list of arrays, or None
        Initial ones of the model; None where it has none.
    statistics : dict
        Of its batch norms.
    notes : list of str
        What of the model is not in the graph.
    samples : Digits
        FP32, one a row, the channels of a pixel side by side, and the numbers of their classes.
    digest : str
        Of all samples: the same of the same.
    """

    model: str
    data: str
    graph: Graph
    parameters: list[NDArray[np.float32]] | None
    statistics: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    notes: list[str]
    samples: Digits
    digest: str

    @property
    def name(self) -> str:
        return Path(self.model.partition(":")[0]).stem

    @property
    def classes(self) -> int:
        return prod(self.graph.shape(self.graph.output))


def load(model: str, data: Path, seed: int) -> Own:
    """A model as ``FILE.py:FUNCTION`` or ``FILE.onnx``, and its samples. Raises `Refusal` of the options ``model`` and ``data``.

    The function takes nothing and returns a `Graph`, a list of layers or a module of PyTorch, whose random numbers begin with `seed`. The
    file of samples has arrays x and y, and may have x_test and y_test: samples as the model takes them, and classes from 0 on.
    """
    arrays = _read(data)
    built = _built(model, seed)
    found = _imported(model, built, arrays["x"])
    if isinstance(found, Imported):
        graph, parameters, statistics, notes = found.graph, found.parameters, found.statistics, found.notes
    else:
        graph, parameters, statistics, notes = found, None, {}, []
    if not graph.nodes:
        raise Refusal("model", f"{model} has no layers")
    classes = prod(graph.shape(graph.output))
    for name in ("y", "y_test"):
        if name in arrays and (most := int(arrays[name].max())) >= classes:
            raise Refusal("data", f"{name} has class {most}, but the model has {classes} outputs, for classes 0 to {classes - 1}")
    arrays |= {name: _rows(name, arrays[name], found) for name in ("x", "x_test") if name in arrays}
    if "x_test" not in arrays:
        tested = np.arange(len(arrays["x"])) % _TESTED == _TESTED - 1
        arrays = {**{name: arrays[name][~tested] for name in "xy"}, **{f"{name}_test": arrays[name][tested] for name in "xy"}}
    samples = Digits(arrays["x"], arrays["y"], arrays["x_test"], arrays["y_test"])
    digest = hashlib.sha256()
    for array in samples:
        digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return Own(model, str(data), graph, parameters, statistics, notes, samples, digest.hexdigest())


def graph(model: str, data: Path | None) -> Graph:
    """A model as of `load`, alone; without samples one that says itself what it takes. Raises `Refusal` as that does."""
    built = _built(model, 0)
    if data is None and not isinstance(built, Graph | Path):
        raise Refusal("model", f"{model} returns {type(built).__name__}, which does not say what it is given: DATA=mine.npz does")
    found = _imported(model, built, np.zeros((1, 1), np.float32) if data is None else _read(data)["x"])
    return found.graph if isinstance(found, Imported) else found


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """x, y and, where they are there, x_test and y_test, checked as far as they need no model."""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise Refusal("data", "is no .npz file: numpy.savez writes one")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("x", "y", "x_test", "y_test") if name in stored.files}
            others = stored.files
    except Refusal:
        raise
    except OSError as error:
        raise Refusal("data", f"cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise Refusal(
            "data", f"is no whole .npz file of numbers: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from None
    for name in ("x", "y"):
        if name not in arrays:
            raise Refusal("data", f"has no {name}; it has {', '.join(others) or 'nothing'}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise Refusal("data", "has one of x_test and y_test; it must have both or neither")
    for part in ("", "_test") if "x_test" in arrays else ("",):
        x, y = arrays[f"x{part}"], arrays[f"y{part}"]
        if x.dtype.kind not in "fiub" or x.ndim < 2:
            raise Refusal("data", f"x{part} must be real numbers, samples along the first axis, not {x.dtype} {list(x.shape)}")
        if y.dtype.kind not in "iu" or y.ndim != 1:
            raise Refusal("data", f"y{part} must be whole numbers, the class of each sample, not {y.dtype} {list(y.shape)}")
        if len(x) != len(y) or not len(x):
            raise Refusal("data", f"x{part} has {len(x)} samples, y{part} {len(y)} classes")
        if y.min() < 0:
            raise Refusal("data", f"y{part} has class {y.min()}; classes are 0 and more")
        with np.errstate(over="ignore"):
            arrays[f"x{part}"], arrays[f"y{part}"] = x.astype(np.float32), y.astype(np.int64)
        if count := int(np.count_nonzero(~np.isfinite(arrays[f"x{part}"]))):
            raise Refusal("data", f"x{part} has {count} numbers that are not finite in FP32")
    if len(arrays["x"]) < _TESTED and "x_test" not in arrays:
        raise Refusal("data", f"has {len(arrays['x'])} samples; every fifth is to test with, so there must be five or more")
    return arrays


def _built(model: str, seed: int) -> Any:
    """What the function of a file returns; of a file of ONNX its path."""
    place, _, function = model.partition(":")
    path, function = Path(place), function or "build"
    if not path.is_file():
        raise Refusal("model", f"there is no file {place}; a model is FILE.py:FUNCTION or FILE.onnx")
    if path.suffix == ".onnx":
        return path
    if path.suffix != ".py":
        raise Refusal("model", f"{place} is neither Python (.py) nor ONNX (.onnx)")
    spec = importlib.util.spec_from_file_location(f"nibblecore_model_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
        if not callable(build := getattr(module, function, None)):
            raise Refusal("model", f"{place} has no function {function}")
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(seed)
        return build()
    except Refusal:
        raise
    except ModuleNotFoundError as error:
        extra = "; install it with: pip install 'nibblecore[torch]'" if error.name in ("torch", "onnx") else ""
        raise Refusal("model", f"{error.name} is missing{extra}") from None
    except Exception as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == path.resolve()
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        said = str(error).splitlines()
        where = f"{place}:{line}" if line else place
        raise Refusal("model", f"{where}: {type(error).__name__}{f': {said[0]}' if said else ''}") from None
    finally:
        sys.path.remove(str(path.resolve().parent))


def _imported(model: str, built: Any, x: NDArray[np.float32]) -> Graph | Imported:
    try:
        if isinstance(built, Path):
            from nibblecore.sim.frontends.onnx import from_onnx

            return from_onnx(built)
        if any(each.__module__.startswith("torch.nn") for each in type(built).__mro__):
            from nibblecore.sim.frontends.pytorch import from_torch

            return from_torch(built, x[:1])
        if isinstance(built, Graph):
            return built
        if isinstance(built, list | tuple):
            inputs: int | Image = x.shape[1]
            if x.ndim in (3, 4):
                inputs = (x.shape[1], x.shape[2], x.shape[3] if x.ndim == 4 else 1)
            elif x.ndim != 2:
                raise Refusal(
                    "data", f"x has samples of {'×'.join(map(str, x.shape[1:]))}; a list of layers takes values or images"
                )
            return Graph.sequence(inputs, list(built))
    except ModuleNotFoundError as error:
        raise Refusal("model", str(error)) from None
    except CompileError as error:
        raise Refusal("model", str(error)) from None
    raise Refusal("model", f"{model} returns {type(built).__name__}, neither a Graph, a list of layers nor a module of PyTorch")


def _rows(name: str, x: NDArray[np.float32], found: Graph | Imported) -> NDArray[np.float32]:
    """Samples as the graph takes them, one a row."""
    if isinstance(found, Imported):
        try:
            return np.ascontiguousarray(found.samples(x)).reshape(len(x), -1)
        except ValueError as error:
            raise Refusal("data", f"{name}: {error}") from None
    inputs = found.inputs
    shape = (inputs,) if isinstance(inputs, int) else inputs
    if x.shape[1:] not in (shape, shape[:2] if shape[2:] == (1,) else shape, (prod(shape),)):
        words = ["×".join(map(str, each)) for each in (shape, x.shape[1:])]
        raise Refusal("data", f"{name} must have samples of {words[0]}, as the model takes them, not of {words[1]}")
    return x.reshape(len(x), -1)
