"""Train a small network to read handwritten digits on the LT-OAQ accelerator.

Every matrix product, quantization and threshold gradient is a command of the accelerator, by default of its Verilog under
Verilator; each result is compared bit for bit with the golden model.
"""

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.hdl.config import PRESETS
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.host.ltoaq.accelerator import AcceleratorError, LtoaqAccelerator
from nibblecore.sim.host.ltoaq.checked import CheckedAccelerator

from . import data, report
from .network import Network, Recipe

__all__ = ["accuracy", "main", "train"]

_TESTS = 5
_TEST_SUBSET = 120


def _passed(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """What was counted in between."""
    return {name: after[name] - before[name] for name in after}


def accuracy(network: Network, images: Any, labels: Any) -> float:
    return float((network.predict(images) == labels).mean())


def train(network: Network, digits: data.Digits, history: report.History, progress: Any) -> None:
    """All steps of the network's recipe, noted in `history` as they are done."""
    recipe = network.recipe
    every = max(1, recipe.steps // _TESTS)
    order = data.batches(len(digits.train_labels), recipe.batch, np.random.default_rng([recipe.seed, 1]))
    before = network.accelerator.counters()
    for step in range(recipe.steps):
        batch = next(order)
        loss, correct = network.train(digits.train_images[batch], digits.train_labels[batch])
        passed = _passed(network.accelerator.counters(), before)
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
        before = network.accelerator.counters()
        progress.set_postfix(shown, refresh=False)
        progress.update()


def _run(recipe: Recipe, accelerator: LtoaqAccelerator, name: str, check: bool) -> tuple[report.Summary, report.History]:
    from tqdm import tqdm

    began = time.monotonic()
    with tqdm(total=recipe.steps, desc="loading", unit="step", dynamic_ncols=True) as progress:
        digits = data.load()
        checked = CheckedAccelerator(accelerator, check)
        network = Network(recipe, checked)
        history = report.History()
        progress.set_description("training")
        train(network, digits, history, progress)
        progress.set_description("testing")
        test = accuracy(network, digits.test_images, digits.test_labels)
        count = len(digits.test_labels)
        trained = accuracy(network, digits.train_images[:count], digits.train_labels[:count])
    history.tests.append((recipe.steps - 1, test))
    total = accelerator.counters()
    timed = bool(total["cycles"])
    summary = report.Summary(
        config=accelerator.config.name,
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
        simulated_cycles=getattr(accelerator.transport, "cycles", None),
        comparisons=checked.comparisons if check else None,
        seconds=time.monotonic() - began,
    )
    return summary, history


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
        with LtoaqAccelerator(config, transport=arguments.transport, waves=arguments.waves) as accelerator:
            summary, history = _run(recipe, accelerator, arguments.transport, arguments.check)
            if waves := getattr(accelerator.transport, "waves", None):
                print(f"waveform: {waves}", file=sys.stderr)
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
