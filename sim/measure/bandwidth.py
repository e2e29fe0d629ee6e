"""What a board's SDRAM carries, measured on its memory's design beside a model of the chip.

    nibblecore bandwidth --board ulx3s_sdram

The model fails on any command out of its time, so what is measured is what the chip would allow. The share is that of a word in every cycle.
"""

from collections.abc import Iterator
from typing import Any

from amaranth.sim import Simulator
from nibblecore.hdl.boards.sdram_memory import SdramMemory
from nibblecore.hdl.boards.targets import TARGETS
from nibblecore.sim.perf.sdram_chip import Sdram
from nibblecore.sim.progress import doing
from nibblecore.sim.refusal import Refusal

__all__ = ["ACCESSES", "main", "measure"]

_BUS_BYTES = 8
_BYTES = 1 << 14
"""Moved each way: rows of all banks, and refreshes."""

ACCESSES = {
    "read one behind the other": ("r", 512, False),
    "written one behind the other": ("w", 512, False),
    "both at once": ("rw", 512, False),
    "read anywhere": ("r", 512, True),
    "read anywhere, a beat at a time": ("r", _BUS_BYTES, True),
}
"""Directions, bytes of a burst, and whether each burst is in a row of its own."""


def _addresses(burst: int, scattered: bool, size: int) -> Iterator[int]:
    for number in range(_BYTES // burst):
        # A step that is coprime to the number of bursts, so that neighbours lie in other rows.
        yield (number * 40503 * burst if scattered else number * burst) % size


def measure(board: str, access: str) -> float:
    """Bytes a cycle, reads and writes together, of what `ACCESSES` has by that name."""
    target = TARGETS[board]
    assert target.sdram
    ways, burst, scattered = ACCESSES[access]
    timing = target.sdram.timing(target.clock_hz)
    memory = SdramMemory(_BUS_BYTES, target.memory_bytes, target.sdram, timing)
    chip, axi, pins = Sdram(target.sdram, timing), memory.s_axi, memory.pins
    beats = burst // _BUS_BYTES
    due = {way: _BYTES // _BUS_BYTES if way in ways else 0 for way in "rw"}
    cycles = 0

    async def bench(context: Any) -> None:
        nonlocal cycles
        # What is written is a quarter of the memory behind what is read.
        addresses = {"r": _addresses(burst, scattered, target.memory_bytes), "w": _addresses(burst, scattered, target.memory_bytes)}
        for way in ways:
            context.set(getattr(axi, f"a{way}len"), beats - 1)
            context.set(getattr(axi, f"a{way}addr"), next(addresses[way]))
        context.set(axi.wstrb, (1 << _BUS_BYTES) - 1)
        context.set(axi.rready, 1)
        context.set(axi.bready, 1)
        offers = {f"a{way}valid": way in ways for way in "rw"} | {"wvalid": "w" in ways}
        sent = 0
        for cycle in range(timing.power_up + 100 * _BYTES):
            begins = cycle > timing.power_up + 200
            for name, offered in offers.items():
                context.set(getattr(axi, name), int(offered and begins))
            taken = {
                name: offered and begins and context.get(getattr(axi, name.replace("valid", "ready")))
                for name, offered in offers.items()
            }
            came = context.get(axi.rvalid)
            word = chip.edge(
                *(int(context.get(pin)) for pin in (pins.command, pins.bank, pins.address, pins.mask, pins.data_out, pins.drive))
            )
            await context.tick()
            context.set(pins.data_in, word)
            cycles += begins
            due["r"] -= came
            sent += taken["wvalid"]
            due["w"] -= taken["wvalid"]
            offers["wvalid"] = sent < _BYTES // _BUS_BYTES and "w" in ways
            for way in ways:
                if taken[f"a{way}valid"]:
                    address = next(addresses[way], None)
                    offers[f"a{way}valid"] = address is not None
                    context.set(
                        getattr(axi, f"a{way}addr"),
                        ((address or 0) + (way == "w") * target.memory_bytes // 4) % target.memory_bytes,
                    )
            if begins and not any(due.values()):
                return
        raise AssertionError(f"{due} beats never came")

    simulator = Simulator(memory)
    simulator.add_clock(1 / target.clock_hz)
    simulator.add_testbench(bench)
    simulator.run()
    return len(ways) * _BYTES / cycles


def main(*, board: str) -> int:
    """``nibblecore bandwidth``."""
    target = TARGETS[board]
    if target.sdram is None:
        raise Refusal("board", "its memory is block RAM, which takes a beat a cycle each way")
    print(f"| bursts | bytes | bytes a cycle | MB/s at {target.clock_hz / 1e6:g} MHz | of the chip's bandwidth |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for access, (_, burst, _) in ACCESSES.items():
        with doing(access):
            found = measure(board, access)
        print(
            f"| {access} | {burst} | {found:.2f} | {found * target.clock_hz / 1e6:.1f} | {found / target.sdram.WORD_BYTES:.1%} |",
            flush=True,
        )
    return 0
