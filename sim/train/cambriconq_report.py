"""What a training run on Cambricon-Q leaves behind: a page of text, a figure, and the numbers as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.sim.compiler.compiler import Phase

from .report import smoothed

__all__ = ["History", "Summary", "plot", "text", "write_json"]

_MEANINGS = {
    Phase.FW: "forward",
    Phase.NG: "neuron gradient",
    Phase.WG: "weight gradient",
    Phase.WU: "weight update",
    Phase.Q: "quantization",
    Phase.OTHER: "other",
}


@dataclass
class History:
    """One entry a step; `tests` holds (step, accuracy on some test images) now and then. `phases` is empty without a clock."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    phases: dict[str, list[int]] = field(default_factory=dict)
    tests: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Summary:
    """The outcome of a run.

    `cycles` are those in which a training step ran, `phases` their division; None without a clock. S is no phase: θ is taken while a block
    streams in.
    """

    config: str
    transport: str
    recipe: dict[str, Any]
    network: str
    parameters: int
    train_accuracy: float
    test_accuracy: float
    test_images: int
    instructions: int
    cycles: int | None
    phases: dict[str, int] | None
    simulated_cycles: int | None
    comparisons: int | None
    seconds: float


def text(summary: Summary) -> str:
    """The summary, a fact a line."""
    recipe = summary.recipe
    lines = [
        ("accelerator", f"Cambricon-Q {summary.config}, {summary.transport} transport"),
        ("network", f"{summary.network}, {summary.parameters:,} weights, {recipe['bits']} bits"),
        ("training", f"{recipe['steps']} steps of {recipe['batch']} images, {recipe['optimizer']}, seed {recipe['seed']}"),
        ("train accuracy", f"{summary.train_accuracy:.1%}"),
        ("test accuracy", f"{summary.test_accuracy:.1%} of {summary.test_images} images"),
        ("program", f"{summary.instructions:,} instructions a step"),
    ]
    if summary.cycles and summary.phases:
        lines.append(("cycles of training", f"{summary.cycles:,}, {summary.cycles / recipe['steps']:,.0f} a step"))
        for phase, meaning in _MEANINGS.items():
            count = summary.phases[phase.name]
            name = "other" if phase == Phase.OTHER else f"{phase.name}, {meaning}"
            lines.append((name, f"{count:,} ({count / summary.cycles:.1%})"))
            if phase == Phase.WU:
                lines.append(("S, statistic", "0: taken on the fly, within Q"))
    if summary.comparisons is None:
        checked = "switched off" if summary.transport != "functional" else "is the transport: nothing to compare it with"
    else:
        checked = f"{summary.comparisons:,} bytes of memory compared, all equal"
    speed = f", {summary.simulated_cycles / summary.seconds:,.0f} simulated cycles/s" if summary.simulated_cycles else ""
    lines += [("functional model", checked), ("time", f"{summary.seconds:.1f} s{speed}")]
    return "\n".join(f"{name:>20}  {value}" for name, value in lines)


def write_json(path: Path, summary: Summary, history: History) -> None:
    path.write_text(json.dumps({"summary": asdict(summary), "history": asdict(history)}, indent=1) + "\n")


def plot(path: Path, summary: Summary, history: History) -> None:
    """Loss, accuracy, cycles of a step over the steps and their division, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
    (loss, accuracy), (cycles, division) = axes
    steps = np.arange(len(history.loss))
    for axis, values, name in ((loss, history.loss, "loss"), (accuracy, history.accuracy, "training batch")):
        axis.plot(steps, values, alpha=0.3, color="C0")
        axis.plot(steps, smoothed(values), color="C0", label=name)
    if history.tests:
        accuracy.plot(*zip(*history.tests, strict=True), "o-", color="C1", label="test images")
    accuracy.set_ylim(0, 1.02)
    accuracy.legend()
    if summary.phases:
        names = [phase.name for phase in _MEANINGS]
        cycles.stackplot(steps, *(history.phases[name] for name in names), labels=names)
        cycles.set_ylim(bottom=0)
        cycles.legend(loc="lower right", ncols=3)
        division.barh(
            [name if name != "OTHER" else "other" for name in names],
            [summary.phases[name] for name in names],
            color=[f"C{number}" for number in range(len(names))],
        )
        division.invert_yaxis()
    else:
        for axis in axes[1]:
            axis.text(0.5, 0.5, "the functional model has no clock", ha="center", va="center", transform=axis.transAxes)
    titles = ("loss", "accuracy", "cycles of a step", "cycles of training (S is taken on the fly)")
    for axis, title in zip(axes.flat, titles, strict=True):
        axis.set_title(title)
        axis.grid(alpha=0.3)
    for axis in (loss, accuracy, cycles):
        axis.set_xlabel("step")
    recipe = summary.recipe
    figure.suptitle(
        f"digits on Cambricon-Q {summary.config}, {recipe['optimizer']}, {recipe['bits']} bits: test accuracy {summary.test_accuracy:.1%}"
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
