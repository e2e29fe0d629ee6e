"""Train a small network to read handwritten digits on Cambricon-Q.

The host loads weights, images and programs; the machine quantizes, multiplies, propagates back and updates its weights. After every
program all of memory is compared with the functional model's.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.compiler.compiler import (
    CompileError,
    Conv2d,
    Dense,
    Layer,
    MaxPool,
    Optimizer,
    Phase,
    Program,
    Region,
    Relu,
    Training,
)
from nibblecore.sim.compiler.estimate import listing
from nibblecore.sim.compiler.schedule import Scheduler
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.refusal import Refusal
from numpy.typing import NDArray

from . import cambriconq_report as report
from . import data

__all__ = ["NETWORKS", "OPTIMIZERS", "Recipe", "Session", "main", "print_listing"]

MEMORY_BYTES = 1 << 21
_TESTS = 5
_TEST_SUBSET = 120


@dataclass(frozen=True, kw_only=True)
class Network:
    """Layers, images a step, the rate of the first step by optimizer, and how many steps: more in 4 bits, where there is time."""

    layers: tuple[Layer, ...]
    batch: int
    rates: dict[str, float]
    steps: int = 250
    narrow_steps: int = 250


NETWORKS = {
    "mlp": Network(
        layers=(Dense(64), Relu(), Dense(data.CLASSES)),
        batch=32,
        narrow_steps=400,
        rates={"sgd": 1.0, "adagrad": 0.07, "rmsprop": 0.008, "adam": 0.015},
    ),
    "cnn": Network(
        layers=(Conv2d(16, 4, stride=2), Relu(), Dense(data.CLASSES)),
        batch=16,
        steps=300,
        narrow_steps=500,
        rates={"sgd": 0.7, "adagrad": 0.12, "rmsprop": 0.015, "adam": 0.03},
    ),
    "pool": Network(
        layers=(Conv2d(8, 3), MaxPool(2), Relu(), Dense(data.CLASSES)),
        batch=16,
        rates={"sgd": 0.7, "adagrad": 0.12, "rmsprop": 0.015, "adam": 0.03},
    ),
}
OPTIMIZERS = ("sgd", "adagrad", "rmsprop", "adam")
_EPSILON = 1e-8
_BETA2 = 0.99
"""Memory of some 100 steps: a training has a few hundred."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained and how.

    Parameters
    ----------
    network, optimizer : str
        Names in `NETWORKS` and `OPTIMIZERS`.
    bits : int
        Of every quantized number: 4, 8, 12 or 16.
    steps, batch : int or None
        How many, and images a step; None for the network's own numbers.
    seed : int
        Of the initial weights and the order of the images.
    """

    network: str = "mlp"
    optimizer: str = "sgd"
    bits: int = 8
    steps: int | None = None
    batch: int | None = None
    seed: int = 0


class Session:
    """The digits, the network of a recipe and its programs on one accelerator.

    Pixels are −1..1, which uses both halves of a signed code. All images lie in memory in a random order, those of the test at the
    end; a batch is a run of neighbours, and each epoch begins a few images further on. The rate falls linearly to 0, but for
    AdaGrad, which lowers it by itself.
    """

    def __init__(self, recipe: Recipe, config: CambriconqConfig, digits: data.Digits, memory_bytes: int = MEMORY_BYTES) -> None:
        self.recipe = recipe
        order = np.random.default_rng([recipe.seed, 1]).permutation(len(digits.train_labels))
        self.train_images, self.test_images = len(digits.train_labels), len(digits.test_labels)
        images = np.concatenate([digits.train_images[order], digits.test_images])
        self._images = images.astype(np.float32) / np.float32(data.PIXEL_MAX / 2) - 1
        self._labels = np.eye(data.CLASSES, dtype=np.float32)[np.concatenate([digits.train_labels[order], digits.test_labels])]
        network = NETWORKS[recipe.network]
        self.batch = recipe.batch or network.batch
        self.steps = recipe.steps or (network.narrow_steps if recipe.bits == 4 else network.steps)
        optimizer = Optimizer(recipe.optimizer, network.rates[recipe.optimizer], beta2=_BETA2, epsilon=_EPSILON)
        self.training = Training(config, data.SHAPE, network.layers, self.batch, len(images), recipe.bits, optimizer, memory_bytes)
        self._scheduler = Scheduler(config)

    @property
    def parameters(self) -> int:
        return sum(rows * cols for rows, cols in self.training.shapes)

    @property
    def regions(self) -> tuple[Region, ...]:
        return self.training.regions

    def load(self, accelerator: CheckedAccelerator) -> None:
        """Clears memory, writes images, labels and initial weights, and sets the machine up."""
        t, rng = self.training, np.random.default_rng([self.recipe.seed, 0])
        accelerator.write_memory(0, bytes(accelerator.memory_size))
        accelerator.write_memory(t.data, self._images.tobytes())
        accelerator.write_memory(t.labels, self._labels.tobytes())
        for (w, _, _), (rows, cols) in zip(t.weights, t.shapes, strict=True):
            initial = rng.standard_normal((rows, cols)) * np.sqrt(2 / cols)
            accelerator.write_memory(w, initial.astype(np.float32).tobytes())
        self._run(accelerator, t.setup())

    def first(self, step: int) -> int:
        """First image of the batch of step 0, 1, …"""
        return step * self.batch % (self.train_images - self.batch + 1)

    def program(self, step: int) -> Program:
        """Of step 0, 1, …"""
        falling = self.recipe.optimizer != "adagrad"
        return self._scheduler.scheduled(self.training.step(step + 1, self.first(step), 1 - step / self.steps if falling else 1.0))

    def step(self, accelerator: CheckedAccelerator, step: int) -> tuple[float, float]:
        """Loss and share of correct answers before step 0, 1, …"""
        return self._run(accelerator, self.program(step))

    def accuracy(self, accelerator: CheckedAccelerator, first: int, count: int) -> float:
        """On some images: 0.. are those to train on, `train_images`.. those to test."""
        return self._run(accelerator, self._scheduler.scheduled(self.training.test(first, count)))[1]

    def _run(self, accelerator: CheckedAccelerator, program: Program) -> tuple[float, float]:
        t, binary = self.training, program.binary()
        if len(binary) > t.program_room:
            raise CompileError(f"a program of {len(binary)} bytes does not fit the {t.program_room} bytes left of memory")
        accelerator.write_memory(t.program_at, binary)
        accelerator.run(t.program_at)
        loss, right = np.frombuffer(accelerator.read_memory(t.results, 8), "<f4")
        return float(loss), float(right)


def train(session: Session, accelerator: CheckedAccelerator, history: report.History, progress: Any) -> None:
    """All steps of the recipe, noted in `history` as they are done."""
    steps = session.steps
    every = max(1, steps // _TESTS)
    before = _phase_cycles(accelerator)
    for step in range(steps):
        accelerator.place = f"step {step}"
        loss, right = session.step(accelerator, step)
        history.loss.append(loss)
        history.accuracy.append(right)
        after = _phase_cycles(accelerator)
        shown = {"loss": f"{loss:.3f}", "accuracy": f"{np.mean(history.accuracy[-10:]):.1%}"}
        if after.any():
            for phase in Phase:
                history.phases.setdefault(phase.name, []).append(int(after[phase] - before[phase]))
            shown["cycles"] = f"{int(after.sum() - before.sum()):,}"
        if (step + 1) % every == 0 and step + 1 < steps:
            accelerator.place = f"test after step {step}"
            history.tests.append(
                (step, session.accuracy(accelerator, session.train_images, min(_TEST_SUBSET, session.test_images)))
            )
        before = _phase_cycles(accelerator)
        progress.set_postfix(shown, refresh=False)
        progress.update()


def _phase_cycles(accelerator: CheckedAccelerator) -> NDArray[np.int64]:
    counters = accelerator.counters()
    return np.array([counters[f"phase{phase}"] for phase in Phase])


def _run(recipe: Recipe, accelerator: CambriconqAccelerator, name: str, check: bool) -> tuple[report.Summary, report.History]:
    from tqdm import tqdm

    began = time.monotonic()
    config = accelerator.config
    session = Session(recipe, config, data.load(), accelerator.memory_size)
    with tqdm(total=session.steps, desc="loading", unit="step", dynamic_ncols=True) as progress:
        used = CheckedAccelerator(accelerator, check, session.regions)
        used.place = "set-up"
        session.load(used)
        history = report.History()
        progress.set_description("training")
        train(session, used, history, progress)
        progress.set_description("testing")
        used.place = "test at the end"
        test = session.accuracy(used, session.train_images, session.test_images)
        trained = session.accuracy(used, 0, session.test_images)
    history.tests.append((session.steps - 1, test))
    phases = {phase: sum(counts) for phase, counts in history.phases.items()}
    summary = report.Summary(
        config=config.name,
        transport=name,
        recipe=asdict(recipe) | {"batch": session.batch, "steps": session.steps},
        network=session.training.description,
        parameters=session.parameters,
        train_accuracy=trained,
        test_accuracy=test,
        test_images=session.test_images,
        instructions=len(session.program(0).instructions),
        cycles=sum(phases.values()) if phases else None,
        phases=phases or None,
        simulated_cycles=accelerator.counters()["cycles"] or None,
        comparisons=used.comparisons if check else None,
        seconds=time.monotonic() - began,
    )
    return summary, history


def print_listing(*, config: CambriconqConfig, bits: int, net: str, opt: str) -> int:
    """``nibblecore listing``."""
    try:
        print(listing(Session(Recipe(network=net, optimizer=opt, bits=bits), config, data.load()).program(0), config), end="")
    except CompileError as error:
        print(f"the network does not fit: {error}", file=sys.stderr)
        return 2
    return 0


def main(
    *,
    config: CambriconqConfig,
    bits: int,
    net: str,
    opt: str,
    steps: int | None,
    seed: int,
    check: bool,
    transport: str,
    waves: bool,
    output: Path,
    require: float | None,
) -> int:
    """Exit status: 0, 1 if a result was wrong or the accuracy too low, 2 if the accelerator failed or the network does not fit it."""
    if waves and transport == "functional":
        raise Refusal("waves", "the functional model has no signals")
    recipe = Recipe(network=net, optimizer=opt, bits=bits, steps=steps or (1 if waves else None), seed=seed)
    options: dict[str, Any] = {"transport": transport, "seed": seed, "waves": waves}
    try:
        with CambriconqAccelerator(config, memory_size=MEMORY_BYTES, **options) as accelerator:
            summary, history = _run(recipe, accelerator, transport, check and transport != "functional")
    except Mismatch as mismatch:
        print(f"the accelerator differs from the functional model: {mismatch}", file=sys.stderr)
        return 1
    except (CompileError, RuntimeError, TimeoutError, FileNotFoundError) as error:
        print(f"training stopped: {error}", file=sys.stderr)
        return 2
    output.mkdir(parents=True, exist_ok=True)
    name = f"digits-cambriconq-{config.name}-{recipe.network}-{recipe.optimizer}-{recipe.bits}bit-seed{recipe.seed}"
    figure, numbers = output / f"{name}.png", output / f"{name}.json"
    report.write_json(numbers, summary, history)
    report.plot(figure, summary, history)
    print(f"\n{report.text(summary)}\n{'written':>20}  {figure}, {numbers}")
    if require is not None and summary.test_accuracy < require:
        print(f"the test accuracy is below the required {require:.1%}", file=sys.stderr)
        return 1
    return 0
