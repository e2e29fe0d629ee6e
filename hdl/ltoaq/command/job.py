"""What the controller has worked out of a descriptor, for the units that carry a command out."""

from amaranth.lib import data

__all__ = [
    "GemmJob",
    "MatrixShape",
    "OperandFormat",
    "OperandJob",
    "OutputJob",
    "RawJob",
    "StepLayout",
    "TensorSummary",
    "TileIndex",
    "pass_layout",
]


class OperandJob(data.Struct):
    """Where the tiles of an operand lie. Steps are in bytes: to the next tile along K, and to the next panel."""

    transposed: 1
    codes: 32
    runs: 32
    run_beats: 16
    codes_k_step: 32
    codes_panel_step: 32
    runs_k_step: 32
    runs_panel_step: 32


class GemmJob(data.Struct):
    """Sizes in tiles of S, group sizes in panels; `chunked` when K does not stay resident."""

    eight_bit: 1
    m_tiles: 16
    n_tiles: 16
    k: 16
    k_tiles: 16
    a_group: 8
    w_group: 8
    chunk_tiles: 16
    chunked: 1


class RawJob(data.Struct):
    """A 32-bit matrix in memory: row-major, pitch in bytes."""

    address: 32
    pitch: 32


class OutputJob(data.Struct):
    """An OAQ tensor to write: bytes from one tile to the next, and from one row of tiles to the next."""

    codes: 32
    runs: 32
    run_stride: 16
    codes_row_step: 32
    runs_tile_step: 32
    runs_row_step: 32


class StepLayout(data.Struct):
    """One step of a matrix product: a group of A panels times a group of W panels over one part of K.

    `new_w` says that the W group is not resident yet, `release_w` that no later step uses it. `sub` is the part of a tile
    that is computed when K is chunked (all parts otherwise).
    """

    a_first: 16
    w_first: 16
    a_count: 8
    w_count: 8
    tiles: 16
    k: 16
    sub: 8
    new_w: 1
    release_w: 1
    first_part: 1
    last_part: 1
    last: 1


class TileIndex(data.Struct):
    """Place of an output tile in its grid."""

    row: 16
    col: 16


class MatrixShape(data.Struct):
    """Elements, and tiles of S."""

    m: 16
    n: 16
    m_tiles: 16
    n_tiles: 16


class OperandFormat(data.Struct):
    """How an operand's codes decode; constant during a command."""

    signed: 1
    k: 2
    threshold: 8


class TensorSummary(data.Struct):
    """What a tensor's header reports."""

    run_beats: 16
    x_max: 32
    outliers: 32
    saturations: 32
    gradient: 64
    overflow: 1


def pass_layout(address_bits: int) -> data.StructLayout:
    """One tile pass: `words` words of both operands from their bank addresses.

    `resume` continues the accumulators of the pass before; `last` says that the result is complete after this pass. The release
    flags say that this pass is the last to read its half of a buffer.
    """
    return data.StructLayout(
        {"a_address": address_bits, "w_address": address_bits, "words": 16, "resume": 1, "last": 1, "release_a": 1, "release_w": 1}
    )
