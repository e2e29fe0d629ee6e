"""Twin of hdl.cambriconq.movers.memory_commands: the beats in which the words of a shape lie."""

import numpy as np

from .walk import Pattern, addresses

__all__ = ["Command", "commands"]

Command = tuple[int, int]
"""Address of the first beat, beats."""


def commands(pattern: Pattern, bus_bytes: int) -> list[Command]:
    """A command for each row if its words lie side by side, for each word if not."""
    beats = addresses(pattern) // bus_bytes
    if beats.size == 0:
        return []
    if pattern.col != 4:
        beats = beats.reshape(-1, 1)
    return [(int(row[0]) * bus_bytes, len(np.unique(row))) for row in beats]
