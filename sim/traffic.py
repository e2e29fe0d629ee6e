"""What a training step sends over the line between a host and a board: bytes each way, how often the host waits, how long it all takes."""

from collections.abc import Callable, Iterable

from nibblecore.hdl.boards.targets import TARGETS, Target
from nibblecore.hdl.config import CambriconqConfig, LtoaqConfig
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.functional import FunctionalTransport as CambriconqModel
from nibblecore.sim.host.functional_board import FunctionalBoard
from nibblecore.sim.host.link import LinkTransport
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport as LtoaqModel
from nibblecore.sim.host.timed_line import TimedLine
from nibblecore.sim.host.transport import Transport
from nibblecore.sim.machines import Config
from nibblecore.sim.progress import doing
from nibblecore.sim.refusal import Refusal
from nibblecore.sim.train import data
from nibblecore.sim.train.cambriconq import learner as cambriconq
from nibblecore.sim.train.cambriconq import session
from nibblecore.sim.train.ltoaq import learner as ltoaq
from nibblecore.sim.train.ltoaq import network
from nibblecore.sim.train.shell import Learner

__all__ = ["cambriconq_main", "ltoaq_main", "measured"]

_SLOW = 115_200
"""Baud that any serial port has."""


def measured(learner: Learner, line: TimedLine, steps: int) -> dict[str, float]:
    """Bytes, exchanges and, by the rate, seconds of the line of a step, a mean; `line` is what the learner's board is at.

    The first step is left out: what it measures, or sends once, no other does.
    """
    transport = learner.checked.accelerator.transport

    def now() -> dict[str, float]:
        seconds = {f"{rate}": spent for rate, spent in line.seconds.items()}
        return {name: getattr(transport, name) for name in ("sent", "received", "exchanges")} | seconds

    learner.load()
    learner.step(0)
    transport.flush()
    before = now()
    for number in range(1, steps + 1):
        learner.step(number)
    transport.flush()
    return {name: (count - before[name]) / steps for name, count in now().items()}


def _cycles(learner: Learner, steps: int) -> float:
    """In which the machine works for the same steps, a mean."""
    learner.load()
    learner.step(0)
    before = learner.counters()["cycles"]
    for number in range(1, steps + 1):
        learner.step(number)
    return (learner.counters()["cycles"] - before) / steps


def _table(found: Iterable[tuple[str, dict[str, float]]], cycles: float, target: Target) -> str:
    """As Markdown; the machine's time is added to the line's."""
    rates, worked = (_SLOW, target.baud), 1000 * cycles / target.clock_hz
    columns = ["results", "bytes to the board", "bytes back", "exchanges", *(f"ms at {rate:,} baud" for rate in rates)]
    lines = [f"| {' | '.join(columns)} |", "| --- " + "| ---: " * (len(columns) - 1) + "|"]
    for name, step in found:
        times = [f"{1000 * step[f'{rate}'] + worked:,.0f}" for rate in rates]
        cells = [f"{step['sent']:,.0f}", f"{step['received']:,.0f}", f"{step['exchanges']:,.1f}", *times]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"Of it the machine works {cycles:,.0f} cycles, {worked:,.1f} ms at {target.clock_hz / 1e6:g} MHz."]
    return "\n".join(lines)


Opened = Callable[[bool, str | Transport], Learner]
"""Of whether results are compared, and a transport."""


def _print(what: str, steps: int, target: Target, board: Callable[[], FunctionalBoard], opened: Opened) -> int:
    found = []
    for name, check in (("compared", True), ("not compared", False)):
        line = TimedLine(board(), (_SLOW, target.baud))
        with doing(f"{steps} steps of {what}"), opened(check, LinkTransport(line)) as learner:
            found.append((name, measured(learner, line, steps)))
    with doing(f"{steps} steps of {what} on the Verilog"), opened(False, "simulation") as learner:
        cycles = _cycles(learner, steps)
    print(_table(found, cycles, target))
    return 0


def _of(board: str, config: Config) -> tuple[Target, int]:
    """The board, and the bytes of its memory that a training may use. Raises `Refusal` if it can have no such machine."""
    target = TARGETS[board]
    if reason := target.refusal(config):
        raise Refusal("config", reason)
    return target, min(target.memory_bytes, session.MEMORY_BYTES)


def ltoaq_main(*, board: str, config: LtoaqConfig, bits: int, steps: int) -> int:
    """``nibblecore traffic --machine ltoaq``."""
    (target, memory_bytes), digits = _of(board, config), data.load()

    def opened(check: bool, transport: str | Transport) -> Learner:
        accelerator = LtoaqAccelerator(config, transport=transport, memory_size=memory_bytes)
        return ltoaq.LtoaqLearner(network.Recipe(bits=bits), accelerator, digits, check)

    def made() -> FunctionalBoard:
        return FunctionalBoard(config, LtoaqModel(config, memory_bytes))

    return _print(f"{config.name}, {bits} bits", steps, target, made, opened)


def cambriconq_main(*, board: str, config: CambriconqConfig, bits: int, net: str, opt: str, steps: int) -> int:
    """``nibblecore traffic --machine cambriconq``."""
    (target, memory_bytes), digits = _of(board, config), data.load()

    def opened(check: bool, transport: str | Transport) -> Learner:
        recipe = session.Recipe(network=net, optimizer=opt, bits=bits)
        accelerator = CambriconqAccelerator(config, transport=transport, memory_size=memory_bytes)
        return cambriconq.CambriconqLearner(session.Session(recipe, config, digits, memory_bytes), accelerator, check)

    def made() -> FunctionalBoard:
        return FunctionalBoard(config, CambriconqModel(config, memory_bytes))

    return _print(f"{config.name}, {net}, {opt}, {bits} bits", steps, target, made, opened)
