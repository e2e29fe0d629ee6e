"""What a training step sends over the line between a host and a board: bytes each way, and how often the host waits."""

from collections.abc import Callable

from nibblecore.hdl.config import CambriconqConfig, LtoaqConfig
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.functional import FunctionalTransport as CambriconqModel
from nibblecore.sim.host.functional_board import FunctionalBoard
from nibblecore.sim.host.link import LinkTransport
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport as LtoaqModel
from nibblecore.sim.progress import doing
from nibblecore.sim.train import data
from nibblecore.sim.train.cambriconq import learner as cambriconq
from nibblecore.sim.train.cambriconq import session
from nibblecore.sim.train.ltoaq import learner as ltoaq
from nibblecore.sim.train.ltoaq import network
from nibblecore.sim.train.shell import Learner

__all__ = ["cambriconq_main", "ltoaq_main", "measured"]

_MEMORY_BYTES = 1 << 18
"""A board's."""
_BITS_A_BYTE = 10
_RATES = (115_200, 3_000_000)


def measured(learner: Learner, steps: int) -> dict[str, float]:
    """Bytes and exchanges of a step, a mean of the first."""
    transport = learner.checked.accelerator.transport
    learner.load()
    transport.flush()
    names = ("sent", "received", "exchanges")
    before = {name: getattr(transport, name) for name in names}
    for number in range(steps):
        learner.step(number)
    return {name: (getattr(transport, name) - before[name]) / steps for name in names}


def _print(what: str, steps: int, opened: Callable[[bool], Learner]) -> int:
    columns = ["results", "bytes to the board", "bytes back", "exchanges", *(f"s at {rate:,} baud" for rate in _RATES)]
    lines = [f"| {' | '.join(columns)} |", "| --- " + "| ---: " * (len(columns) - 1) + "|"]
    for check in (True, False):
        with doing(f"{steps} steps of {what}"), opened(check) as learner:
            found = measured(learner, steps)
        line = [_BITS_A_BYTE * (found["sent"] + found["received"]) / rate for rate in _RATES]
        cells = [f"{found['sent']:,.0f}", f"{found['received']:,.0f}", f"{found['exchanges']:,.1f}", *(f"{s:,.2f}" for s in line)]
        lines.append(f"| {'compared' if check else 'not compared'} | {' | '.join(cells)} |")
    print("\n".join(lines))
    return 0


def ltoaq_main(*, config: LtoaqConfig, bits: int, steps: int) -> int:
    """``nibblecore traffic --machine ltoaq``."""
    digits = data.load()

    def opened(check: bool) -> Learner:
        board = FunctionalBoard(config, LtoaqModel(config, _MEMORY_BYTES))
        accelerator = LtoaqAccelerator(config, transport=LinkTransport(board))
        return ltoaq.LtoaqLearner(network.Recipe(bits=bits), accelerator, digits, check)

    return _print(f"{config.name}, {bits} bits", steps, opened)


def cambriconq_main(*, config: CambriconqConfig, bits: int, net: str, opt: str, steps: int) -> int:
    """``nibblecore traffic --machine cambriconq``."""
    digits = data.load()

    def opened(check: bool) -> Learner:
        board = FunctionalBoard(config, CambriconqModel(config, _MEMORY_BYTES))
        recipe = session.Recipe(network=net, optimizer=opt, bits=bits)
        accelerator = CambriconqAccelerator(config, transport=LinkTransport(board))
        return cambriconq.CambriconqLearner(session.Session(recipe, config, digits, _MEMORY_BYTES), accelerator, check)

    return _print(f"{config.name}, {net}, {opt}, {bits} bits", steps, opened)
