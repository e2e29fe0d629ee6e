"""Cambricon-Q with the functional model beside it: the same memory, the same programs, any difference an error."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from nibblecore.hdl.cambriconq.program.errors import ErrorCode
from nibblecore.sim.compiler.layout import Region
from nibblecore.sim.host.checked import Checked

from .accelerator import CambriconqAccelerator, ProgramError
from .functional import FunctionalTransport

__all__ = ["CheckedAccelerator"]

# Of several wrong operands of a product the hardware may meet another one first.
_WRONG_OPERANDS = {ErrorCode.BUFFER_RANGE, ErrorCode.TAG_MISMATCH, ErrorCode.NO_TAG}


class CheckedAccelerator(Checked[CambriconqAccelerator]):
    """Does everything on an accelerator and, with `check`, on a model of it, and compares them after every program.

    Compared are how the program ended and at which instruction, all of memory, and the flags `nan` and `infinity`. Raises `Mismatch` at the
    first difference. NBout, which no instruction has to write before another reads it, is undefined in the hardware and 0 in the model.

    Parameters
    ----------
    accelerator : CambriconqAccelerator
        Its memory is copied to the model. Closed at the end of a ``with``.
    check : bool
    regions : sequence of Region
        What memory holds, for messages.

    Members
    -------
    accelerator : CambriconqAccelerator
    model : CambriconqAccelerator
        The functional one; None without `check`.
    place : str
        Where in the computation the next program belongs, for messages.
    comparisons : int
        Bytes of memory compared so far.
    """

    def __init__(self, accelerator: CambriconqAccelerator, check: bool = True, regions: Sequence[Region] = ()) -> None:
        super().__init__(accelerator, check)
        self.regions = regions
        self.model: CambriconqAccelerator | None = None
        if check:
            size = accelerator.memory_size
            self.model = CambriconqAccelerator(accelerator.config, transport="functional", memory_size=size)
            self.model.write_memory(0, accelerator.read_memory(0, size))

    @property
    def memory_size(self) -> int:
        return self.accelerator.memory_size

    def write_memory(self, address: int, data: bytes) -> None:
        self.accelerator.write_memory(address, data)
        if self.model:
            self.model.write_memory(address, data)

    def read_memory(self, address: int, size: int) -> bytes:
        return self.accelerator.read_memory(address, size)

    def reset(self) -> None:
        """Both; memory stays."""
        self.accelerator.reset()
        if self.model:
            self.model.reset()

    def flags(self) -> dict[str, int]:
        """As of the accelerator."""
        return self.accelerator.flags()

    def run(self, entry: int) -> None:
        """Both run the program at byte address `entry`. Raises `ProgramError` where both refuse it, and are equal all the same."""
        if self.model is None:
            self.accelerator.run(entry)
            return
        # A simulation leaves Python's lock alone while it runs, so both run at once.
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(_end, self.accelerator, entry)
            expected = _end(self.model, entry)
            ended = running.result()
        if not _same_end(ended, expected):
            self.differ("", "the program's end", _told(ended), _told(expected))
        if ended and isinstance(self.model.transport, FunctionalTransport):
            self.model.transport.run_on(entry, ended.started)
        self._compare_memory(self.model)
        flags, known = self.accelerator.flags(), self.model.flags()
        for name in ("nan", "infinity"):
            self.fact("", f"the flag {name}", flags[name], known[name])
        if ended:
            raise ended

    def _compare_memory(self, model: CambriconqAccelerator) -> None:
        got, expected = (side.read_memory(0, self.memory_size) for side in (self.accelerator, model))
        self.comparisons += len(got)
        if got == expected:
            return
        sides = [np.frombuffer(side, "<u4") for side in (got, expected)]
        wrong = np.flatnonzero(sides[0] != sides[1])
        at, extent = 4 * int(wrong[0]), f"{len(wrong)} of {len(sides[0])} words of memory"
        words = [side[at // 4] for side in sides]
        region = next((r for r in self.regions if r.at <= at < r.at + r.size), None)
        if region is None:
            beside = ", where nothing is meant to be," if self.regions else ""
            got_word, expected_word = (f"{word:#010x}" for word in words)
            self.differ("memory", f"the word at {at:#x}{beside}", got_word, expected_word, extent)
        element = [int(i) for i in np.unravel_index((at - region.at) // 4, region.shape)]
        got_word, expected_word = (f"{word.view(np.float32):.9g} ({word:#010x})" for word in words)
        self.differ(region.name, f"element {element}", got_word, expected_word, extent)


def _end(accelerator: CambriconqAccelerator, entry: int) -> ProgramError | None:
    """Run a program; why it was stopped, None at its HALT."""
    try:
        accelerator.run(entry)
    except ProgramError as error:
        return error
    return None


def _same_end(ended: ProgramError | None, expected: ProgramError | None) -> bool:
    if ended is None or expected is None:
        return ended is expected
    codes = {ended.code, expected.code}
    return ended.index == expected.index and (len(codes) == 1 or codes <= _WRONG_OPERANDS)


def _told(end: ProgramError | None) -> str:
    return f"{end.code.name} in {end.work}" if end else "HALT"
