"""Cambricon-Q with the functional model beside it: after every program all of memory is compared."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from nibblecore.sim.compiler.compiler import Region
from nibblecore.sim.host.cambriconq.backend import Backend

from .check import Mismatch

__all__ = ["CheckedBackend"]


class CheckedBackend:
    """Does everything on a backend and on a model of it, and compares their memories after every program.

    Raises `Mismatch` at the first byte that differs.

    Parameters
    ----------
    backend, model : Backend
        With memories of one size.
    regions : sequence of Region
        What memory holds, for messages.

    Members
    -------
    place : str
        Where in the computation the next program belongs, for messages.
    comparisons : int
        Bytes compared so far.
    """

    def __init__(self, backend: Backend, model: Backend, regions: Sequence[Region]) -> None:
        if backend.memory_size != model.memory_size:
            raise ValueError(f"memories of {backend.memory_size} and {model.memory_size} bytes cannot be compared")
        self.backend, self.model, self.regions = backend, model, regions
        self.place = ""
        self.comparisons = 0

    @property
    def memory_size(self) -> int:
        return self.backend.memory_size

    def write_memory(self, address: int, data: bytes) -> None:
        self.backend.write_memory(address, data)
        self.model.write_memory(address, data)

    def read_memory(self, address: int, size: int) -> bytes:
        return self.backend.read_memory(address, size)

    def run(self, entry: int) -> None:
        # A simulation leaves Python's lock alone while it runs, so both run at once.
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.backend.run, entry)
            stopped = _stop(lambda: self.model.run(entry))
            failed = _stop(running.result)
        if failed is not None and stopped is not None:
            raise failed
        if failed is not None:
            raise Mismatch(f"{self.place}: the program was stopped ({failed}), and the functional model ran to its end") from failed
        if stopped is not None:
            raise Mismatch(
                f"{self.place}: the program ran to its end, and the functional model stopped it ({stopped})"
            ) from stopped
        got, expected = (side.read_memory(0, self.memory_size) for side in (self.backend, self.model))
        self.comparisons += len(got)
        if got != expected:
            self._report(got, expected)

    def phase_cycles(self) -> list[int]:
        return self.backend.phase_cycles()

    def cycles(self) -> int:
        return self.backend.cycles()

    def _report(self, got: bytes, expected: bytes) -> None:
        differs = np.flatnonzero(np.frombuffer(got, np.uint8) != np.frombuffer(expected, np.uint8))
        at = int(differs[0])
        words = len({int(byte) // 4 for byte in differs})
        region = next((r for r in self.regions if r.at <= at < r.at + r.size), None)
        if region is None:
            where = f"byte {at:#x}, where nothing is meant to be, is {got[at]:#04x}, expected {expected[at]:#04x}"
        else:
            element = [int(i) for i in np.unravel_index((at - region.at) // 4, region.shape)]
            word = at // 4 * 4
            values = (np.frombuffer(side, "<f4", 1, word)[0] for side in (got, expected))
            bits = (np.frombuffer(side, "<u4", 1, word)[0] for side in (got, expected))
            shown = [f"{value:.9g} ({pattern:#010x})" for value, pattern in zip(values, bits, strict=True)]
            where = f"{region.name}, element {element}, is {shown[0]}, expected {shown[1]}"
        raise Mismatch(f"{self.place}: {where} ({words} of {self.memory_size // 4} words of memory differ)")


def _stop(run: Callable[[], None]) -> Exception | None:
    """What stopped it."""
    try:
        run()
    except Exception as error:
        return error
    return None
