"""What a training run leaves behind: a page of text, a figure, and the numbers as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["History", "Summary", "plot", "smoothed", "text", "write_json"]

_SMOOTHING = 10  # steps


@dataclass
class History:
    """One entry a step; `tests` holds (step, accuracy on some test images) now and then. `utilization` is empty without a clock."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    outliers: dict[str, list[float]] = field(default_factory=dict)
    utilization: list[float] = field(default_factory=list)
    tests: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Summary:
    """The outcome of a run. Cycles are those in which the accelerator was busy; None without a clock."""

    config: str
    transport: str
    recipe: dict[str, Any]
    parameters: int
    train_accuracy: float
    test_accuracy: float
    test_images: int
    outlier_ratios: dict[str, float]
    multiplications: int
    commands: int
    array_cycles: int
    cycles: int | None
    load_stalls: int | None
    output_stalls: int | None
    simulated_cycles: int | None
    comparisons: int | None
    seconds: float

    @property
    def utilization(self) -> float | None:
        """Share of busy cycles in which the array took a word."""
        return self.array_cycles / self.cycles if self.cycles else None


def text(summary: Summary) -> str:
    """The summary, a fact a line."""
    recipe = summary.recipe
    shape = "-".join(map(str, (64, *recipe["hidden"], 10)))
    widths = f"8-bit first and last layer, {recipe['bits']}-bit between" if recipe["bits"] != 8 else "8-bit layers"
    lines = [
        ("accelerator", f"{summary.config}, {summary.transport} transport"),
        ("network", f"{shape}, {summary.parameters:,} weights, {widths}"),
        ("training", f"{recipe['steps']} steps of {recipe['batch']} images, seed {recipe['seed']}"),
        ("train accuracy", f"{summary.train_accuracy:.1%}"),
        ("test accuracy", f"{summary.test_accuracy:.1%} of {summary.test_images} images"),
        ("outliers", ", ".join(f"{kind} {ratio:.1%}" for kind, ratio in summary.outlier_ratios.items())),
        ("multiplications", f"{summary.multiplications:,} in {summary.commands:,} commands"),
    ]
    if summary.cycles:
        lines += [
            ("busy cycles", f"{summary.cycles:,}"),
            ("array utilization", f"{summary.utilization:.1%} of the busy cycles"),
            ("stalls", f"operands {_share(summary.load_stalls, summary)}, output {_share(summary.output_stalls, summary)}"),
        ]
    checked = "switched off" if summary.comparisons is None else f"{summary.comparisons:,} numbers compared, all equal"
    speed = f", {summary.simulated_cycles / summary.seconds:,.0f} simulated cycles/s" if summary.simulated_cycles else ""
    lines += [("golden model", checked), ("time", f"{summary.seconds:.1f} s{speed}")]
    return "\n".join(f"{name:>18}  {value}" for name, value in lines)


def _share(cycles: int | None, summary: Summary) -> str:
    return f"{(cycles or 0) / (summary.cycles or 1):.1%}"


def write_json(path: Path, summary: Summary, history: History) -> None:
    content = {"summary": {**asdict(summary), "utilization": summary.utilization}, "history": asdict(history)}
    path.write_text(json.dumps(content, indent=1) + "\n")


def plot(path: Path, summary: Summary, history: History) -> None:
    """Loss, accuracy, outlier ratios and utilization over the steps, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.5), sharex=True, layout="constrained")
    (loss, accuracy), (outliers, utilization) = axes
    steps = np.arange(len(history.loss))
    for axis, values, name in ((loss, history.loss, "loss"), (accuracy, history.accuracy, "training batch")):
        axis.plot(steps, values, alpha=0.3, color="C0")
        axis.plot(steps, smoothed(values), color="C0", label=name)
    if history.tests:
        accuracy.plot(*zip(*history.tests, strict=True), "o-", color="C1", label="test images")
    accuracy.set_ylim(0, 1.02)
    accuracy.legend()
    for kind, values in history.outliers.items():
        outliers.plot(steps, values, label=kind)
    outliers.legend()
    if history.utilization:
        utilization.plot(steps, history.utilization, color="C0")
        utilization.set_ylim(0, 1)
    else:
        utilization.text(0.5, 0.5, "the functional model has no clock", ha="center", va="center", transform=utilization.transAxes)
    titles = ("loss", "accuracy", "outlier ratio", "array utilization")
    for axis, title in zip(axes.flat, titles, strict=True):
        axis.set_title(title)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("step")
    figure.suptitle(f"digits on LT-OAQ {summary.config}, {summary.recipe['bits']} bits: test accuracy {summary.test_accuracy:.1%}")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def smoothed(values: list[float]) -> list[float]:
    """Mean of the last few values at each step."""
    return [float(np.mean(values[max(0, i + 1 - _SMOOTHING) : i + 1])) for i in range(len(values))]
