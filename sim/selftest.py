"""Whether a board works, from its line to its results, a line each.

nibblecore selftest --port /dev/ttyUSB0
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from nibblecore.hdl.bus.register_map import Access
from nibblecore.hdl.config import CambriconqConfig, LtoaqConfig
from nibblecore.sim.formats.frames import DELIMITER, wrap
from nibblecore.sim.host.accelerator import Accelerator
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.host.link import LinkError, LinkTransport, reach
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.transport import BusError
from nibblecore.sim.progress import doing
from nibblecore.sim.regress.ltoaq import run_one
from nibblecore.sim.train import data
from nibblecore.sim.train.cambriconq.session import Recipe, Session

__all__ = ["main", "run"]

_RATE_BYTES = 1 << 13
_ALL_BYTES = 1 << 20
"""Of memory, that are all tested and that programs have: with more the line takes minutes."""
_BLOCK_BYTES = 1 << 12
_IMAGES = 64
"""Of the digits, for the programs of Cambricon-Q: soon sent."""


class _Wrong(RuntimeError):
    """What a test found."""


def main(*, config: LtoaqConfig | CambriconqConfig, port: str, baud: int, count: int, seed: int) -> int:
    """``nibblecore selftest``."""
    with reach(port, baud, config) as transport:
        return run(transport, config, count=count, seed=seed)


def run(transport: LinkTransport, config: LtoaqConfig | CambriconqConfig, *, count: int, seed: int) -> int:
    """All tests in turn; those behind one that failed are run as well, unless the board no longer answers. 1 if one failed."""
    kind: Any = LtoaqAccelerator if isinstance(config, LtoaqConfig) else CambriconqAccelerator
    accelerator: Accelerator[Any] = kind(config, transport=transport, memory_size=_ALL_BYTES)
    rng = np.random.default_rng(seed)
    tests: list[tuple[str, Callable[[], str]]] = [
        ("link", lambda: _link(transport, rng)),
        ("registers", lambda: _registers(accelerator, transport, rng)),
        ("memory", lambda: _memory(transport, rng)),
        ("commands", lambda: _commands(accelerator, count, seed))
        if isinstance(accelerator, LtoaqAccelerator)
        else ("programs", lambda: _programs(accelerator, count, seed)),
    ]
    failed = 0
    for name, test in tests:
        try:
            with doing(name):
                said = test()
        except LinkError as error:
            print(f"{name:>9}  FAILED: {error}", flush=True)
            return 1
        except (_Wrong, Mismatch, RuntimeError, TimeoutError, ValueError) as error:
            failed = 1
            said = f"FAILED: {error}"
        print(f"{name:>9}  {said}", flush=True)
    return failed


def _link(transport: LinkTransport, rng: np.random.Generator) -> str:
    """Rates, and that damaged frames are dropped, each counted."""
    before = transport.board
    rates = []
    for call in (("write_memory", 0, rng.bytes(_RATE_BYTES)), ("read_memory", 0, _RATE_BYTES)):
        began = time.monotonic()
        transport.perform(call)
        rates.append(_RATE_BYTES / (time.monotonic() - began))
    counts = transport.greet().counts
    damaged = bytearray(wrap(bytes(range(1, 21))))
    damaged[5] ^= 0x10
    transport.disturb(bytes(damaged))
    transport.disturb(b"\xff\x01" + DELIMITER)
    now = transport.greet().counts
    for name, number in (("wrong", 1), ("malformed", 1)):
        if (now[name] - counts[name]) % 256 != number:
            raise _Wrong(f"a damaged frame was not counted as {name}: {counts[name]} before, {now[name]} after")
    return (
        f"{before.memory_bytes:,} bytes of memory, {before.clock_hz / 1e6:g} MHz, {rates[0]:,.0f} bytes/s to the board, "
        f"{rates[1]:,.0f} back, damaged frames dropped"
    )


def _registers(accelerator: Accelerator[Any], transport: LinkTransport, rng: np.random.Generator) -> str:
    """Those that hold what is written to them do; those that are read only or write only refuse the other."""
    held = refused = 0
    for register in accelerator.REGISTERS:
        if register.access is Access.RW:
            before = transport.read_register(register.offset)
            for value in (register.mask, 0, int(rng.integers(1 << 32)) & register.mask):
                _, found = transport.perform(("write_register", register.offset, value), ("read_register", register.offset))
                if found != value:
                    raise _Wrong(f"register {register.name} holds {found:#x}, not {value:#x}")
            transport.write_register(register.offset, before)
            held += 1
            continue
        call = ("read_register",) if not register.access.readable else ("write_register", 0)
        if register.access.readable and register.access.writable:
            continue
        try:
            transport.perform((call[0], register.offset, *call[1:]))
        except BusError:
            refused += 1
        else:
            raise _Wrong(f"register {register.name} is {register.access.value} and did not refuse {call[0]}")
    return f"{held} hold what is written, {refused} refuse what they must"


def _memory(transport: LinkTransport, rng: np.random.Generator) -> str:
    """Each bit both ways: of all, or where it is much of blocks that no two wires of an address confuse."""
    size = transport.memory_size
    starts, length = [0], size
    if size > _ALL_BYTES:
        length = _BLOCK_BYTES
        powers = [1 << bit for bit in range(length.bit_length() - 1, size.bit_length()) if (1 << bit) + length <= size]
        starts = sorted({0, *powers, size - length})
    pattern = np.frombuffer(rng.bytes(len(starts) * length), np.uint8).reshape(-1, length)
    for expected in (pattern, ~pattern):
        for at, block in zip(starts, expected, strict=True):
            transport.write_memory(at, block.tobytes())
        for at, block in zip(starts, expected, strict=True):
            found = np.frombuffer(transport.read_memory(at, length), np.uint8)
            if (differs := np.flatnonzero(found != block)).size:
                place = int(differs[0])
                raise _Wrong(
                    f"{differs.size} of {length} bytes differ, first {at + place:#x}: {found[place]:#04x}, not {block[place]:#04x}"
                )
    blocks = f" in {len(starts)} blocks" if len(starts) > 1 else ""
    return f"{pattern.size:,} bytes{blocks}, each bit as 0 and as 1"


def _commands(accelerator: LtoaqAccelerator, count: int, seed: int) -> str:
    for number in range(seed, seed + count):
        run_one(accelerator, number)
    return f"{count} random commands equal the golden model, seeds {seed}..{seed + count - 1}"


def _programs(accelerator: Any, count: int, seed: int) -> str:
    digits = data.load()
    few = data.Digits(
        digits.train_images[:_IMAGES], digits.train_labels[:_IMAGES], digits.test_images[:_IMAGES], digits.test_labels[:_IMAGES]
    )
    session = Session(Recipe(steps=count, batch=8, seed=seed), accelerator.config, few, accelerator.memory_size)
    checked = CheckedAccelerator(accelerator, True, session.regions)
    session.load(checked)
    for step in range(count):
        session.step(checked, step)
    return f"{count} steps of training, all of memory equals the functional model's after each"
