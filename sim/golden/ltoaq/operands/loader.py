"""Golden twin of the loader: every tile that it fetches, in order, and what it leaves in the banks."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.sim.formats.tensor import OaqTensor
from numpy.typing import NDArray

from .residual_clip import clip_residuals
from .step_walker import Product, steps
from .transposer import pack_lanes

__all__ = ["Load", "bank_words", "loads"]


class Load(NamedTuple):
    """One tile of A (``side`` 0) or W (1): panel ``panel``, tile ``along_k`` of K, to bank address ``bank`` and on.

    A buffer half is taken by the first tile of a step (``takes_a``, ``takes_w``) and is free again when the step's last pass ends.
    """

    side: int
    panel: int
    along_k: int
    bank: int
    takes_a: bool
    takes_w: bool


def loads(product: Product, config: LtoaqConfig) -> Iterator[Load]:
    """All tiles of a product in order."""
    along_k = config.tile // config.block * (2 if product.eight_bit else 1)
    panel_words = [product.chunk_tiles * along_k * config.tile // banks for banks in (config.rows, config.output_cols)]
    half = [1, 1]
    k_start = 0
    for step in steps(product, config):
        half[0] ^= 1
        half[1] ^= step.new_w
        k_start = 0 if step.first_part else k_start + product.chunk_tiles
        counts = step.a_count, step.w_count if step.new_w else 0
        panels = [(side, panel) for panel in range(max(counts)) for side in (0, 1) if panel < counts[side]]
        for number, (side, panel) in enumerate(panels):
            for tile in range(step.tiles):
                begins = number == 0 and tile == 0
                yield Load(
                    side,
                    (step.a_first, step.w_first)[side] + panel,
                    k_start + tile,
                    half[side] * config.bank_words // 2 + panel * panel_words[side] + tile * along_k,
                    begins,
                    begins and bool(step.new_w),
                )


def bank_words(
    tensor: OaqTensor, load: Load, product: Product, config: LtoaqConfig, transposed: bool
) -> dict[tuple[int, int], int]:
    """What one tile of an operand puts where, by (bank, address).

    `tensor` is the operand as memory holds it, residuals not yet clipped: panels along its rows, K along its columns, or the other
    way round if `transposed`.
    """
    s, banks = config.tile, (config.rows, config.output_cols)[load.side]
    elements = config.block * 4 // tensor.bits
    run = product.chunk_tiles * s // elements  # words from one part of the panel to the next

    def part(matrix: NDArray) -> NDArray:
        upright = matrix.T if transposed else matrix
        tile = np.zeros((s, s), matrix.dtype)
        found = upright[load.panel * s : (load.panel + 1) * s, load.along_k * s : (load.along_k + 1) * s]
        tile[: found.shape[0], : found.shape[1]] = found
        return tile

    value_max = config.value_max(tensor.bits)
    clipped = clip_residuals(tensor.codes, tensor.outlier, tensor.bits, tensor.signed, tensor.threshold, tensor.k, value_max)
    codes, flags = part(clipped), part(tensor.outlier).astype(np.uint8)
    return {
        (row % banks, load.bank + row // banks * run + k // elements): pack_lanes(codes[row, k : k + elements], tensor.bits)
        | pack_lanes(flags[row, k : k + elements], 1) << 4 * config.block
        for row in range(s)
        for k in range(0, s, elements)
    }
