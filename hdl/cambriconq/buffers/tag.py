"""The tag: what the integers of a vector stand for."""

from amaranth import signed
from amaranth.lib import data

__all__ = ["Tag"]


class Tag(data.Struct):
    """Format of quantized values: an integer q stands for q · 2^e."""

    e: signed(8)
    size: 2  # bits / 4 − 1
