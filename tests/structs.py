"""Structs that a port has flattened to one integer, by their members' names."""

from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data


def _fields(shape: Any) -> list[tuple[str, int, int]]:
    layout = data.Layout.cast(shape)
    return [(str(name), field.offset, Shape.cast(field.shape).width) for name, field in layout]


def split(shape: Any, word: int) -> dict[str, int]:
    """Members of `word`, unsigned."""
    return {name: int(word) >> offset & (1 << width) - 1 for name, offset, width in _fields(shape)}


def join(shape: Any, members: dict[str, int]) -> int:
    """The integer with these members; the others are 0."""
    places = {name: (offset, width) for name, offset, width in _fields(shape)}
    word = 0
    for name, value in members.items():
        offset, width = places[name]
        if not 0 <= int(value) < 1 << width:
            raise ValueError(f"{name} has {width} bits; {value} does not fit")
        word |= int(value) << offset
    return word
