"""Train a small network to read handwritten digits on the LT-OAQ accelerator.

Every matrix product, quantization and threshold gradient is a command of the accelerator, by default of its Verilog under
Verilator; each result is compared bit for bit with the golden model.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.hdl.config import PRESETS, LtoaqConfig
from nibblecore.sim.host.ltoaq.accelerator import Accelerator, AcceleratorError
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport
from nibblecore.sim.host.transport import Transport

from . import data, report
from .check import CheckedAccelerator, Mismatch
from .network import Network, Recipe

__all__ = ["accuracy", "main", "train"]

_TESTS = 5
_TEST_SUBSET = 120
_COUNTER_WRAP = 1 << 32


class _Clock:
    """The accelerator's counters, added up over their wrapping."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._last = accelerator.counters()
        self.total = dict.fromkeys(self._last, 0)

    def lap(self) -> dict[str, int]:
        """What was counted since the last call."""
        now = self._accelerator.counters()
        passed = {name: (now[name] - self._last[name]) % _COUNTER_WRAP for name in now}
        self._last = now
        for name, count in passed.items():
            self.total[name] += count
        return passed


def accuracy(network: Network, images: Any, labels: Any) -> float:
    return float((network.predict(images) == labels).mean())


def train(network: Network, digits: data.Digits, history: report.History, clock: _Clock, progress: Any) -> None:
    """All steps of the network's recipe, noted in `history` as they are done."""
    recipe = network.recipe
    every = max(1, recipe.steps // _TESTS)
    order = data.batches(len(digits.train_labels), recipe.batch, np.random.default_rng([recipe.seed, 1]))
    for step in range(recipe.steps):
        batch = next(order)
        loss, correct = network.train(digits.train_images[batch], digits.train_labels[batch])
        passed = clock.lap()
        history.loss.append(loss)
        history.accuracy.append(correct)
        ratios = network.outlier_ratios()
        for kind, ratio in ratios.items():
            history.outliers.setdefault(kind, []).append(ratio)
        recent, outliers = np.mean(history.accuracy[-10:]), np.mean(list(ratios.values()))
        shown = {"loss": f"{loss:.3f}", "accuracy": f"{recent:.1%}", "outliers": f"{outliers:.1%}"}
        if passed["cycles"]:
            history.utilization.append(passed["array_cycles"] / passed["cycles"])
            shown["array"] = f"{history.utilization[-1]:.0%}"
        if (step + 1) % every == 0 and step + 1 < recipe.steps:
            history.tests.append((step, accuracy(network, digits.test_images[:_TEST_SUBSET], digits.test_labels[:_TEST_SUBSET])))
            clock.lap()
        progress.set_postfix(shown, refresh=False)
        progress.update()


def _run(
    config: LtoaqConfig, recipe: Recipe, transport: Transport, name: str, check: bool
) -> tuple[report.Summary, report.History]:
    from tqdm import tqdm

    began = time.monotonic()
    with tqdm(total=recipe.steps, desc="loading", unit="step", dynamic_ncols=True) as progress:
        digits = data.load()
        accelerator = Accelerator(transport, config)
        checked = CheckedAccelerator(accelerator, check)
        network = Network(recipe, checked)
        history, clock = report.History(), _Clock(accelerator)
        progress.set_description("training")
        train(network, digits, history, clock, progress)
        progress.set_description("testing")
        test = accuracy(network, digits.test_images, digits.test_labels)
        count = len(digits.test_labels)
        trained = accuracy(network, digits.train_images[:count], digits.train_labels[:count])
    clock.lap()
    history.tests.append((recipe.steps - 1, test))
    total = clock.total
    timed = bool(total["cycles"])
    summary = report.Summary(
        config=config.name,
        transport=name,
        recipe=asdict(recipe),
        parameters=sum(layer.weights.size for layer in network.layers),
        train_accuracy=trained,
        test_accuracy=test,
        test_images=count,
        outlier_ratios={kind: float(np.mean(ratios)) for kind, ratios in history.outliers.items()},
        multiplications=network.multiplications,
        commands=total["done"],
        array_cycles=total["array_cycles"],
        cycles=total["cycles"] if timed else None,
        load_stalls=total["load_stalls"] if timed else None,
        output_stalls=total["output_stalls"] if timed else None,
        simulated_cycles=getattr(transport, "cycles", None),
        comparisons=checked.comparisons if check else None,
        seconds=time.monotonic() - began,
    )
    return summary, history


@contextmanager
def _open(name: str, config: LtoaqConfig, waves: bool) -> Iterator[Transport]:
    if name == "functional":
        yield FunctionalTransport(config)
        return
    from nibblecore.sim.host.simulation import Simulation

    with Simulation(config, waves=waves) as simulation:
        yield simulation
        if simulation.waves:
            print(f"waveform: {simulation.waves}", file=sys.stderr)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    defaults = Recipe()
    parser = argparse.ArgumentParser(prog="python -m nibblecore.sim.train.digits", description=__doc__)
    parser.add_argument("--config", choices=sorted(PRESETS), default="tiny", help="size of the accelerator (default: tiny)")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=defaults.bits, help="width of the middle layers (default: 4)")
    parser.add_argument("--steps", type=int, metavar="N", help=f"training steps (default: {defaults.steps}; 1 with --waves)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of weights and batches (default: 0)")
    parser.add_argument(
        "--check", action=argparse.BooleanOptionalAction, default=True, help="compare every result with the golden model"
    )
    parser.add_argument(
        "--transport",
        choices=("simulation", "functional"),
        default="simulation",
        help="the Verilog under Verilator, or the functional model (default: simulation)",
    )
    parser.add_argument("--waves", action="store_true", help="write a waveform below build/waves; large, so take few steps")
    parser.add_argument("--output", type=Path, default=Path("build/train"), metavar="DIR", help="for figure and numbers")
    parser.add_argument("--require", type=float, metavar="SHARE", help="exit with status 1 if the test accuracy is lower")
    arguments = parser.parse_args(argv)
    if arguments.steps is None:
        arguments.steps = 1 if arguments.waves else defaults.steps
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, not {arguments.steps}")
    if arguments.seed < 0:
        parser.error(f"--seed must not be negative, and {arguments.seed} is")
    if arguments.require is not None and not 0 <= arguments.require <= 1:
        parser.error(f"--require is a share of the test images, 0..1, not {arguments.require}")
    if arguments.waves and arguments.transport == "functional":
        parser.error("--waves needs --transport simulation: the functional model has no signals")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, 1 if a result was wrong or the accuracy too low, 2 if the accelerator failed."""
    arguments = _arguments(argv)
    config = PRESETS[arguments.config]
    recipe = Recipe(bits=arguments.bits, steps=arguments.steps, seed=arguments.seed)
    try:
        with _open(arguments.transport, config, arguments.waves) as transport:
            summary, history = _run(config, recipe, transport, arguments.transport, arguments.check)
    except Mismatch as mismatch:
        print(f"the accelerator differs from the golden model: {mismatch}", file=sys.stderr)
        return 1
    except (AcceleratorError, TimeoutError, OverflowError, FileNotFoundError) as error:
        print(f"training stopped: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"{error.name} is missing; install what training needs with: pip install 'nibblecore[train]'", file=sys.stderr)
        return 2
    arguments.output.mkdir(parents=True, exist_ok=True)
    name = f"digits-{config.name}-{recipe.bits}bit-seed{recipe.seed}"
    figure, numbers = arguments.output / f"{name}.png", arguments.output / f"{name}.json"
    report.write_json(numbers, summary, history)
    report.plot(figure, summary, history)
    print(f"\n{report.text(summary)}\n{'written':>18}  {figure}, {numbers}")
    if arguments.require is not None and summary.test_accuracy < arguments.require:
        print(f"the test accuracy is below the required {arguments.require:.1%}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
