"""Training of the digits, whatever the machine: data, the loop, tests now and then, checkpoint and report, and how it all ends."""

import errno
import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from nibblecore.sim.compiler.program import CompileError
from nibblecore.sim.host.accelerator import Accelerator
from nibblecore.sim.host.checked import Checked, Mismatch
from nibblecore.sim.host.link import LinkError, reach
from nibblecore.sim.host.transport import Transport
from nibblecore.sim.machines import Config
from nibblecore.sim.progress import doing
from nibblecore.sim.refusal import Refusal
from numpy.typing import NDArray

from . import data, report
from .checkpoint import Checkpoint, CheckpointError

__all__ = ["Diverged", "Learner", "State", "reached", "run", "steps_of"]

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


class State(NamedTuple):
    """All that the steps to come depend on, in arrays and what JSON can say. Later steps do not change it."""

    arrays: dict[str, NDArray[Any]]
    more: dict[str, Any]


class Learner(ABC):
    """A network that learns the digits on one accelerator: what a machine brings to `run`. Closes the accelerator as a context manager.

    Members
    -------
    machine : str
        Its name in reports.
    task : str
        What is learned, for titles and the names of files.
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
    task = "digits"
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
    def state(self) -> State:
        """As it is now, between two steps."""

    @abstractmethod
    def restore(self, checkpoint: Checkpoint) -> None:
        """Instead of `load`: go on from a state. Raises `CheckpointError` unless it is one of such a learner."""

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


@dataclass(frozen=True)
class _Whole:
    """The training after its last whole step or test. One takes the place of another at once, so that no Ctrl-C falls in between."""

    steps: int
    tests: int
    counters: dict[str, int]
    comparisons: int
    train_accuracy: float | None
    state: State


class _Training:
    """A learner's way through its steps, from the first or from where a checkpoint was written.

    Whatever it counts is counted over all parts of an interrupted training.
    """

    def __init__(self, learner: Learner, digits: data.Digits, start: Checkpoint | None) -> None:
        self.learner, self._images = learner, len(digits.test_labels)
        self.history, self.resumed = report.History(), list[int]()
        self.whole: _Whole | None = None
        self._start, self._began = start, time.monotonic()
        self._before: dict[str, Any] = {"comparisons": 0, "simulated_cycles": 0, "seconds": 0.0}
        if start is not None:
            start.require(learner.state().arrays)
            self.history = report.History.again(start.header["history"])
            self.resumed = [*start.header["resumed"], start.header["step"]]
            self._before = {name: start.header[name] for name in self._before}
            self.whole = self._whole(State(dict(start.arrays), start.header["more"]))
        self._counted = dict(self.history.counters)

    @property
    def comparisons(self) -> int:
        return self._before["comparisons"] + self.learner.checked.comparisons

    @property
    def simulated_cycles(self) -> int | None:
        now = getattr(self.learner.checked.accelerator.transport, "cycles", None)
        return None if now is None else self._before["simulated_cycles"] + now

    @property
    def seconds(self) -> float:
        return self._before["seconds"] + time.monotonic() - self._began

    def run(self, progress: Any) -> None:
        """All steps and tests that are left, noted in `history` as they are done."""
        learner, history = self.learner, self.history
        every = max(1, learner.steps // _TESTS)
        learner.checked.place = "set-up"
        if self._start is None:
            learner.load()
        else:
            learner.restore(self._start)
        progress.set_description("training")
        before = self._counters()
        while True:
            done = len(history.loss)
            if done and done % every == 0 and done < learner.steps and done - 1 not in {step for step, *_ in history.tests}:
                learner.checked.place = f"test after step {done - 1}"
                subset = min(_TEST_SUBSET, self._images)
                history.tests.append((done - 1, learner.accuracy("test", subset), subset))
                before = self._note(self._counters())
            if done == learner.steps:
                break
            learner.checked.place = f"step {done}"
            loss, right = learner.step(done)
            _see_that_finite(learner, done, loss)
            counters = self._counters()
            measured = learner.measured({name: number - before[name] for name, number in counters.items()})
            history.add(loss, right, measured)
            before = self._note(counters)
            shown = {"loss": f"{loss:.3f}", "accuracy": f"{np.mean(history.accuracy[-10:]):.1%}", **learner.shown(measured)}
            progress.set_postfix(shown, refresh=False)
            progress.update()
        progress.set_description("testing")
        learner.checked.place = "test at the end"
        test = learner.accuracy("test", self._images)
        history.train_accuracy = learner.accuracy("train", self._images)
        history.tests.append((learner.steps - 1, test, self._images))
        self._note(self._counters())

    def cut(self) -> None:
        """Takes back what an interruption left half done."""
        if (whole := self.whole) is not None:
            self.history.cut(whole.steps, whole.tests)
            self.history.counters, self.history.train_accuracy = whole.counters, whole.train_accuracy

    def checkpoint(self, options: Mapping[str, Any]) -> Checkpoint:
        """Of the last whole step; `options` are those of the command."""
        assert self.whole is not None
        learner, whole = self.learner, self.whole
        header = {
            **options,
            "batch": learner.batch,
            "step": whole.steps,
            "steps": learner.steps,
            "recipe": learner.recipe,
            "history": asdict(self.history),
            "comparisons": whole.comparisons,
            "simulated_cycles": self.simulated_cycles or 0,
            "seconds": self.seconds,
            "resumed": self.resumed,
            "more": whole.state.more,
        }
        return Checkpoint(header, whole.state.arrays)

    def _counters(self) -> dict[str, int]:
        return {name: self._counted.get(name, 0) + number for name, number in self.learner.counters().items()}

    def _note(self, counters: dict[str, int]) -> dict[str, int]:
        self.history.counters = counters
        self.whole = self._whole(self.learner.state())
        return counters

    def _whole(self, state: State) -> _Whole:
        h = self.history
        return _Whole(len(h.loss), len(h.tests), h.counters, self.comparisons, h.train_accuracy, state)


def _see_that_finite(learner: Learner, step: int, loss: float) -> None:
    place = f"step {step}"
    if not np.isfinite(loss):
        raise Diverged(place, f"the loss is {loss}")
    for number, weights in enumerate(learner.weights()):
        if wrong := np.count_nonzero(~np.isfinite(weights)):
            raise Diverged(place, f"{wrong} of {weights.size} weights of layer {number} are no longer finite")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a training as Ctrl-C does."""


