"""What a training step of a network costs on Cambricon-Q, by the compiler's estimate, without running it.

    nibblecore estimate --config paper --net plain18 --image 32 --batch 32
    nibblecore estimate --config paper --model mine.py:build --data mine.npz

Memory answers as that of the estimate does (docs/cambriconq-training.md), and is as large as is needed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from json import dumps
from pathlib import Path

from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.compiler.compiler import SGD, AvgPool, CompileError, Conv2d, Dense, Graph, Layer, Relu, Training
from nibblecore.sim.compiler.estimate import estimates, makespan, phases
from nibblecore.sim.compiler.network import Image
from nibblecore.sim.compiler.program import Phase, Program
from nibblecore.sim.compiler.schedule import scheduled
from nibblecore.sim.golden.cambriconq.control.scoreboard import Lane
from nibblecore.sim.machines import full_name
from nibblecore.sim.progress import doing
from nibblecore.sim.refusal import Refusal
from nibblecore.sim.train import data as digits
from nibblecore.sim.train import own
from nibblecore.sim.train.cambriconq.networks import NETWORKS

__all__ = ["NAMES", "Cost", "cost", "main", "multiplications", "plain18"]

NAMES = (*NETWORKS, "plain18")
_BATCH, _IMAGE = 32, 32
_ANY_MEMORY = 1 << 32


@dataclass(frozen=True)
class Cost:
    """Of one step.

    Members
    -------
    cycles, instructions : int
    macs : int
        Multiplications of its products, of numbers of the network's width.
    utilization : float
        Of what the PE array could multiply in as many cycles.
    phases, lanes : dict
        Cycles that count for each phase, and in which each lane is at work, by their names.
    """

    cycles: int
    instructions: int
    macs: int
    utilization: float
    phases: dict[str, int]
    lanes: dict[str, int]


def plain18(image: int, classes: int = 10) -> list[Layer]:
    """The convolutions of ResNet-18 in its form for small images, with neither shortcuts nor batch norms: `image` a multiple of 8."""
    layers: list[Layer] = []
    for channels, stride in [(64, 1)] * 5 + [(128, 2)] + [(128, 1)] * 3 + [(256, 2)] + [(256, 1)] * 3 + [(512, 2)] + [(512, 1)] * 3:
        layers += [Conv2d(channels, 3, stride=stride, padding=1), Relu()]
    return [*layers[:-1], AvgPool(image // 8), Dense(classes)]


def multiplications(training: Training) -> int:
    """Of a step's products: outputs, gradients of the weights, and of the inputs of all layers but the first."""
    total = 0
    for unit in training.units:
        if unit.weight is not None:
            height, width, _ = unit.output.shape
            rows, cols = training.shapes[unit.weight]
            total += height * width * rows * cols * (2 if unit.sources == (None,) else 3)
    return total * training.batch


def cost(training: Training, program: Program) -> Cost:
    """Of a program of a step of a training."""
    config = training.config
    cycles, macs = makespan(program, config), multiplications(training)
    found = estimates(program, config)
    peak = config.rows * config.cols / (training.bits // 4) ** 2
    return Cost(
        cycles=cycles,
        instructions=len(program.instructions),
        macs=macs,
        utilization=macs / peak / cycles,
        phases={phase.name: count for phase, count in phases(program, config).items()},
        lanes={lane.name: sum(each.cycles for each in found if each.lane == lane) for lane in Lane},
    )


def _network(net: str, image: int | None, batch: int | None) -> tuple[Image, Sequence[Layer] | Graph, int]:
    """Inputs, layers and images a step."""
    if net in NETWORKS:
        if image is not None:
            raise Refusal(
                "image", f"{net} reads the digits, {' × '.join(map(str, digits.SHAPE[:2]))}; plain18 takes images of other sizes"
            )
        return digits.SHAPE, NETWORKS[net].layers, batch or NETWORKS[net].batch
    image = image or _IMAGE
    if image % 8:
        raise Refusal("image", f"plain18 halves its images three times: take a multiple of 8, not {image}")
    return (image, image, 3), plain18(image), batch or _BATCH


def _shown(what: str, found: Cost) -> str:
    lines = [
        f"| {what} | | |",
        "| --- | ---: | ---: |",
        f"| cycles | {found.cycles:,} | |",
        f"| multiplications | {found.macs:,} | {found.utilization:.1%} of peak |",
        f"| instructions | {found.instructions:,} | |",
    ]
    lines += [
        f"| {name} | {count:,} | {count / found.cycles:.1%} |" for name, count in found.phases.items() if name != Phase.OTHER.name
    ]
    lines += [f"| lane {name} | {count:,} | {count / found.cycles:.1%} busy |" for name, count in found.lanes.items()]
    return "\n".join(lines)


def _own(model: str, path: Path | None, net: str | None, image: int | None) -> Graph:
    """Of an own network."""
    for name, value in (("net", net), ("image", image)):
        if value is not None:
            raise Refusal(name, "is of the networks that NET= names; with MODEL= there is none to choose")
    return own.graph(model, path)


def main(
    *,
    config: CambriconqConfig,
    net: str | None,
    image: int | None,
    batch: int | None,
    bits: int,
    json: bool,
    model: str | None,
    data: Path | None,
) -> int:
    """``nibblecore estimate``."""
    inputs: int | Image
    layers: Sequence[Layer] | Graph
    if model is None:
        if data is not None:
            raise Refusal("data", "is for an own network: MODEL=mine.py:build")
        option, name = "net", net or "plain18"
        inputs, layers, size = _network(name, image, batch)
    else:
        option, name, layers = "model", model, _own(model, data, net, image)
        inputs, size = layers.inputs, batch or _BATCH
    if config.dram is not None:
        # Rows of a bank are as many as it takes.
        config = replace(config, dram=replace(config.dram, rows=1 << 16))
    with doing(f"compiling a step of {name}"):
        try:
            training = Training(config, inputs, layers, size, size, bits, SGD(0.1), _ANY_MEMORY)
            program = training.step(1, 0)
        except CompileError as error:
            raise Refusal(option, f"{name} does not fit {full_name(config)}: {error}") from None
    with doing("ordering it"):
        program = scheduled(program, config)
        found = cost(training, program)
    given = f"samples of {inputs} values" if isinstance(inputs, int) else f"images of {inputs[0]} × {inputs[1]}"
    if json:
        print(dumps(asdict(found), indent=1))
    else:
        print(_shown(f"{name} on {full_name(config)}, {bits} bits, {size} {given}", found))
    return 0
