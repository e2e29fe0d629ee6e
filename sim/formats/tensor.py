"""The OAQ tensor and its layout in memory (docs/formats.md)."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from numpy.typing import NDArray

from .codes import decode_operand
from .run_lengths import decode, encode

__all__ = ["OaqTensor", "PackedTensor", "from_beats", "tiles", "to_beats"]


class PackedTensor(NamedTuple):
    """A tensor as bytes of the code region and the run region; `run_beats` is the length of its longest segment."""

    codes: bytes
    runs: bytes
    run_beats: int


@dataclass(frozen=True, eq=False)
class OaqTensor:
    """A matrix of few-bit codes, each normal or an outlier.

    Parameters
    ----------
    codes : uint8 array, rows × columns
        Bit patterns of `bits` bits.
    outlier : bool array, rows × columns
    bits : int
        4 or 8.
    signed : bool
    threshold : int
        T, 1..Qmax.
    k : int
        Residual shift, 0..3.
    """

    codes: NDArray[np.uint8]
    outlier: NDArray[np.bool_]
    bits: int
    signed: bool
    threshold: int
    k: int

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {self.bits}")
        if self.codes.ndim != 2 or self.codes.shape != self.outlier.shape:
            raise ValueError(f"codes {self.codes.shape} and outliers {self.outlier.shape} must be matrices of one shape")
        if self.codes.dtype != np.uint8 or self.outlier.dtype != np.bool_:
            raise ValueError(f"codes must be uint8 and outliers bool, not {self.codes.dtype} and {self.outlier.dtype}")
        if self.codes.size and int(self.codes.max()) >> self.bits:
            raise ValueError(f"a code of {int(self.codes.max())} does not fit {self.bits} bits")
        if not 1 <= self.threshold <= self.q_max:
            raise ValueError(f"threshold must be 1..{self.q_max}, not {self.threshold}")
        if not 0 <= self.k <= 3:
            raise ValueError(f"k must be 0..3, not {self.k}")

    @property
    def shape(self) -> tuple[int, int]:
        rows, cols = self.codes.shape
        return rows, cols

    @property
    def q_max(self) -> int:
        """Qmax: the largest normal code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    def values(self, value_max: int) -> NDArray[np.int64]:
        """The integers the array multiplies, in steps, none beyond ±`value_max`: residuals are clipped."""
        return np.asarray(
            decode_operand(self.codes, self.outlier, self.bits, self.signed, self.threshold, self.k, value_max), dtype=np.int64
        )

    def first_difference(self, other: "OaqTensor") -> tuple[int, int] | None:
        """Row and column of the first element, row-major, in which two tensors of one shape differ; None if they agree."""
        if self.shape != other.shape:
            raise ValueError(f"shapes {self.shape} and {other.shape} differ")
        places = np.argwhere((self.codes != other.codes) | (self.outlier != other.outlier))
        return (int(places[0][0]), int(places[0][1])) if len(places) else None

    def pack(self, config: LtoaqConfig, run_stride: int | None = None) -> PackedTensor:
        """The bytes in memory, segments `run_stride` beats apart (as close as the longest allows by default).

        Raises ValueError if a segment is longer than `run_stride`.
        """
        lanes = to_beats(self.codes, config, self.bits)
        if self.bits == 4:
            lanes = lanes[..., 0::2] | lanes[..., 1::2] << 4
        flags = to_beats(self.outlier, config, self.bits).reshape(len(lanes), -1)
        segments = [encode(tile, config.bus_bits, config.run_bits) for tile in flags]
        run_beats = max(map(len, segments))
        run_stride = run_beats if run_stride is None else run_stride
        if run_beats > run_stride:
            raise ValueError(f"a run-length segment of {run_beats} beats does not fit a run_stride of {run_stride}")
        size = run_stride * config.bus_bytes
        runs = [b"".join(beat.to_bytes(config.bus_bytes, "little") for beat in beats).ljust(size, b"\0") for beats in segments]
        return PackedTensor(lanes.tobytes(), b"".join(runs), run_beats)

    @classmethod
    def unpack(
        cls,
        config: LtoaqConfig,
        shape: tuple[int, int],
        packed: PackedTensor,
        run_stride: int,
        *,
        bits: int,
        signed: bool,
        threshold: int,
        k: int,
    ) -> "OaqTensor":
        """The tensor of `shape` that lies in memory as `packed`.

        Raises ValueError if a run-length segment is malformed or the padding of an edge tile is not zero.
        """
        count = tiles(shape, config)[0] * tiles(shape, config)[1]
        lanes = np.frombuffer(packed.codes, np.uint8).reshape(count, config.tile_beats(bits), config.bus_bytes)
        if bits == 4:
            lanes = np.stack([lanes & 15, lanes >> 4], axis=-1).reshape(*lanes.shape[:2], -1)
        stride = run_stride * config.bus_bytes
        flags = np.empty((count, lanes.shape[1] * lanes.shape[2]), np.bool_)
        for tile in range(count):
            segment = packed.runs[tile * stride : tile * stride + packed.run_beats * config.bus_bytes]
            beats = [int.from_bytes(segment[i : i + config.bus_bytes], "little") for i in range(0, len(segment), config.bus_bytes)]
            flags[tile] = np.ravel(decode(beats, lanes.shape[1], lanes.shape[2], config.bus_bits, config.run_bits))
        codes = from_beats(lanes, tiles(shape, config), config, bits)
        outlier = from_beats(flags.reshape(lanes.shape), tiles(shape, config), config, bits)
        rows, cols = shape
        for name, matrix in (("codes", codes), ("outliers", outlier)):
            if matrix[rows:].any() or matrix[:, cols:].any():
                raise ValueError(f"the padding of a {rows}×{cols} tensor holds {name}")
        return cls(codes[:rows, :cols].copy(), outlier[:rows, :cols].copy(), bits, signed, threshold, k)

    def replace(self, **changes: object) -> "OaqTensor":
        return replace(self, **changes)  # type: ignore[arg-type]


def tiles(shape: tuple[int, int], config: LtoaqConfig) -> tuple[int, int]:
    """Rows and columns of tiles that cover a matrix."""
    return -(-shape[0] // config.tile), -(-shape[1] // config.tile)


def to_beats(matrix: NDArray, config: LtoaqConfig, bits: int) -> NDArray:
    """A matrix, padded with zeros, as tiles × beats × lanes in the order of memory."""
    s, b = config.tile, config.block
    rows, cols = tiles(matrix.shape, config)  # type: ignore[arg-type]
    padded = np.zeros((rows * s, cols * s), matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    halves = bits // 4
    grid = padded.reshape(rows, s // b, b, cols, s // b, halves, b // halves)
    # (tile row, block row, row, tile column, block column, half, column) to (tile, block, half, row, column)
    return grid.transpose(0, 3, 1, 4, 5, 2, 6).reshape(rows * cols, config.tile_beats(bits), b * b // halves)


def from_beats(beats: NDArray, grid: tuple[int, int], config: LtoaqConfig, bits: int) -> NDArray:
    """The inverse of `to_beats`, padding included, for a `grid` of tiles."""
    s, b = config.tile, config.block
    halves = bits // 4
    blocks = beats.reshape(*grid, s // b, s // b, halves, b, b // halves)
    return blocks.transpose(0, 2, 5, 1, 3, 4, 6).reshape(grid[0] * s, grid[1] * s)
