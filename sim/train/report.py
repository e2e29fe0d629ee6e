"""What a training leaves behind: a page of text, a figure, and the numbers as JSON; the same of every machine."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from .shell import Learner

__all__ = ["History", "Summary", "no_clock", "text", "write"]

_SMOOTHING = 10  # steps


@dataclass
class History:
    """What has been done so far.

    Members
    -------
    loss, accuracy : list
        Of each step's batch, before the step.
    measured : dict
        What the machine measures of each step, by kind and name.
    tests : list
        Step, accuracy after it and on how many test images.
    train_accuracy : float or None
        At the end.
    counters : dict
        The machine's, after the last step or test, with those of the parts before an interruption.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    measured: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    tests: list[tuple[int, float, int]] = field(default_factory=list)
    train_accuracy: float | None = None
    counters: dict[str, int] = field(default_factory=dict)

    def add(self, loss: float, accuracy: float, measured: dict[str, dict[str, float]]) -> None:
        """A step."""
        self.loss.append(loss)
        self.accuracy.append(accuracy)
        for kind, values in measured.items():
            for name, value in values.items():
                self.measured.setdefault(kind, {}).setdefault(name, []).append(value)

    def cut(self, steps: int, tests: int) -> None:
        """Leaves the first steps and tests."""
        for values in (self.loss, self.accuracy, *(lists for kind in self.measured.values() for lists in kind.values())):
            del values[steps:]
        del self.tests[tests:]

    @classmethod
    def again(cls, written: dict[str, Any]) -> Self:
        """From what `asdict` made of one at some step, and JSON of that; the accuracy at the end is to be measured again."""
        tests = [(step, accuracy, images) for step, accuracy, images in written["tests"]]
        return cls(**written | {"tests": tests, "train_accuracy": None})


@dataclass
class Summary:
    """The outcome, over all parts of an interrupted training: `resumed` are the steps that were done when it was taken up again.

    Accuracies are None where an interruption came before them, cycles and comparisons where there are none."""

    machine: str
    config: str
    transport: str
    recipe: dict[str, Any]
    network: str
    parameters: int
    steps: int
    resumed: list[int]
    interrupted: bool
    train_accuracy: float | None
    test_accuracy: float | None
    test_images: int
    measured: dict[str, Any]
    comparisons: int | None
    simulated_cycles: int | None
    seconds: float


def text(summary: Summary, history: History, learner: "Learner", files: list[Path]) -> str:
    """A fact a line."""
    done = f"{summary.steps} of {learner.steps} steps" if summary.interrupted else f"{summary.steps} steps"
    training = f"{done} of {learner.batch} images, {learner.optimizer}, seed {summary.recipe['seed']}"
    if summary.resumed:
        training += f"; resumed after {' and '.join(map(str, summary.resumed))}, all figures are of all parts"
    test = "not measured"
    if history.tests:
        step, accuracy, images = history.tests[-1]
        test = f"{accuracy:.1%} of {images} images" + f" after step {step}" * summary.interrupted
    checked = (
        learner.unchecked if summary.comparisons is None else f"{summary.comparisons:,} {learner.compares} compared, all equal"
    )
    speed = f", {summary.simulated_cycles / summary.seconds:,.0f} simulated cycles/s" if summary.simulated_cycles else ""
    lines = [
        ("accelerator", f"{summary.machine} {summary.config}, {summary.transport} transport"),
        ("network", f"{summary.network}, {summary.parameters:,} weights, {learner.widths}"),
        ("training", training + ": interrupted" * summary.interrupted),
        ("train accuracy", "not measured" if summary.train_accuracy is None else f"{summary.train_accuracy:.1%}"),
        ("test accuracy", test),
        *learner.rows(summary.measured, summary.steps),
        ("golden model", checked),
        ("time", f"{summary.seconds:.1f} s{speed}"),
        ("written", f"{files[0]}, {' and '.join(file.suffix for file in files[1:])}"),
    ]
    width = max(len(name) for name, _ in lines) + 1
    return "\n".join(f"{name:>{width}}  {value}" for name, value in lines)


def write(folder: Path, name: str, summary: Summary, history: History, learner: "Learner") -> list[Path]:
    """Figure and numbers as ``folder/name.png`` and ``.json``; both, or on failure neither, and never half a file."""
    files = [folder / f"{name}.png", folder / f"{name}.json"]
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as temporary:
        made = [Path(temporary, file.name) for file in files]
        _plot(made[0], summary, history, learner)
        content = {"summary": asdict(summary), "history": asdict(history)}
        made[1].write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        for source, file in zip(made, files, strict=True):
            os.replace(source, file)
    return files


def _plot(path: Path, summary: Summary, history: History, learner: "Learner") -> None:
    """Loss and accuracy over the steps, and what the machine adds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
    (loss, accuracy), (left, right) = axes
    steps = np.arange(len(history.loss))
    for axis, values, name in ((loss, history.loss, "loss"), (accuracy, history.accuracy, "training batch")):
        axis.plot(steps, values, alpha=0.3, color="C0")
        axis.plot(steps, _smoothed(values), color="C0", label=name)
        axis.set_xlabel("step")
    if history.tests:
        accuracy.plot(*zip(*(test[:2] for test in history.tests), strict=True), "o-", color="C1", label="test images")
    accuracy.set_ylim(0, 1.02)
    accuracy.legend()
    loss.set_title("loss")
    accuracy.set_title("accuracy")
    learner.plot(left, right, history, summary.measured)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    end = f"interrupted after {summary.steps} of {learner.steps} steps"
    if summary.test_accuracy is not None:
        end = f"test accuracy {summary.test_accuracy:.1%}"
    figure.suptitle(f"{learner.task} on {summary.machine} {summary.config}, {learner.optimizer}, {learner.widths}: {end}")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def no_clock(axis: Any) -> None:
    """In the place of cycles where none were counted."""
    axis.text(0.5, 0.5, "the functional model has no clock", ha="center", va="center", transform=axis.transAxes)


def _smoothed(values: list[float]) -> list[float]:
    """Mean of the last few values at each step."""
    return [float(np.mean(values[max(0, i + 1 - _SMOOTHING) : i + 1])) for i in range(len(values))]
