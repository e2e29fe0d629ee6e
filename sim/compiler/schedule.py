"""Puts the instructions of a program in an order that keeps the lanes busy side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibblecore.hdl.cambriconq.program.isa import Constant, Instruction, Opcode
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.control.scoreboard import ranges
from numpy.typing import NDArray

from .estimate import Job, Timeline, jobs, makespan
from .program import Program

__all__ = ["WINDOW", "Scheduler", "dependencies", "scheduled"]

WINDOW = 64
"""An instruction is moved ahead of fewer than so many others."""

# Constants are places too: CROSET writes them, and what a unit does reads them. Their spaces are numbered behind those of the scoreboard.
_OPTIMIZER, _CORE_SQU, _MEMORY_SQU = 4, 5, 6
_CONSTANTS = {Opcode.WGSTORE: _OPTIMIZER, Opcode.QSTORE: _CORE_SQU, Opcode.QMOVE: _CORE_SQU, Opcode.QLOAD: _MEMORY_SQU}


class _Pairs(NamedTuple):
    """Numbers of instructions less than a window apart, of which the second must stay behind the first."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]


class Scheduler:
    """Orders programs that differ in addresses and constants alone by one search.

    What an order leaves behind in memory is bit for bit what the program as it was leaves there.

    Parameters
    ----------
    config : CambriconqConfig
    """

    def __init__(self, config: CambriconqConfig) -> None:
        self.config = config
        self._orders: dict[tuple[Opcode, ...], list[int]] = {}

    def scheduled(self, program: Program) -> Program:
        """The same instructions in the order found for the like of them; HALT stays the last."""
        kind = tuple(instruction.opcode for instruction in program.instructions)
        pairs = dependencies(program, self.config)
        order = self._orders.get(kind)
        if order is None or not _kept(order, pairs):
            order = self._orders[kind] = _order(program, self.config, pairs)
        return _reordered(program, order)


def scheduled(program: Program, config: CambriconqConfig) -> Program:
    """One program by itself."""
    return Scheduler(config).scheduled(program)


def dependencies(program: Program, config: CambriconqConfig, window: int = WINDOW) -> _Pairs:
    """What must not be exchanged: instructions of which one writes what the other touches, and all with HALT."""
    rows = [(number, *place) for number, each in enumerate(program.instructions) for place in _touched(each, config)]
    number, space, low, high, write = np.array(rows, np.int64).reshape(-1, 5).T
    found = []
    for apart in range(1, len(rows)):
        near = number[apart:] - number[:-apart] < window
        if not near.any():
            break
        hit = near & (space[:-apart] == space[apart:]) & (low[:-apart] < high[apart:]) & (low[apart:] < high[:-apart])
        hit &= (write[:-apart] | write[apart:]).astype(bool) & (number[:-apart] != number[apart:])
        found.append(number[:-apart][hit] * len(program.instructions) + number[apart:][hit])
    pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    first, second = np.divmod(pairs, max(len(program.instructions), 1))
    return _Pairs(first, second)


def _touched(instruction: Instruction, config: CambriconqConfig) -> list[tuple[int, int, int, int]]:
    """Space, first, one beyond the last, and whether it is written."""
    opcode, fields = instruction.opcode, instruction.fields
    everything = 1 << 40
    if opcode == Opcode.HALT:
        return [(space, 0, everything, 1) for space in range(_MEMORY_SQU + 1)]
    if opcode == Opcode.CROSET:
        register = fields["register"]
        space = _OPTIMIZER if register < Constant.SQU else _CORE_SQU if register < Constant.MEMORY_SQU else _MEMORY_SQU
        return [(space, 0, 1, 1)]
    found = [(int(r.space), r.low, r.high, int(r.write)) for r in ranges(opcode.name, fields, config)]
    if opcode in _CONSTANTS:
        found.append((_CONSTANTS[opcode], 0, 1, 0))
    return found


def _kept(order: Sequence[int], pairs: _Pairs) -> bool:
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return bool(np.all(place[pairs.first] < place[pairs.second]))


def _reordered(program: Program, order: Sequence[int]) -> Program:
    return Program([program.instructions[number] for number in order], program.stage)


def _order(program: Program, config: CambriconqConfig, pairs: _Pairs) -> list[int]:
    """A better order, or the one there is."""
    work = list(jobs(program, config))
    order = _searched(work, config, pairs)
    if makespan(_reordered(program, order), config) < makespan(program, config):
        return order
    return list(range(len(work)))


def _searched(work: list[Job], config: CambriconqConfig, pairs: _Pairs) -> list[int]:
    """Always the instruction that can start first; of several the one with the longest chain of others behind it."""
    count = len(work)
    after: list[list[int]] = [[] for _ in range(count)]
    left = [0] * count
    for first, second in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        after[first].append(second)
        left[second] += 1
    chain = [0] * count
    for number in reversed(range(count)):
        chain[number] = work[number].cycles + max((chain[each] for each in after[number]), default=0)
    timeline, ready = Timeline(config), [0] * count
    order: list[int] = []
    head, done, waiting = 0, [False] * count, list(range(min(WINDOW, count)))
    while waiting:
        number = min(
            (each for each in waiting if not left[each]),
            key=lambda each: (timeline.start(work[each], ready[each]), -chain[each], each),
        )
        start, lane = timeline.issue(work[number], ready[number]), work[number].lane
        end = start if lane is None else timeline.end(lane)
        order.append(number)
        done[number] = True
        waiting.remove(number)
        for each in after[number]:
            left[each] -= 1
            ready[each] = max(ready[each], end)
        before = head
        while head < count and done[head]:
            head += 1
        waiting += range(min(before + WINDOW, count), min(head + WINDOW, count))
    return order
