"""How well the networks read the digits after training on Cambricon-Q, by width and optimizer, and how long a step takes.

    nibblecore accuracy --net mlp cnn --opt sgd adam --bits 4 8

All steps run on the functional model, and the first of them on the Verilog beside it: from there come the cycles.
"""

import sys
from collections.abc import Sequence

from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.compiler.compiler import CompileError
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.progress import ticking
from nibblecore.sim.refusal import Refusal
from nibblecore.sim.train import data
from nibblecore.sim.train.shell import Diverged
from tqdm import tqdm

from .networks import NETWORKS, OPTIMIZERS
from .session import MEMORY_BYTES, Recipe, Session

__all__ = ["accuracy", "cycles", "main"]

_TIMED_STEP = 2


def accuracy(session: Session, config: CambriconqConfig) -> float:
    """On all test images, after all steps on the functional model. Raises `Diverged`."""
    accelerator = CambriconqAccelerator(config, transport="functional", memory_size=MEMORY_BYTES)
    with CheckedAccelerator(accelerator, check=False) as machine:
        session.load(machine)
        for step in range(session.steps):
            session.step(machine, step)
        return session.accuracy(machine, session.train_images, session.test_images)


def cycles(session: Session, config: CambriconqConfig) -> int:
    """Of the third step. Raises `Mismatch` where memory is not the functional model's after one of the first, and `Diverged`."""
    with CheckedAccelerator(CambriconqAccelerator(config, memory_size=MEMORY_BYTES), regions=session.regions) as machine:
        session.load(machine)
        for step in range(_TIMED_STEP + 1):
            before = machine.counters()["cycles"]
            machine.place = f"step {step}"
            session.step(machine, step)
        return machine.counters()["cycles"] - before


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "| --- | --- " + "| ---: " * (len(columns) - 2) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def main(
    *,
    config: CambriconqConfig,
    net: list[str] | None,
    opt: list[str] | None,
    bits: list[int],
    steps: int | None,
    seed: int,
    count: int,
) -> int:
    """``nibblecore accuracy``."""
    if steps is not None and steps <= _TIMED_STEP:
        raise Refusal("steps", f"must be at least {_TIMED_STEP + 1}: the cycles are those of the third step")
    digits, rows = data.load(), []
    named = [(network, optimizer) for network in net or NETWORKS for optimizer in opt or OPTIMIZERS]
    trainings = [(width, number) for width in bits for number in range(seed, seed + count)]
    with tqdm(total=len(named) * len(trainings), unit="training", disable=None, leave=False) as bar, ticking(bar):
        for network, optimizer in named:
            shares, times = [], []
            for width, number in trainings:
                what = f"{network}, {optimizer}, {width} bits, seed {number}"
                bar.set_postfix_str(what)
                recipe = Recipe(network=network, optimizer=optimizer, bits=width, steps=steps, seed=number)
                try:
                    session = Session(recipe, config, digits)
                    time = f"{cycles(session, config):,}" if number == seed else ""
                    share = f"{accuracy(session, config):.1%}"
                except Diverged:
                    time, share = "–", "diverged"
                except CompileError as error:
                    print(f"{what}: the network does not fit: {error}", file=sys.stderr)
                    return 2
                except Mismatch as mismatch:
                    print(f"{what}: the accelerator differs from the functional model: {mismatch}", file=sys.stderr)
                    return 1
                shares.append(share)
                times += [time] if number == seed else []
                bar.update()
            rows.append([f"`{network}`", optimizer, *shares, *times])
    columns = ["network", "optimizer", *(f"{width} bits{f', seed {number}' if count > 1 else ''}" for width, number in trainings)]
    columns += [f"cycles a step, {width} bits" for width in bits]
    print(
        f"`{config.name}`, seed {seed}: share of {len(digits.test_labels)} test images read right after training on the functional model; "
        "cycles of the third step on the Verilog, where memory equals the functional model's after each.\n"
    )
    print(_table(columns, rows))
    return 0
