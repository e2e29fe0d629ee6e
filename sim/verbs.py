"""The verbs of the command ``nibblecore``: which machine has them, their options, choices and defaults. `VERBS` is the one place for that."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from nibblecore.sim.machines import MACHINES

__all__ = ["VERBS", "Option", "Verb", "listed"]

Choices = Callable[[], Iterable[Any]]


def listed(values: Iterable[Any], last: str = ", ") -> str:
    """Words in a sentence: ``a, b or c`` with `last` = ``" or "``."""
    words = [str(value) for value in values]
    return ", ".join(words[:-1]) + last + words[-1] if len(words) > 1 else "".join(words)


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a verb.

    Parameters
    ----------
    name : str
        Of the keyword argument: ``"memory_size"`` is typed ``--memory-size`` or ``MEMORY_SIZE=``.
    help : str
        What it means, without choices and default.
    kind : callable or None
        The value of a text; raises ValueError with the reason. None for choices, and for a flag.
    choices : dict
        Of each machine that has the option, where there are choices: a function that returns them.
    noun : str
        What the choices are.
    default : value, or dict of values by machine
    unset : str, or dict of str by machine
        What the help says instead of a default of None.
    metavar : str
    short : str
        As ``"-o"``.
    many : str
        ``"+"`` or ``"*"``: so many values, a list.
    positional : bool
        Typed without its name.
    only : tuple of str
        The machines that have it, if not all do and there are no choices.
    needed : str
        What to say where it must be given and is not.
    settles : str
        Where its value says what other options are: ``"module:function"`` below ``nibblecore``, of the value, which returns their texts.
    """

    name: str
    help: str
    kind: Callable[[str], Any] | None = None
    choices: Mapping[str, Choices] | None = None
    noun: str = ""
    default: Any = None
    unset: str | Mapping[str, str] = ""
    metavar: str = ""
    short: str = ""
    many: str = ""
    positional: bool = False
    only: tuple[str, ...] = ()
    needed: str = ""
    settles: str = ""

    @property
    def flag(self) -> bool:
        return self.kind is None and self.choices is None

    @property
    def switch(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return self.name.upper()

    def on(self, machine: str) -> bool:
        """Whether the machine has it; "" where a verb is of no machine."""
        return machine in self.choices if self.choices is not None else not self.only or machine in self.only

    def offered(self, machine: str) -> list[Any]:
        return list(self.choices[machine]()) if self.choices else []

    def default_on(self, machine: str) -> Any:
        return self.default.get(machine) if isinstance(self.default, Mapping) else self.default

    def value(self, text: str, machine: str) -> Any:
        """Raises ValueError with the reason."""
        if self.flag:
            if text not in ("0", "1"):
                raise ValueError("must be 0 or 1")
            return text == "1"
        if self.kind:
            return self.kind(text)
        for choice in self.offered(machine):
            if str(choice) == text:
                return choice
        has, there = (f"{machine} has", "it has") if machine else ("there is", "there are")
        raise ValueError(f"{has} no such {self.noun}; {there} {listed(self.offered(machine))}")


@dataclass(frozen=True, kw_only=True)
class Verb:
    """What the command does.

    Parameters
    ----------
    name, help : str
    run : str, or dict of str by machine
        ``"module:function"`` below ``nibblecore``.
    options : tuple of Option
    machines : tuple of str
        That have it, the default first; empty where it is not about one of them.
    more : str
        What its own help says besides.
    extra : str
        Of the package's extras, the one that holds what it needs beyond the bare package.
    """

    name: str
    help: str
    run: str | Mapping[str, str]
    options: tuple[Option, ...]
    machines: tuple[str, ...] = ()
    more: str = ""
    extra: str = "train"

    @property
    def known(self) -> dict[str, Option]:
        """All options by name, ``--machine`` among them."""
        machine = Option(name="machine", help="accelerator", choices=dict.fromkeys(MACHINES, lambda: self.machines), noun="machine")
        return {option.name: option for option in ((machine,) if self.machines else ()) + self.options}


# Kinds of values.


def _whole(least: int = 0, most: int | None = None, multiple: int = 1) -> Callable[[str], int]:
    def kind(text: str) -> int:
        try:
            value = int(text, 0)
        except ValueError:
            raise ValueError("is no whole number") from None
        if value < least:
            raise ValueError(f"must be at least {least}" if least else "must not be negative")
        if most is not None and value > most:
            raise ValueError(f"must be at most {most}")
        if value % multiple:
            raise ValueError(f"must be a multiple of {multiple}")
        return value

    return kind


def _share(below_one: bool = False) -> Callable[[str], float]:
    def kind(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("is no number") from None
        if not 0 <= value <= 1 or (below_one and value == 1):
            raise ValueError("must be in 0..1" + (", 1 excluded" if below_one else ""))
        return value

    return kind


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is no number") from None
    if not 0 < value < 1e30:
        raise ValueError("must be above 0, and finite")
    return value


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", text, re.ASCII):
        raise ValueError("no name of a module can begin so; take letters, digits and _, no digit first")
    return text


_SEED_MAX = (1 << 64) - 1


# Options that several verbs have.


def _config(default: str, *machines: str) -> Option:
    presets: dict[str, Choices] = {machine: MACHINES[machine].keys for machine in machines}
    return Option(name="config", help="size of the machine", choices=presets, noun="configuration", default=default, metavar="NAME")


def _seed(help: str, default: int) -> Option:
    return Option(name="seed", help=help, kind=_whole(0, _SEED_MAX), default=default, metavar="N")


def _folder(help: str, default: str) -> Option:
    return Option(name="output", help=help, kind=Path, default=Path(default), metavar="FOLDER")


def _program(help: str, example: str) -> Option:
    return Option(name="file", help=help, kind=Path, positional=True, needed=f"name the program: {example}, or FILE={example}")


_WAVES = Option(name="waves", help="write a waveform below build/waves, or the cache (NIBBLECORE_CACHE)", default=False)
_LIBERTY = Option(
    name="liberty", help="cell library, .lib or .lib.gz, for areas in µm²", kind=Path, unset="count generic gates", metavar="FILE"
)
_MARKDOWN = Option(name="markdown", help="also write the table here", kind=Path, metavar="FILE")
_ARRAY = (
    Option(name="rows", help="PEs of a column", kind=_whole(1, 128), default=32, metavar="N"),
    Option(
        name="cols",
        help="PEs of a row, two to a cluster of the fused scheme",
        kind=_whole(2, 128, multiple=2),
        default=32,
        metavar="N",
    ),
    Option(name="elements", help="K of a pass", kind=_whole(8, 1 << 16, multiple=8), default=576, metavar="N"),
    Option(name="passes", help="passes, one behind the other", kind=_whole(2, 1 << 16), default=9, metavar="N"),
    _seed("of codes and outliers", 0),
)
_RATIOS = Option(
    name="ratios",
    help="shares of outliers among the elements",
    kind=_share(),
    many="+",
    default=[0.0, 0.01, 0.03, 0.05, 0.1, 0.3],
    metavar="SHARE",
)


def _depths(*default: int) -> Option:
    return Option(
        name="depths", help="beats in a fused cluster's FIFOs", kind=_whole(2, 64), many="+", default=list(default), metavar="N"
    )


def _of_training(name: str) -> Choices:
    return lambda: getattr(import_module("nibblecore.sim.train.cambriconq.networks"), name)


_NETWORK = (
    Option(
        name="bits",
        help="width of the numbers, on ltoaq of the layers between the first and the last",
        choices={"ltoaq": lambda: (4, 8), "cambriconq": lambda: (4, 8, 12, 16)},
        noun="width",
        default={"ltoaq": 4, "cambriconq": 8},
        metavar="N",
    ),
    Option(
        name="net",
        help="network",
        choices={"cambriconq": _of_training("NETWORKS")},
        noun="network",
        default={"cambriconq": "mlp"},
        metavar="NAME",
    ),
    Option(
        name="opt",
        help="optimizer",
        choices={"cambriconq": _of_training("OPTIMIZERS")},
        noun="optimizer",
        default={"cambriconq": "sgd"},
        metavar="NAME",
    ),
)

_PORT = (
    Option(name="port", help="serial port of a board, as /dev/ttyUSB0", kind=str, metavar="PATH"),
    Option(
        name="baud", help="rate of the port, that which the board was built with", kind=_whole(1), default=3_000_000, metavar="N"
    ),
)


def _boards() -> Iterable[str]:
    return import_module("nibblecore.hdl.boards.targets").TARGETS


_BOARD = Option(name="board", help="board", choices=dict.fromkeys(MACHINES, _boards), noun="board", default="ulx3s", metavar="NAME")

_BOTH = ("ltoaq", "cambriconq")
_LTOAQ = ("ltoaq",)
_CAMBRICONQ = ("cambriconq",)

_OWN = (
    Option(
        name="model",
        help="an own network instead: a file's function that returns a Graph, a list of layers or a module of PyTorch, or a file of ONNX",
        kind=str,
        only=_CAMBRICONQ,
        metavar="FILE.py:FUNCTION",
    ),
    Option(name="data", help="its samples: .npz with x, y and maybe x_test, y_test", kind=Path, only=_CAMBRICONQ, metavar="FILE"),
)
_BATCH = Option(
    name="batch", help="images a step", kind=_whole(1, 4096), only=_CAMBRICONQ, unset="that of the network, 32", metavar="N"
)

VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            name="verilog",
            help="write a machine's Verilog and lint it",
            more="Beside the .v lie a .json with ports, configuration and tool versions, a .h for C, a .rdl for SystemRDL and a .core for "
            "FuseSoC (docs/integration.md).",
            machines=_BOTH,
            run="sim.verilog:main",
            options=(
                _config("tiny", *_BOTH),
                _folder("where to", "build/verilog"),
                Option(
                    name="prefix",
                    help="before the name of every module and file, so that several machines go into one design",
                    kind=_prefix,
                    default="",
                    metavar="NAME_",
                ),
                Option(
                    name="id_bits",
                    help="width of the IDs of m_axi, all 0; no ID ports if 0",
                    kind=_whole(0, 32),
                    default=0,
                    metavar="N",
                ),
            ),
        ),
        Verb(
            name="train",
            help="train a network on the simulated machine, every result compared with the golden model",
            more="Status 1: a result was wrong, or the accuracy too low; 2: the machine failed, or the network does not fit it.",
            machines=_BOTH,
            run={machine: f"sim.train.{machine}.learner:main" for machine in _BOTH},
            options=(
                _config("tiny", *_BOTH),
                _NETWORK[0],
                # Without a default a network that was named is told from one that was not.
                replace(_NETWORK[1], default=None, unset={"cambriconq": "mlp"}),
                _NETWORK[2],
                *_OWN,
                replace(_BATCH, unset="that of the network, of an own one 32"),
                Option(
                    name="lr",
                    help="learning rate of the first step",
                    kind=_rate,
                    only=_CAMBRICONQ,
                    unset="that of network and optimizer",
                    metavar="RATE",
                ),
                Option(
                    name="steps",
                    help="training steps; with a waveform 1",
                    kind=_whole(1),
                    unset={"ltoaq": "200", "cambriconq": "as many as the network needs"},
                    metavar="N",
                ),
                _seed("of the initial weights and the order of the images", 0),
                _WAVES,
                Option(name="check", help="compare every result with the golden model", default=True),
                Option(
                    name="transport",
                    help="the Verilog under Verilator, the functional model alone, or a board at a serial port",
                    choices={machine: lambda: ("simulation", "functional", "serial") for machine in _BOTH},
                    noun="transport",
                    default="simulation",
                    metavar="NAME",
                ),
                *_PORT,
                _folder("for figure, numbers and checkpoint", "build/train"),
                Option(
                    name="resume",
                    help="go on from the checkpoint of a training, with its options; more STEPS train on",
                    kind=Path,
                    metavar="FILE",
                    settles="sim.train.checkpoint:settled",
                ),
                Option(name="require", help="end with status 1 if the test accuracy is lower", kind=_share(), metavar="SHARE"),
            ),
        ),
        Verb(
            name="accuracy",
            help="train networks in several widths, by every optimizer or from several seeds; print test accuracies and cycles",
            more="Trains on the functional model, and takes the cycles from the Verilog: on cambriconq of the first steps, on ltoaq of "
            "the first seed's training.",
            machines=("cambriconq", "ltoaq"),
            run={machine: f"sim.train.{machine}.accuracies:main" for machine in _BOTH},
            options=(
                _config("tiny", *_BOTH),
                replace(_NETWORK[1], help="networks", many="+", default=None, unset="all"),
                replace(_NETWORK[2], help="optimizers", many="+", default=None, unset="all"),
                replace(
                    _NETWORK[0],
                    help="widths of the numbers, on ltoaq of the layers between the first and the last",
                    many="+",
                    default={"ltoaq": [4, 8], "cambriconq": [4, 8, 16]},
                ),
                Option(
                    name="steps",
                    help="training steps",
                    kind=_whole(1),
                    unset={"ltoaq": "200", "cambriconq": "as many as the network needs"},
                    metavar="N",
                ),
                _seed("of the initial weights and the order of the images", 0),
                Option(
                    name="count",
                    help="trainings from this seed and those that follow, a column each",
                    kind=_whole(1),
                    default={"ltoaq": 10, "cambriconq": 1},
                    metavar="N",
                ),
            ),
        ),
        Verb(
            name="virtual-board",
            help="run a board's design in simulation, behind a pseudo-terminal that a driver opens like a board's port",
            more="Ctrl-C ends it.",
            machines=_BOTH,
            run="sim.host.virtual_board:main",
            options=(
                _BOARD,
                _config("tiny", *_BOTH),
                Option(
                    name="memory_bytes",
                    help="instead of the board's memory",
                    kind=_whole(4096, 1 << 28, multiple=4096),
                    unset="the board's",
                    metavar="BYTES",
                ),
                Option(
                    name="wires",
                    help="have bytes go over two wires bit by bit, at the board's clock and rate: several times slower",
                    default=False,
                ),
                _seed("of what registers hold at first", 0),
            ),
        ),
        Verb(
            name="bitstream",
            help="make a board's bitstream with Yosys, nextpnr and ecppack, and report its use and its longest path",
            more="Takes minutes. What was synthesized, placed and routed before is not again. Status 1: no seed meets the clock.",
            machines=_BOTH,
            run="sim.boards.bitstream:main",
            options=(
                _BOARD,
                _config("tiny", *_BOTH),
                _seed("of the placer, the first to be tried", 1),
                Option(
                    name="tries", help="seeds, one after the other until the clock is met", kind=_whole(1), default=4, metavar="N"
                ),
                _folder("where to", "build/bitstreams"),
            ),
            extra="boards",
        ),
        Verb(
            name="board-project",
            help="write a board's design, constraints and scripts for the tools of its vendor",
            machines=_BOTH,
            run="sim.boards.project:main",
            options=(_BOARD, _config("tiny", *_BOTH), _folder("where to", "build/board-projects")),
            extra="boards",
        ),
        Verb(
            name="flash",
            help="load a board's bitstream into the board with openFPGALoader",
            machines=_BOTH,
            run="sim.boards.flash:main",
            options=(
                _BOARD,
                _config("tiny", *_BOTH),
                Option(name="keep", help="write it to the board's flash, so that it is there after power was off", default=False),
                _folder("where it is", "build/bitstreams"),
            ),
            extra="",
        ),
        Verb(
            name="boards",
            help="list the boards, and what was last built for each",
            run="sim.boards.table:main",
            options=(
                _folder("where bitstreams are", "build/bitstreams"),
                Option(name="built", help="only what was built, as a table: use of the device and clock", default=False),
            ),
            extra="",
        ),
        Verb(
            name="bandwidth",
            help="what a board's SDRAM carries, by the order of the accesses, beside a model of the chip that keeps its times",
            run="sim.measure.bandwidth:main",
            options=(replace(_BOARD, choices={"": _boards}, default="ulx3s_sdram"),),
            extra="",
        ),
        Verb(
            name="selftest",
            help="whether a board at a serial port works: link, registers, memory, random commands, a line each",
            more="Status 1: a test failed, or there is no such board.",
            machines=_BOTH,
            run="sim.selftest:main",
            options=(
                _config("tiny", *_BOTH),
                replace(_PORT[0], needed="name the board's port: --port /dev/ttyUSB0, or PORT=/dev/ttyUSB0"),
                _PORT[1],
                Option(
                    name="count",
                    help="commands of ltoaq, steps of training on cambriconq",
                    kind=_whole(1),
                    default={"ltoaq": 20, "cambriconq": 2},
                    metavar="N",
                ),
                _seed("of what is random", 1),
            ),
        ),
        Verb(
            name="traffic",
            help="what a training step sends over the line to a board: bytes each way, how often the host waits, how long it takes",
            machines=_BOTH,
            run={machine: f"sim.traffic:{machine}_main" for machine in _BOTH},
            options=(
                _BOARD,
                _config("tiny", *_BOTH),
                *_NETWORK,
                Option(
                    name="steps",
                    help="so many behind the first, of which it prints the mean",
                    kind=_whole(1),
                    default=3,
                    metavar="N",
                ),
            ),
        ),
        Verb(
            name="listing",
            help="print the program of a training step with a cycle estimate",
            machines=_CAMBRICONQ,
            run="sim.train.cambriconq.session:print_listing",
            options=(_config("tiny", *_CAMBRICONQ), *_NETWORK),
        ),
        Verb(
            name="estimate",
            help="what a training step costs, by phase and lane, without running it",
            machines=_CAMBRICONQ,
            run="sim.train.cambriconq.estimate:main",
            extra="",
            options=(
                _config("paper", *_CAMBRICONQ),
                Option(
                    name="net",
                    help="network: one of make train's, or plain18, ResNet-18's convolutions without shortcuts and batch norms",
                    choices={"cambriconq": lambda: import_module("nibblecore.sim.train.cambriconq.estimate").NAMES},
                    noun="network",
                    unset="plain18",
                    metavar="NAME",
                ),
                _OWN[0],
                replace(_OWN[1], help="samples that say what it takes, where it does not itself: .npz with x and y"),
                Option(
                    name="image", help="edge of plain18's images, a multiple of 8", kind=_whole(8, 1024), unset="32", metavar="N"
                ),
                _BATCH,
                next(option for option in _NETWORK if option.name == "bits"),
                Option(name="json", help="print JSON", default=False),
            ),
        ),
        Verb(
            name="regress",
            help="random commands or programs on the Verilog against the golden model",
            machines=_BOTH,
            run={"ltoaq": "sim.regress.ltoaq:main", "cambriconq": "sim.regress.cambriconq:main"},
            options=(
                _config("tiny", *_BOTH),
                Option(
                    name="count",
                    help="commands or programs",
                    kind=_whole(1),
                    default={"ltoaq": 1300, "cambriconq": 1000},
                    metavar="N",
                ),
                _seed("of the first; the others follow", 1),
                Option(name="only", help="run the one of this seed", kind=_whole(0, _SEED_MAX), metavar="SEED"),
                _WAVES,
            ),
        ),
        Verb(
            name="area",
            help="synthesize the blocks and the machine; print cells, area and path",
            machines=_BOTH,
            run="sim.measure.area:main",
            options=(
                replace(_config("tiny", *_BOTH), help="sizes of the machine, a row each", many="+", default=["tiny"]),
                Option(
                    name="device",
                    help="count an FPGA's cells instead, of what a board has",
                    choices={machine: lambda: ("ecp5",) for machine in _BOTH},
                    noun="device",
                    unset="count a chip's",
                    metavar="NAME",
                ),
                _LIBERTY,
                Option(name="block", help="only these", kind=str, many="+", unset="all of the machine", metavar="NAME"),
                Option(
                    name="recipe",
                    help="scripts of ABC, a row each",
                    choices={machine: lambda: ("standard", "compact", "fast") for machine in _BOTH},
                    noun="recipe",
                    many="+",
                    default=["standard"],
                    metavar="NAME",
                ),
                Option(
                    name="node",
                    help="feature size in nm, to compare with the paper",
                    kind=_whole(1, 1000),
                    unset="told by the library's name",
                    metavar="NM",
                ),
                _MARKDOWN,
            ),
        ),
        Verb(
            name="compare",
            help="wide against fused scheme: utilization, area, path, area × cycles",
            machines=_LTOAQ,
            run="sim.measure.compare:main",
            options=(
                *_ARRAY,
                _RATIOS,
                Option(
                    name="lanes",
                    help="lanes of a PE of the wide scheme, 4 or 8, a column each",
                    kind=_whole(4, 8, multiple=4),
                    many="+",
                    default=[4],
                    metavar="N",
                ),
                _depths(4),
                Option(
                    name="modelled",
                    help="depths that the cycle-stepped model alone gives",
                    kind=_whole(2, 64),
                    many="*",
                    default=[3],
                    metavar="N",
                ),
                _LIBERTY,
                _MARKDOWN,
            ),
        ),
        Verb(
            name="utilization",
            help="share of its peak that the fused array reaches, beside model and bound",
            machines=_LTOAQ,
            run="sim.measure.utilization:main",
            options=(
                *_ARRAY,
                _RATIOS,
                _depths(2, 4),
                Option(
                    name="word_lanes",
                    help="of four lanes of a word, so many can hold outliers",
                    kind=_whole(1, 4),
                    default=4,
                    metavar="N",
                ),
            ),
        ),
        Verb(
            name="endtoend",
            help="matrix products from their descriptors to the quantized results: cycles, stalls, share of peak",
            machines=_LTOAQ,
            run="sim.measure.endtoend:main",
            options=(
                _config("paper", *_LTOAQ),
                Option(name="size", help="M = N = K", kind=_whole(1, 1024), default=256, metavar="N"),
                Option(
                    name="latency",
                    help="cycles from a read address to its first beat",
                    kind=_whole(1, 10_000),
                    default=20,
                    metavar="N",
                ),
                _RATIOS,
            ),
        ),
        Verb(
            name="product",
            help="large matrix products: cycles, and how busy the PE array is",
            machines=_CAMBRICONQ,
            run="sim.measure.product:main",
            options=(
                _config("paper", *_CAMBRICONQ),
                Option(name="size", help="edge of the matrices", kind=_whole(1, 4096), default=512, metavar="N"),
                Option(
                    name="bits",
                    help="of both operands, a row each",
                    choices={"cambriconq": lambda: (4, 8, 16)},
                    noun="width",
                    many="+",
                    default=[8],
                    metavar="N",
                ),
                _seed("of the operands", 1),
            ),
        ),
        Verb(
            name="asm",
            help="assemble a program",
            machines=_CAMBRICONQ,
            run="sim.compiler.asm:assemble_file",
            options=(
                _program("source", "program.s"),
                Option(name="output", short="-o", help="binary", kind=Path, unset="the source's name with .bin", metavar="FILE"),
            ),
            extra="",
        ),
        Verb(
            name="disasm",
            help="print the source of a program",
            machines=_CAMBRICONQ,
            run="sim.compiler.asm:disassemble_file",
            options=(
                _program("binary", "program.bin"),
                Option(name="output", short="-o", help="source", kind=Path, unset="the terminal", metavar="FILE"),
            ),
            extra="",
        ),
        Verb(
            name="run",
            help="run a program on the Verilog, beside the functional model",
            more="The image lies at address 0, the program behind it; the rest of memory is 0. After the run all of memory is compared with "
            "the functional model's. Status 1: they differ, or the program was stopped.",
            machines=_CAMBRICONQ,
            run="sim.run:main",
            options=(
                _program("source (.s) or binary", "program.s"),
                _config("tiny", *_CAMBRICONQ),
                Option(
                    name="memory", help="what memory holds before, from address 0 on", kind=Path, unset="nothing", metavar="IMAGE"
                ),
                Option(
                    name="output", short="-o", help="for what memory holds after", kind=Path, unset="not written", metavar="IMAGE"
                ),
                Option(
                    name="entry",
                    help="address of the program",
                    kind=_whole(0, (1 << 32) - 64, multiple=64),
                    unset="the first free multiple of 64",
                    metavar="ADDRESS",
                ),
                Option(
                    name="memory_size",
                    help="bytes, a multiple of 64",
                    kind=_whole(64, 1 << 32, multiple=64),
                    default=1 << 20,
                    metavar="BYTES",
                ),
                Option(
                    name="stall",
                    help="share of cycles in which the bus waits, below 1",
                    kind=_share(below_one=True),
                    default=0.0,
                    metavar="SHARE",
                ),
                _seed("of the stalls and of what registers hold at first", 0),
                _WAVES,
            ),
        ),
        Verb(
            name="formal",
            help="run the formal proofs",
            run="formal.runner:main",
            options=(
                Option(
                    name="names",
                    help="only proofs whose name begins with one of these",
                    kind=str,
                    many="*",
                    default=[],
                    unset="all",
                    positional=True,
                ),
                Option(name="list", help="print names, engines and reasons; run nothing", default=False),
                Option(name="quick", help="leave out proofs marked slow", default=False),
            ),
            extra="test",
        ),
        Verb(
            name="mutants",
            help="seed faults in the blocks; see whether bench, proof or the machine's tests find them",
            more="Results are kept in build/mutants, or the cache (NIBBLECORE_CACHE): a second run goes on where the first ended. Status 1: "
            "less than 95 % of the faults that change anything were found (docs/verification.md).",
            machines=_BOTH,
            run={machine: f"sim.mutants:{machine}" for machine in _BOTH},
            options=(
                Option(name="block", help="only these", kind=str, many="+", unset="all of the machine", metavar="NAME"),
                Option(name="count", help="faults of a block", kind=_whole(1), default=10, metavar="N"),
                _seed("of the draw", 1),
                Option(
                    name="mutant",
                    help="the fault of this number alone, on the bench of the one block named",
                    kind=_whole(1),
                    metavar="N",
                ),
            ),
            extra="test",
        ),
        Verb(
            name="figures",
            help="measure again what the manual says was measured, and write it there",
            more="Takes hours; a part is written as soon as its command has ended (docs/measurements.md).",
            run="sim.figures:main",
            options=(
                Option(
                    name="only", help="only parts with this in their page's name or command", kind=str, unset="all", metavar="TEXT"
                ),
                _LIBERTY,
                Option(name="list", help="print the commands; run nothing", default=False),
            ),
            extra="",
        ),
        Verb(
            name="docs",
            help="bring the parts of the manual that come from code up to date",
            run="sim.docs:main",
            options=(Option(name="check", help="change nothing; end with status 1 if a page is out of step", default=False),),
            extra="",
        ),
    )
}
