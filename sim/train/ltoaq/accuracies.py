"""How well the network reads the digits after training on LT-OAQ, by width and seed, and how long the array takes for it.

    nibblecore accuracy --machine ltoaq --bits 4 --count 2

The first seed trains on the Verilog: from there come the cycles. The others train on the functional model, which computes the same bits.
"""

import sys
from typing import Any

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.progress import ticking
from nibblecore.sim.train import data
from nibblecore.sim.train.shell import Diverged
from tqdm import tqdm

from .learner import LtoaqLearner
from .network import Recipe

__all__ = ["main", "trained"]


def trained(
    recipe: Recipe, config: LtoaqConfig, digits: data.Digits, transport: str, bar: Any = None
) -> tuple[float, dict[str, int]]:
    """Share of all test images read right after all steps, and what the steps counted. `bar` is told each step. Raises `Diverged`."""
    accelerator = LtoaqAccelerator(config, transport=transport, seed=recipe.seed)
    with LtoaqLearner(recipe, accelerator, digits, check=False) as learner:
        learner.load()
        before = learner.counters()
        for step in range(learner.steps):
            learner.step(step)
            if bar is not None:
                bar.update()
        passed = {name: count - before[name] for name, count in learner.counters().items()}
        return learner.accuracy("test", len(digits.test_labels)), passed


def main(*, config: LtoaqConfig, bits: list[int], steps: int | None, seed: int, count: int) -> int:
    """``nibblecore accuracy --machine ltoaq``."""
    digits, rows = data.load(), []
    seeds = range(seed, seed + count)
    length = steps or Recipe().steps
    with tqdm(total=length * count * len(bits), unit="step", disable=None, leave=False) as bar, ticking(bar):
        for width in bits:
            shares: list[float] = []
            cycles: dict[str, int] = {}
            for number in seeds:
                bar.set_postfix_str(f"{width} bits, seed {number}")
                recipe = Recipe(bits=width, steps=length, seed=number)
                try:
                    share, passed = trained(recipe, config, digits, "functional" if cycles else "simulation", bar)
                except Diverged as diverged:
                    print(f"{width} bits, seed {number}: {diverged}", file=sys.stderr)
                    return 1
                cycles = cycles or passed
                shares.append(share)
            busy = f"{cycles['cycles']:,} | {cycles['array_cycles'] / cycles['cycles']:.1%}"
            rows.append(f"| {width} bits | {' | '.join(f'{share:.1%}' for share in shares)} | {np.mean(shares):.1%} | {busy} |")
    print(
        f"`{config.name}`: share of {len(digits.test_labels)} test images read right after {length} steps; busy cycles of the steps, "
        f"and those in which the array took a word, on the Verilog with seed {seed}.\n"
    )
    columns = ["middle layer", *(f"seed {number}" for number in seeds), "mean", "busy cycles", "array busy"]
    print(f"| {' | '.join(columns)} |\n| --- {'| ---: ' * (len(columns) - 1)}|")
    print("\n".join(rows))
    return 0
