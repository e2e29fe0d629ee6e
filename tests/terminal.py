"""Verbs at a terminal: each in a process of its own, which is interrupted as soon as it has said three times how far it is.

A program of its own, so that what verbs import is imported once, and no test's threads are copied with it. It takes a folder for what is
compiled and, as JSON, what is typed; it prints those that did not say it, each with what the terminal got, as JSON.
"""

import json
import os
import pty
import re
import select
import signal
import sys
import termios
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim import cli, figures, progress
from nibblecore.sim.boards import bitstream
from nibblecore.sim.host import simulation
from nibblecore.sim.host.cambriconq import functional as cambriconq
from nibblecore.sim.host.ltoaq import functional as ltoaq
from nibblecore.sim.train import data
from nibblecore.sim.verbs import VERBS
from tqdm import tqdm

_PROGRESS = re.compile(rb"\d\d:\d\d")
"""The time that goes by, in what `progress.doing` and tqdm's bars show."""
_SECONDS = 20.0


def _stand_in(config: Any, *, memory_size: int, **_: object) -> Any:
    """In the place of the Verilog's simulation, which takes a minute to build."""
    kind: Any = cambriconq if isinstance(config, CambriconqConfig) else ltoaq
    transport = kind.FunctionalTransport(config, memory_size)
    transport.close = lambda: None
    return transport


def _prepare() -> None:
    for verb in VERBS.values():
        for place in [verb.run] if isinstance(verb.run, str) else verb.run.values():
            import_module(f"nibblecore.{place.partition(':')[0]}")
    data.load()
    replaced: list[tuple[Any, str, Any]] = [
        (progress, "_SECONDS", 0.001),
        (simulation, "Simulation", _stand_in),
        (bitstream, "tool", lambda name: "true"),
        (figures, "_put", lambda *_: None),
    ]
    for place, name, value in replaced:
        setattr(place, name, value)


def _child(terminal: int, words: list[str]) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, file in enumerate((nothing, nothing, terminal)):
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    # The lock that tqdm has from the start is shared with all copies, also with one that ends while it has it.
    tqdm.set_lock(threading.RLock())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main(words)
    sys.stderr.flush()


def _silent(words: list[str]) -> str:
    """What the terminal got from a verb until its end, or 20 s; "" as soon as it has said three times how far it is."""
    reading, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    child = os.fork()
    if not child:
        try:
            os.setsid()
            _child(terminal, words)
        finally:
            os._exit(0)
    os.close(terminal)
    got, until = b"", time.monotonic() + _SECONDS
    while not (said := len(_PROGRESS.findall(got)) > 2) and time.monotonic() < until:
        if select.select([reading], [], [], 0.1)[0]:
            try:
                got += os.read(reading, 1 << 16)
            except OSError:
                break
    os.killpg(child, signal.SIGINT)
    until = time.monotonic() + 5
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
        # A terminal that nobody reads fills up, and who writes to it waits.
        if select.select([reading], [], [], 0.01)[0]:
            try:
                os.read(reading, 1 << 16)
            except OSError:
                time.sleep(0.01)
    os.close(reading)
    return "" if said else repr(got)


if __name__ == "__main__":
    _prepare()
    os.environ["NIBBLECORE_CACHE"] = str(Path(sys.argv[1]))
    print(json.dumps({typed: got for typed in json.loads(sys.argv[2]) if (got := _silent(typed.split()))}))
