"""Twin of hdl.cambriconq.movers.vector_reader: tagged vectors in a buffer as lines."""

from collections.abc import Sequence

from .vector_loader import Line, marked

__all__ = ["vector_reader"]


def vector_reader(lines: Sequence[int], tags: Sequence[int | None], vectors: int, slot: int, at: int) -> list[Line] | None:
    """The lines of `vectors` slots from `at` on; None if one of them was not written or has not the tag of its slot's first."""
    groups = [set(tags[first : first + slot]) for first in range(at, at + vectors * slot, slot)]
    found = [tag for group in groups for tag in group if tag is not None]
    if len(found) != vectors or any(len(group) != 1 for group in groups):
        return None
    return marked(list(lines[at : at + vectors * slot]), found, slot)