@contextmanager
def _terminable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def steps_of(start: Checkpoint, steps: int | None) -> int:
    """How many steps a training that is taken up again has in all, with `steps` asked for. Raises `Refusal`."""
    done, before = start.header["step"], start.header["steps"]
    if steps is not None and steps < before:
        raise Refusal("steps", f"the training to resume is one of {before} steps, {done} of them done; it can have more, not fewer")
    if start.header["history"]["train_accuracy"] is not None and steps in (None, before):
        raise Refusal("resume", f"all {done} steps of this training are done; to train on, ask for more of them with STEPS=")
    return steps or before


def reached(transport: str, port: str | None, baud: int, config: Config, waves: bool) -> str | Transport:
    """Of the options, what a driver takes as its transport. Raises `Refusal`, and LinkError if no such board is there."""
    if waves and transport != "simulation":
        raise Refusal("waves", "the functional model has no signals" if transport == "functional" else "a board shows no signals")
    if transport == "serial" and port is None:
        raise Refusal("transport", "name the board's port: PORT=/dev/ttyUSB0, say")
    if transport != "serial" and port is not None:
        raise Refusal("port", "is of TRANSPORT=serial")
    return reach(port, baud, config) if port is not None else transport


def run(
    open_learner: Callable[[data.Digits], Learner],
    *,
    options: Mapping[str, Any],
    output: Path,
    require: float | None,
    start: Checkpoint | None = None,
    samples: data.Digits | None = None,
) -> int:
    """Train, say on the terminal how it went, and leave checkpoint, figure and numbers in the folder `output`.

    Exit status: 0, 1 if a result was wrong, if loss or weights are no longer finite or if the accuracy is below `require`, 2 if the
    accelerator failed, its board was lost or the network does not fit it, 130 after Ctrl-C and 143 after SIGTERM. What had been done by then
    is reported all the same, marked as interrupted, in files of other names.

    Parameters
    ----------
    open_learner : callable
        Of the digits.
    options : dict
        Those of `checkpoint.SETTLED` that the machine has.
    output : Path
    require : float or None
    start : Checkpoint or None
        Of such a learner, to go on from; raises `Refusal` if it is of another.
    samples : Digits or None
        Instead of the digits.
    """
    # What is missing is said before the training, not after it.
    import matplotlib  # noqa: F401
    from tqdm import tqdm

    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(output))
    status, lost = 0, None
    try:
        digits = data.load() if samples is None else samples
        with _terminable(), open_learner(digits) as learner:
            training = _Training(learner, digits, start)
            history = training.history
            with tqdm(total=learner.steps, initial=len(history.loss), desc="loading", unit="step", dynamic_ncols=True) as progress:
                try:
                    training.run(progress)
                except KeyboardInterrupt as interruption:
                    training.cut()
                    status = 143 if isinstance(interruption, _Terminated) else 130
                except LinkError as error:
                    training.cut()
                    status, lost = 2, error
            interrupted = history.train_accuracy is None
            name = f"{learner.task}-{options['machine']}-{options['config']}-{learner.name}" + "-interrupted" * interrupted
            if lost:
                print(f"the board was lost: {lost}", file=sys.stderr)
            stopped = f"interrupted after {len(history.loss)} of {learner.steps} steps"
            if training.whole is None:
                print(stopped, file=sys.stderr)
                return status
            file = output / f"{name}.npz"
            training.checkpoint(options).write(file)
            if interrupted:
                print(f"{stopped}; to go on: RESUME={file}", file=sys.stderr)
            accelerator: Accelerator[Any] = learner.checked.accelerator
            summary = report.Summary(
                machine=learner.machine,
                config=accelerator.config.name,
                transport=options["transport"],
                recipe=learner.recipe,
                network=learner.network,
                parameters=learner.parameters,
                steps=len(history.loss),
                resumed=training.resumed,
                interrupted=interrupted,
                train_accuracy=history.train_accuracy,
                test_accuracy=None if interrupted else history.tests[-1][1],
                test_images=len(digits.test_labels),
                measured=learner.facts(history.counters, history),
                comparisons=training.whole.comparisons if learner.checked.check else None,
                simulated_cycles=training.simulated_cycles,
                seconds=training.seconds,
            )
            waveform = getattr(accelerator.transport, "waves", None)
    except Mismatch as mismatch:
        print(f"the accelerator differs from the golden model: {mismatch}", file=sys.stderr)
        return 1
    except Diverged as diverged:
        print(f"training stopped: {diverged}", file=sys.stderr)
        return 1
    except CheckpointError as error:
        raise Refusal("resume", f"is of another training: {error}") from None
    except (CompileError, RuntimeError, TimeoutError, OverflowError, FileNotFoundError) as error:
        print(f"training stopped: {error}", file=sys.stderr)
        return 2
    if waveform:
        print(f"waveform: {waveform}", file=sys.stderr)
    with doing("drawing the figure"):
        files = [*report.write(output, name, summary, history, learner), file]
    print(f"\n{report.text(summary, history, learner, files)}")
    if interrupted:
        return status
    if require is not None and history.tests[-1][1] < require:
        print(f"the test accuracy is below the required {require:.1%}", file=sys.stderr)
        return 1
    return 0
