"""Training of the digits, whatever the machine: data, the loop, tests now and then, the report, and how it all ends."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
from nibblecore.sim.compiler.program import CompileError
from nibblecore.sim.host.accelerator import Accelerator
from nibblecore.sim.host.checked import Checked, Mismatch
from nibblecore.sim.machines import machine_of
from numpy.typing import NDArray

from . import data, report

__all__ = ["Diverged", "Learner", "run"]

_TESTS = 5
_TEST_SUBSET = 120

Part = Literal["train", "test"]


class Diverged(ArithmeticError):
    """Numbers of the training left the range that the machine or FP32 has.

    Parameters
    ----------
    place : str
        As of `Checked`.
    what : str
        What is wrong, in words.
    """

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place}: {what}; try a lower learning rate, or more bits")


class Learner(ABC):
    """A network that learns the digits on one accelerator: what a machine brings to `run`. Closes the accelerator as a context manager.

    Members
    -------
    machine : str
        Its name in reports.
    checked : Checked
    steps, batch : int
        How many steps, and images a step.
    recipe : dict
        All that decides the result, for the numbers.
    name : str
        What tells it from others of the same machine, configuration and seed, for the names of files.
    network, widths, optimizer : str
        In words.
    parameters : int
        Weights.
    compares, unchecked : str
        What `Checked.comparisons` counts, and what the report says without a comparison.
    """

    machine: str
    checked: Checked[Any]
    steps: int
    batch: int
    recipe: dict[str, Any]
    name: str
    network: str
    widths: str
    optimizer: str
    parameters: int
    compares: str
    unchecked = "switched off"

    @abstractmethod
    def load(self) -> None:
        """What has to be done before the first step."""

    @abstractmethod
    def step(self, number: int) -> tuple[float, float]:
        """Loss and share of right answers before step 0, 1, …, which is done. Raises `Diverged`."""

    @abstractmethod
    def weights(self) -> list[NDArray[np.float32]]:
        """As they are now, of each layer that has any."""

    @abstractmethod
    def accuracy(self, part: Part, count: int) -> float:
        """Share of right answers on the first images of a part of the data; nothing is learned. Raises `Diverged`."""

    def counters(self) -> dict[str, int]:
        """What has been counted so far."""
        return self.checked.counters()

    @abstractmethod
    def measured(self, passed: dict[str, int]) -> dict[str, dict[str, float]]:
        """Of the last step, in which the counters counted `passed`: numbers by kind and name, for the history."""

    @abstractmethod
    def shown(self, measured: dict[str, dict[str, float]]) -> dict[str, str]:
        """What of them the progress bar shows."""

    @abstractmethod
    def facts(self, counters: dict[str, int], history: report.History) -> dict[str, Any]:
        """The machine's part of the summary, `counters` being those at the end."""

    @abstractmethod
    def rows(self, facts: dict[str, Any], steps: int) -> list[tuple[str, str]]:
        """What the report says of `facts`, after `steps` steps."""

    @abstractmethod
    def plot(self, left: Any, right: Any, history: report.History, facts: dict[str, Any]) -> None:
        """The machine's two axes of the figure, with their titles."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.checked.close()


def _train(learner: Learner, digits: data.Digits, history: report.History, progress: Any) -> None:
    """All steps and tests, noted in `history` as they are done."""
    count = len(digits.test_labels)
    every = max(1, learner.steps // _TESTS)
    learner.checked.place = "set-up"
    learner.load()
    progress.set_description("training")
    before = learner.counters()
    for step in range(learner.steps):
        learner.checked.place = f"step {step}"
        loss, right = learner.step(step)
        _see_that_finite(learner, step, loss)
        history.counters = learner.counters()
        measured = learner.measured({name: number - before[name] for name, number in history.counters.items()})
        history.add(loss, right, measured)
        if (step + 1) % every == 0 and step + 1 < learner.steps:
            learner.checked.place = f"test after step {step}"
            subset = min(_TEST_SUBSET, count)
            history.tests.append((step, learner.accuracy("test", subset), subset))
            history.counters = learner.counters()
        before = history.counters
        shown = {"loss": f"{loss:.3f}", "accuracy": f"{np.mean(history.accuracy[-10:]):.1%}", **learner.shown(measured)}
        progress.set_postfix(shown, refresh=False)
        progress.update()
    progress.set_description("testing")
    learner.checked.place = "test at the end"
    test = learner.accuracy("test", count)
    history.train_accuracy = learner.accuracy("train", count)
    history.tests.append((learner.steps - 1, test, count))
    history.counters = learner.counters()


def _see_that_finite(learner: Learner, step: int, loss: float) -> None:
    place = f"step {step}"
    if not np.isfinite(loss):
        raise Diverged(place, f"the loss is {loss}")
    for number, weights in enumerate(learner.weights()):
        if wrong := np.count_nonzero(~np.isfinite(weights)):
            raise Diverged(place, f"{wrong} of {weights.size} weights of layer {number} are no longer finite")


def run(open_learner: Callable[[data.Digits], Learner], *, transport: str, output: Any, require: float | None) -> int:
    """Train, say on the terminal how it went, and leave figure and numbers in the folder `output`.

    Exit status: 0, 1 if a result was wrong, if loss or weights are no longer finite or if the accuracy is below `require`, 2 if the
    accelerator failed or the network does not fit it, 130 after Ctrl-C. What had been done by then is reported all the same, marked as
    interrupted, in files of other names.
    """
    # What is missing is said before the training, not after it.
    import matplotlib  # noqa: F401
    from tqdm import tqdm

    began = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    history, interrupted = report.History(), False
    try:
        digits = data.load()
        with open_learner(digits) as learner:
            with tqdm(total=learner.steps, desc="loading", unit="step", dynamic_ncols=True) as progress:
                try:
                    _train(learner, digits, history, progress)
                except KeyboardInterrupt:
                    interrupted = True
            if interrupted:
                print(f"interrupted after {len(history.loss)} of {learner.steps} steps", file=sys.stderr)
                if not history.loss:
                    return 130
            accelerator: Accelerator[Any] = learner.checked.accelerator
            facts = learner.facts(history.counters, history)
            summary = report.Summary(
                machine=learner.machine,
                config=accelerator.config.name,
                transport=transport,
                recipe=learner.recipe,
                network=learner.network,
                parameters=learner.parameters,
                steps=len(history.loss),
                interrupted=interrupted,
                train_accuracy=history.train_accuracy,
                test_accuracy=None if interrupted else history.tests[-1][1],
                test_images=len(digits.test_labels),
                measured=facts,
                comparisons=learner.checked.comparisons if learner.checked.check else None,
                simulated_cycles=getattr(accelerator.transport, "cycles", None),
                seconds=time.monotonic() - began,
            )
            waveform = getattr(accelerator.transport, "waves", None)
    except Mismatch as mismatch:
        print(f"the accelerator differs from the golden model: {mismatch}", file=sys.stderr)
        return 1
    except Diverged as diverged:
        print(f"training stopped: {diverged}", file=sys.stderr)
        return 1
    except (CompileError, RuntimeError, TimeoutError, OverflowError, FileNotFoundError) as error:
        print(f"training stopped: {error}", file=sys.stderr)
        return 2
    if waveform:
        print(f"waveform: {waveform}", file=sys.stderr)
    name = f"digits-{machine_of(accelerator.config)}-{summary.config}-{learner.name}" + "-interrupted" * interrupted
    files = report.write(output, name, summary, history, learner)
    print(f"\n{report.text(summary, history, learner, files)}")
    if interrupted:
        return 130
    if require is not None and history.tests[-1][1] < require:
        print(f"the test accuracy is below the required {require:.1%}", file=sys.stderr)
        return 1
    return 0
