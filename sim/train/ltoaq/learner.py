"""The digits on LT-OAQ: every matrix product, quantization and threshold gradient is a command of the accelerator."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.checked import CheckedAccelerator
from nibblecore.sim.train import data, report, shell
from nibblecore.sim.train.checkpoint import Checkpoint, of_training
from numpy.typing import NDArray

from .network import Network, Recipe

__all__ = ["LtoaqLearner", "main"]


class LtoaqLearner(shell.Learner):
    """A network of `Recipe` on an accelerator. Batches are drawn anew in every epoch; seeds are those of the recipe.

    Parameters
    ----------
    recipe : Recipe
    accelerator : LtoaqAccelerator
        Closed with the learner.
    digits : Digits
    check : bool
        Compare every result with the golden model.
    """

    machine = "LT-OAQ"
    optimizer = "sgd with momentum"
    compares = "numbers"

    def __init__(self, recipe: Recipe, accelerator: LtoaqAccelerator, digits: data.Digits, check: bool = True) -> None:
        self.checked = CheckedAccelerator(accelerator, check)
        self.net = Network(recipe, self.checked)
        self.steps, self.batch, self.recipe = recipe.steps, recipe.batch, asdict(recipe)
        self.name = f"{recipe.bits}bit-seed{recipe.seed}"
        self.network = "-".join(map(str, (data.PIXELS, *recipe.hidden, data.CLASSES)))
        self.widths = f"8-bit first and last layer, {recipe.bits}-bit between" if recipe.bits != 8 else "8-bit layers"
        self.parameters = sum(layer.weights.size for layer in self.net.layers)
        self._digits = digits
        self._order = data.Batches(len(digits.train_labels), recipe.batch, np.random.default_rng([recipe.seed, 1]))

    def load(self) -> None:
        pass

    def state(self) -> shell.State:
        arrays = {f"{what} of layer {n}": array for n, layer in enumerate(self.net.layers) for what, array in layer.state().items()}
        order = {"order": self._order.order, "place": np.array(self._order.place)}
        return shell.State(arrays | order, {"generator": self._order.rng.bit_generator.state})

    def restore(self, checkpoint: Checkpoint) -> None:
        arrays, header = checkpoint.arrays, checkpoint.header
        for n, layer in enumerate(self.net.layers):
            layer.restore({what: arrays[f"{what} of layer {n}"] for what in layer.state()})
        self.net.done = header["step"]
        self._order.order, self._order.place = arrays["order"], int(arrays["place"])
        self._order.rng.bit_generator.state = header["more"]["generator"]

    def step(self, number: int) -> tuple[float, float]:
        batch = next(self._order)
        return self.net.train(self._digits.train_images[batch], self._digits.train_labels[batch])

    def weights(self) -> list[NDArray[np.float32]]:
        return [layer.weights for layer in self.net.layers]

    def accuracy(self, part: shell.Part, count: int) -> float:
        d = self._digits
        images, labels = (d.test_images, d.test_labels) if part == "test" else (d.train_images, d.train_labels)
        return float(self.net.right(images[:count], labels[:count]).mean())

    def counters(self) -> dict[str, int]:
        return super().counters() | {"multiplications": self.net.multiplications}

    def measured(self, passed: dict[str, int]) -> dict[str, dict[str, float]]:
        busy = {"array": passed["array_cycles"] / passed["cycles"]} if passed["cycles"] else {}
        return {"outliers": self.net.outlier_ratios(), "utilization": busy}

    def shown(self, measured: dict[str, dict[str, float]]) -> dict[str, str]:
        array = {name: f"{share:.0%}" for name, share in measured["utilization"].items()}
        return {"outliers": f"{np.mean(list(measured['outliers'].values())):.1%}", **array}

    def facts(self, counters: dict[str, int], history: report.History) -> dict[str, Any]:
        """Cycles are those in which the accelerator was busy, tests included; None without a clock."""
        cycles = counters["cycles"]
        timed = ("cycles", "array_cycles", "load_stalls", "output_stalls")
        return {
            "outlier_ratios": {kind: float(np.mean(ratios)) for kind, ratios in history.measured["outliers"].items()},
            "multiplications": counters["multiplications"],
            "commands": counters["done"],
            **{name: counters[name] if cycles else None for name in timed},
            "utilization": counters["array_cycles"] / cycles if cycles else None,
        }

    def rows(self, facts: dict[str, Any], steps: int) -> list[tuple[str, str]]:
        lines = [
            ("outliers", ", ".join(f"{kind} {ratio:.1%}" for kind, ratio in facts["outlier_ratios"].items())),
            ("multiplications", f"{facts['multiplications']:,} in {facts['commands']:,} commands"),
        ]
        if cycles := facts["cycles"]:
            stalls = f"operands {facts['load_stalls'] / cycles:.1%}, output {facts['output_stalls'] / cycles:.1%}"
            lines += [
                ("busy cycles", f"{cycles:,}"),
                ("array utilization", f"{facts['utilization']:.1%} of the busy cycles"),
                ("stalls", stalls),
            ]
        return lines

    def plot(self, left: Any, right: Any, history: report.History, facts: dict[str, Any]) -> None:
        for kind, values in history.measured["outliers"].items():
            left.plot(values, label=kind)
        left.legend()
        left.set_title("outlier ratio")
        if facts["cycles"]:
            right.plot(history.measured["utilization"]["array"])
            right.set_ylim(0, 1)
        else:
            report.no_clock(right)
        right.set_title("array utilization")
        for axis in (left, right):
            axis.set_xlabel("step")


def main(
    *,
    config: LtoaqConfig,
    bits: int,
    steps: int | None,
    seed: int,
    check: bool,
    transport: str,
    port: str | None,
    baud: int,
    waves: bool,
    output: Path,
    require: float | None,
    resume: Path | None,
) -> int:
    """``nibblecore train --machine ltoaq``."""
    start = of_training(resume) if resume else None
    if start:
        recipe = Recipe(**start.header["recipe"] | {"steps": shell.steps_of(start, steps)})
    else:
        recipe = Recipe(bits=bits, steps=steps or (1 if waves else Recipe().steps), seed=seed)

    there = shell.reached(transport, port, baud, config, waves)

    def opened(digits: data.Digits) -> LtoaqLearner:
        return LtoaqLearner(recipe, LtoaqAccelerator(config, transport=there, seed=seed, waves=waves), digits, check)

    options = {"machine": "ltoaq", "config": config.name, "bits": bits, "seed": seed, "transport": transport, "check": check}
    return shell.run(opened, options=options, output=output, require=require, start=start)
