"""Golden twin of the step walker: the loop nest of a matrix product (docs/ltoaq.md, "Tiling")."""

from collections.abc import Iterator
from typing import NamedTuple

from nibblecore.hdl.config import LtoaqConfig

__all__ = ["Product", "Step", "steps"]


class Product(NamedTuple):
    """A product's elements and its tiling: panels of A and of W, and tiles of K, resident at a time."""

    m: int
    n: int
    k: int
    eight_bit: bool
    a_group: int
    w_group: int
    chunk_tiles: int

    def tiles(self, config: LtoaqConfig) -> tuple[int, int, int]:
        """Along M, N and K."""
        return -(-self.m // config.tile), -(-self.n // config.tile), -(-self.k // config.tile)

    def chunked(self, config: LtoaqConfig) -> bool:
        return self.chunk_tiles != self.tiles(config)[2]


class Step(NamedTuple):
    """A group of A panels times a group of W panels over one part of K; see `StepLayout` of the RTL's jobs."""

    a_first: int
    w_first: int
    a_count: int
    w_count: int
    tiles: int
    k: int
    sub: int
    new_w: int
    release_w: int
    first_part: int
    last_part: int
    last: int


def steps(product: Product, config: LtoaqConfig) -> Iterator[Step]:
    """All steps of a product, W groups outermost, then A groups, then (chunked K only) the parts of a tile, then K."""
    m_tiles, n_tiles, k_tiles = product.tiles(config)
    chunked = product.chunked(config)
    subs = range((config.tile // config.rows) * (config.tile // config.output_cols)) if chunked else range(1)
    a_starts, w_starts = range(0, m_tiles, product.a_group), range(0, n_tiles, product.w_group)
    k_starts = range(0, k_tiles, product.chunk_tiles)
    for w in w_starts:
        for a in a_starts:
            for sub in subs:
                for t in k_starts:
                    k_end = min(product.k, (t + product.chunk_tiles) * config.tile)
                    yield Step(
                        a_first=a,
                        w_first=w,
                        a_count=min(product.a_group, m_tiles - a),
                        w_count=min(product.w_group, n_tiles - w),
                        tiles=min(product.chunk_tiles, k_tiles - t),
                        k=k_end - t * config.tile,
                        sub=sub,
                        new_w=int(chunked or a == 0),
                        release_w=int(chunked or a == a_starts[-1]),
                        first_part=int(t == 0),
                        last_part=int(t == k_starts[-1]),
                        last=int((w, a, sub, t) == (w_starts[-1], a_starts[-1], subs[-1], k_starts[-1])),
                    )
