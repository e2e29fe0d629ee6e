"""How a matrix product is cut to fit the operand buffer (docs/ltoaq.md, "Tiling")."""

from typing import NamedTuple

from nibblecore.hdl.config import LtoaqConfig

__all__ = ["Tiling", "choose", "fits", "panel_words"]

_GROUP_MAX = 255


class Tiling(NamedTuple):
    """Panels of A and of W resident at a time, and tiles of K."""

    a_group: int
    w_group: int
    k_tiles: int


def panel_words(config: LtoaqConfig, k_tiles: int, bits: int) -> tuple[int, int]:
    """Words that a panel of A, and one of W, take in each bank of their buffers."""
    along_k = k_tiles * (config.tile // config.block) * bits // 4
    return config.tile // config.rows * along_k, config.tile // config.output_cols * along_k


def fits(config: LtoaqConfig, tiling: Tiling, k: int, bits: int) -> bool:
    """Whether the accelerator takes this tiling for products over `k` elements."""
    all_k_tiles = -(-k // config.tile)
    if not (1 <= tiling.k_tiles <= all_k_tiles and tiling.a_group >= 1 and tiling.w_group >= 1):
        return False
    if tiling.k_tiles < all_k_tiles and (tiling.a_group, tiling.w_group) != (1, 1):
        return False
    a_words, w_words = panel_words(config, tiling.k_tiles, bits)
    return tiling.a_group * a_words <= config.bank_words // 2 and tiling.w_group * w_words <= config.bank_words // 2


def choose(config: LtoaqConfig, m: int, n: int, k: int, bits: int) -> Tiling:
    """All of K resident if a panel of each operand fits, then as many of both as fit; else what fits of K."""
    all_k_tiles = -(-k // config.tile)
    half = config.bank_words // 2
    if max(panel_words(config, all_k_tiles, bits)) > half:
        return Tiling(1, 1, half // max(panel_words(config, 1, bits)))
    a_words, w_words = panel_words(config, all_k_tiles, bits)
    m_tiles, n_tiles = -(-m // config.tile), -(-n // config.tile)
    return Tiling(min(m_tiles, half // a_words, _GROUP_MAX), min(n_tiles, half // w_words, _GROUP_MAX), all_k_tiles)
