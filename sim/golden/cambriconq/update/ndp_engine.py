"""Twin of hdl.cambriconq.update.ndp_engine: which jobs are legal, and what a legal one leaves in memory."""

import numpy as np
from nibblecore.hdl.config import DramConfig
from numpy.typing import NDArray

from .ndpo import Optimizer

__all__ = ["refusal", "update"]


def refusal(dram: DramConfig, addresses: tuple[int, int, int], count: int) -> str | None:
    """Name of the reason for which a job is refused, or None. Byte addresses of the first weight and of its moments."""
    if count == 0:
        return "ZERO_COUNT"
    if any(at % 4 for at in addresses) or len({at // 4 % dram.columns for at in addresses}) > 1:
        return "MISALIGNED"
    if any(at // 4 + count > dram.words for at in addresses):
        return "OUT_OF_RANGE"
    # Every page that an operand opens, and those beside it in time: the one it opens next has the bank after.
    pages = [range(at // 4 // dram.columns, (at // 4 + count - 1) // dram.columns + 1) for at in addresses]
    for a, b in ((pages[0], pages[1]), (pages[1], pages[2]), (pages[2], pages[0])):
        round_the_banks = (a[0] - b[0]) % dram.banks
        if min(round_the_banks, dram.banks - round_the_banks) < 2 or (a[0] in b or b[0] in a):
            return "BANK_CONFLICT"
    return None


def update(words: NDArray[np.uint32], optimizer: Optimizer, addresses: tuple[int, int, int], gradients: NDArray[np.uint32]) -> None:
    """Carries out a legal job on memory, 32-bit words in the order of their addresses."""
    places = [slice(at // 4, at // 4 + len(gradients)) for at in addresses]
    w, m, v = (words[place].view(np.float32) for place in places)
    results = optimizer.update(w, m, v, np.asarray(gradients, np.uint32).view(np.float32))
    for place, values in zip(places, results, strict=True):
        words[place] = values.view(np.uint32)
