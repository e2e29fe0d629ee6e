"""Twin of hdl.cambriconq.update.weight_updater: WGSTORE as the engine beside the memory carries it out."""

import numpy as np
from nibblecore.hdl.config import DramConfig
from nibblecore.sim.golden.cambriconq.program.errors import ErrorCode
from numpy.typing import NDArray

from .ndp_engine import refusal, update
from .ndpo import Optimizer

__all__ = ["weight_updater"]

_CODES = {"MISALIGNED": ErrorCode.MISALIGNED, "OUT_OF_RANGE": ErrorCode.MEMORY_RANGE, "BANK_CONFLICT": ErrorCode.BANK_CONFLICT}


def weight_updater(
    dram: DramConfig,
    words: NDArray[np.uint32],
    optimizer: Optimizer,
    addresses: tuple[int, int, int],
    mem_row: int,
    gradients: NDArray[np.uint32],
) -> ErrorCode:
    """Updates memory up to the first job that the engine refuses, and says why it does.

    `words` is memory from address 0 on, `gradients` rows × cols bits of FP32 numbers, `mem_row` bytes.
    """
    cols = gradients.shape[1]
    jobs = gradients.reshape(1, -1) if mem_row == 4 * cols else gradients
    for number, job in enumerate(jobs):
        w, m, v = (at + number * mem_row for at in addresses)
        reason = refusal(dram, (w, m, v), len(job))
        if reason is not None:
            return _CODES[reason]
        update(words, optimizer, (w, m, v), job)
    return ErrorCode.NONE
