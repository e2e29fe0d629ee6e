"""Train a small network to read handwritten digits on the LT-OAQ accelerator.

Every matrix product, quantization and threshold gradient is a command of the accelerator, by default of its Verilog under
Verilator; each result is compared bit for bit with the golden model.
"""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.host.ltoaq.accelerator import AcceleratorError, LtoaqAccelerator
from nibblecore.sim.host.ltoaq.checked import CheckedAccelerator
from nibblecore.sim.refusal import Refusal

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


def main(
    *,
    config: LtoaqConfig,
    bits: int,
    steps: int | None,
    seed: int,
    check: bool,
    transport: str,
    waves: bool,
    output: Path,
    require: float | None,
) -> int:
    """Exit status: 0, 1 if a result was wrong or the accuracy too low, 2 if the accelerator failed."""
    if waves and transport == "functional":
        raise Refusal("waves", "the functional model has no signals")
    recipe = Recipe(bits=bits, steps=steps or (1 if waves else Recipe().steps), seed=seed)
    try:
        with LtoaqAccelerator(config, transport=transport, waves=waves) as accelerator:
            summary, history = _run(recipe, accelerator, transport, check)
            if file := getattr(accelerator.transport, "waves", None):
                print(f"waveform: {file}", file=sys.stderr)
    except Mismatch as mismatch:
        print(f"the accelerator differs from the golden model: {mismatch}", file=sys.stderr)
        return 1
    except (AcceleratorError, TimeoutError, OverflowError, FileNotFoundError) as error:
        print(f"training stopped: {error}", file=sys.stderr)
        return 2
    output.mkdir(parents=True, exist_ok=True)
    name = f"digits-{config.name}-{recipe.bits}bit-seed{recipe.seed}"
    figure, numbers = output / f"{name}.png", output / f"{name}.json"
    report.write_json(numbers, summary, history)
    report.plot(figure, summary, history)
    print(f"\n{report.text(summary)}\n{'written':>18}  {figure}, {numbers}")
    if require is not None and summary.test_accuracy < require:
        print(f"the test accuracy is below the required {require:.1%}", file=sys.stderr)
        return 1
    return 0
