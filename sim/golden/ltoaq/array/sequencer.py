"""Golden twin of the sequencer: every pass of the array, with the bank addresses of its operands."""

from collections.abc import Iterator
from typing import NamedTuple

from nibblecore.hdl.config import LtoaqConfig
from nibblecore.sim.golden.ltoaq.operands.step_walker import Product, steps

__all__ = ["Pass", "passes"]


class Pass(NamedTuple):
    """One tile pass, the panels it needs and the tile it completes.

    `a_tiles` and `w_tiles` count the tiles loaded since the start before those of the pass, of which there are `tiles` on either
    side; the words of tile i of them may go as soon as more than that and i have arrived on both sides.
    """

    a_address: int
    w_address: int
    words: int
    resume: int
    last: int
    release_a: int
    release_w: int
    a_tiles: int
    w_tiles: int
    tiles: int
    tile: tuple[int, int] | None


def pairs(a_count: int, w_count: int, new_w: bool) -> list[tuple[int, int]]:
    """All pairs of A and W panels in the order in which loading completes them, A and W panels alternating while both last."""
    arrives_w = [2 * w + 1 if new_w else -1 for w in range(w_count)]
    newest = {(a, w): max(2 * a, arrives_w[w]) for a in range(a_count) for w in range(w_count)}
    return sorted(newest, key=lambda pair: (newest[pair], pair))


def passes(product: Product, config: LtoaqConfig) -> Iterator[Pass]:
    """All passes of a product in order.

    A panel lies in its half of a bank as S/R (S/C for W) runs of words along K, one for each part of the tile's rows.
    """
    half = config.bank_words // 2
    row_parts, col_parts = config.tile // config.rows, config.tile // config.output_cols
    run = product.chunk_tiles * config.tile // config.block * (2 if product.eight_bit else 1)
    parts = [(row, col) for row in range(row_parts) for col in range(col_parts)]
    chunked = product.chunked(config)
    a_loaded = w_loaded = 0  # tiles of all groups before the current one
    a_half = w_half = 0
    for step in steps(product, config):
        inside = [
            (a, w, part)
            for a, w in pairs(step.a_count, step.w_count, bool(step.new_w))
            for part in ([parts[step.sub]] if chunked else parts)
        ]
        for a, w, (row, col) in inside:
            ends = (a, w, (row, col)) == inside[-1]
            completes = step.last_part and (row, col) == parts[-1]
            yield Pass(
                a_address=a_half * half + (a * row_parts + row) * run,
                w_address=w_half * half + (w * col_parts + col) * run,
                words=-(-step.k // config.word_elements(8 if product.eight_bit else 4)),
                resume=1 - step.first_part,
                last=step.last_part,
                release_a=int(ends),
                release_w=int(ends and step.release_w),
                a_tiles=a_loaded + a * step.tiles,
                w_tiles=w_loaded + w * step.tiles,
                tiles=step.tiles,
                tile=(step.a_first + a, step.w_first + w) if completes else None,
            )
        a_loaded, a_half = a_loaded + step.a_count * step.tiles, 1 - a_half
        if step.release_w:
            w_loaded, w_half = w_loaded + step.w_count * step.tiles, 1 - w_half
