"""The digits, or own samples, on Cambricon-Q: after every program all of memory is compared with the functional model's."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.compiler.compiler import Phase
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.cambriconq.functional import FunctionalTransport
from nibblecore.sim.refusal import Refusal
from nibblecore.sim.train import own, report, shell
from nibblecore.sim.train.checkpoint import Checkpoint, of_training
from nibblecore.sim.train.data import Digits
from numpy.typing import NDArray

from .session import MEMORY_BYTES, Recipe, Session

__all__ = ["CambriconqLearner", "main"]

_OF_OWN = ("lr", "model", "digest")
"""Of a recipe, where they are said."""

_MEANINGS = {
    Phase.FW: "FW, forward",
    Phase.NG: "NG, neuron gradient",
    Phase.WG: "WG, weight gradient",
    Phase.WU: "WU, weight update",
    Phase.Q: "Q, quantization",
    Phase.OTHER: "other",
}


class CambriconqLearner(shell.Learner):
    """A session on an accelerator.

    Parameters
    ----------
    session : Session
    accelerator : CambriconqAccelerator
        With as much memory as the session was made for. Closed with the learner.
    check : bool
        Compare all of memory with the functional model's after every program, unless that is what runs.
    """

    machine = "Cambricon-Q"
    compares = "bytes of memory"

    def __init__(self, session: Session, accelerator: CambriconqAccelerator, check: bool = True) -> None:
        self.session = session
        if isinstance(accelerator.transport, FunctionalTransport):
            check, self.unchecked = False, "is what runs: nothing to compare it with"
        self._checked = self.checked = CheckedAccelerator(accelerator, check, session.regions)
        recipe = session.recipe
        self.steps, self.batch = session.steps, session.batch
        kept = {name: value for name, value in asdict(recipe).items() if name not in _OF_OWN or value is not None}
        self.recipe = kept | {"batch": session.batch, "steps": session.steps}
        self.name = f"{recipe.network}-{recipe.optimizer}-{recipe.bits}bit-seed{recipe.seed}"
        self.network, self.parameters = session.training.description, session.parameters
        self.widths, self.optimizer = f"{recipe.bits} bits", recipe.optimizer

    def load(self) -> None:
        self.session.load(self._checked)

    def state(self) -> shell.State:
        weights = self.session.training.state(self._checked.read_memory)
        return shell.State({**weights, "order": self.session.order}, {})

    def restore(self, checkpoint: Checkpoint) -> None:
        self.session.restore(self._checked, checkpoint.arrays)

    def step(self, number: int) -> tuple[float, float]:
        return self.session.step(self._checked, number)

    def weights(self) -> list[NDArray[np.float32]]:
        return self.session.weights(self._checked)

    def accuracy(self, part: shell.Part, count: int) -> float:
        return self.session.accuracy(self._checked, 0 if part == "train" else self.session.train_images, count)

    def measured(self, passed: dict[str, int]) -> dict[str, dict[str, float]]:
        """Cycles of the phases; none without a clock."""
        return {"phases": {phase.name: passed[f"phase{phase}"] for phase in Phase} if passed["cycles"] else {}}

    def shown(self, measured: dict[str, dict[str, float]]) -> dict[str, str]:
        cycles = sum(measured["phases"].values())
        return {"cycles": f"{cycles:,}"} if cycles else {}

    def facts(self, counters: dict[str, int], history: report.History) -> dict[str, Any]:
        """Cycles are those in which a training step ran; None without a clock. S is no phase: θ is taken while a block streams in."""
        phases = {phase: sum(cycles) for phase, cycles in history.measured.get("phases", {}).items()}
        return {
            "instructions": len(self.session.program(0).instructions),
            "cycles": sum(phases.values()) or None,
            "phases": phases or None,
        }

    def rows(self, facts: dict[str, Any], steps: int) -> list[tuple[str, str]]:
        lines = [("program", f"{facts['instructions']:,} instructions a step")]
        if cycles := facts["cycles"]:
            lines.append(("cycles of training", f"{cycles:,}, {cycles / steps:,.0f} a step"))
            for phase, name in _MEANINGS.items():
                count = facts["phases"][phase.name]
                lines.append((name, f"{count:,} ({count / cycles:.1%})"))
                if phase == Phase.WU:
                    lines.append(("S, statistic", "0: taken on the fly, within Q"))
        return lines

    def plot(self, left: Any, right: Any, history: report.History, facts: dict[str, Any]) -> None:
        if facts["phases"]:
            names = [phase.name for phase in _MEANINGS]
            phases = history.measured["phases"]
            left.stackplot(range(len(history.loss)), *(phases[name] for name in names), labels=names)
            left.set_ylim(bottom=0)
            left.legend(loc="lower right", ncols=3)
            colours = [f"C{number}" for number in range(len(names))]
            right.barh([name.replace("OTHER", "other") for name in names], [facts["phases"][name] for name in names], color=colours)
            right.invert_yaxis()
        else:
            report.no_clock(left)
            report.no_clock(right)
        left.set_title("cycles of a step")
        left.set_xlabel("step")
        right.set_title("cycles of training (S is taken on the fly)")


def _own(start: Checkpoint | None, model: str | None, path: Path | None, net: str | None, seed: int) -> own.Own | None:
    """An own network with its samples, asked for or to be taken up again. Raises `Refusal`."""
    header: Any = start.header if start else {}
    if start and "model" not in header:
        for name, value in (("model", model), ("data", path)):
            if value is not None:
                raise Refusal(name, "the training to resume is one of the digits")
        return None
    given = model is not None and path is not None
    model, path = model or header.get("model"), path or (Path(header["data"]) if start else None)
    if model is None and path is None:
        return None
    if model is None:
        raise Refusal("data", "is for an own network: MODEL=mine.py:build")
    if path is None:
        raise Refusal("model", "needs samples to train on: DATA=mine.npz")
    if net is not None:
        raise Refusal("net", "is one of the digits' networks; with MODEL= there is none to choose")
    try:
        found = own.load(model, path, seed)
    except Refusal as refusal:
        if given or not start:
            raise
        named = {"model": model, "data": path}[refusal.option]
        raise Refusal("resume", f"its {refusal.option} {named}: {refusal.reason}") from None
    if start and found.digest != header["recipe"]["digest"]:
        raise Refusal("resume", f"is a training on other samples than those of {path}")
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    return found


def main(
    *,
    config: CambriconqConfig,
    bits: int,
    net: str | None,
    opt: str,
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
    model: str | None,
    data: Path | None,
    batch: int | None,
    lr: float | None,
) -> int:
    """``nibblecore train --machine cambriconq``."""
    start = of_training(resume) if resume else None
    mine = _own(start, model, data, None if start else net, seed)
    network = mine.name if mine else net or "mlp"
    if start:
        for name, value in (("batch", batch), ("lr", lr)):
            if value is not None and value != (begun := start.header["recipe"].get(name)):
                raise Refusal(
                    name, f"the training to resume is one with {'the usual rates' if begun is None else begun}; leave it out"
                )
        recipe = Recipe(**start.header["recipe"] | {"steps": shell.steps_of(start, steps)})
    else:
        first = steps or (1 if waves else None)
        known = {"model": mine.model, "digest": mine.digest} if mine else {}
        recipe = Recipe(network=network, optimizer=opt, bits=bits, steps=first, batch=batch, seed=seed, lr=lr, **known)

    there = shell.reached(transport, port, baud, config, waves)

    def opened(digits: Digits) -> CambriconqLearner:
        if (most := len(digits.train_labels)) < (recipe.batch or 1):
            raise Refusal("batch", f"there are {most} samples to train on")
        if isinstance(there, str):
            memory: dict[str, int | None] = {"memory_bytes": None} if mine else {}
        else:
            memory = {"memory_bytes": there.memory_size if mine else min(there.memory_size, MEMORY_BYTES)}
        session = Session(recipe, config, digits, **memory, own=mine)
        size = session.memory_bytes if mine and isinstance(there, str) else MEMORY_BYTES
        accelerator = CambriconqAccelerator(config, transport=there, seed=seed, waves=waves, memory_size=size)
        learner = CambriconqLearner(session, accelerator, check)
        if mine:
            learner.task = Path(mine.data).stem
        return learner

    names = {"machine": "cambriconq", "config": config.name, "bits": bits, "opt": opt, "seed": seed}
    names |= {"model": mine.model, "data": mine.data} if mine else {"net": network}
    options = names | {"transport": transport, "check": check}
    return shell.run(opened, options=options, output=output, require=require, start=start, samples=mine.samples if mine else None)
