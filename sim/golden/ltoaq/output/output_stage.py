"""Golden twin of the output stage: what the tiles of a tensor become in memory, and what is counted of them."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.golden.ltoaq.operands.transposer import beats_of
from numpy.typing import NDArray

from .encoder import encode
from .quantizer import quantize
from .raw_writer import Line

__all__ = ["Summary", "tensor"]


class Summary(NamedTuple):
    """Of all tiles of a tensor; `run_beats` is the length of the longest segment."""

    run_beats: int
    x_max: int
    outliers: int
    saturations: int


def tensor(
    tiles: Iterable[tuple[int, int, NDArray[np.integer]]],
    parameters: QuantizerParameters,
    target: Mapping[str, int],
    config: LtoaqConfig,
) -> tuple[list[Line], Summary]:
    """Of each tile (row, column, words) a burst of codes and one of its run-length segment; `target` is the command's `OutputJob`."""
    s, b, bits = config.tile, config.block, parameters.bits
    grid, all_bytes = (s // b, b, s // b, b), (1 << config.bus_bytes) - 1
    bursts: list[Line] = []
    counts = []
    for row, col, words in tiles:
        result = quantize(words, parameters)
        beats = beats_of(result.codes.reshape(grid), result.outlier.reshape(grid), bits)
        flags = [word >> lane & 1 for _, word in beats for lane in range(b * b * 4 // bits)]
        segment = encode(flags, config.bus_bits, config.run_bits)
        codes_at = target["codes"] + row * target["codes_row_step"] + col * len(beats) * config.bus_bytes
        runs_at = target["runs"] + row * target["runs_row_step"] + col * target["runs_tile_step"]
        bursts += [(codes_at, [(codes, all_bytes) for codes, _ in beats]), (runs_at, [(beat, all_bytes) for beat in segment])]
        counts.append(Summary(len(segment), result.x_max, result.outliers, result.saturations))
    run_beats, x_max, outliers, saturations = zip(*counts, strict=True)
    return bursts, Summary(max(run_beats), max(x_max), sum(outliers), sum(saturations))
