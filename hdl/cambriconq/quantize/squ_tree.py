"""A tree that joins the lanes' values, with registers in it."""

from collections.abc import Callable, Sequence

from amaranth import Module, Signal, Value

__all__ = ["register_tree", "tree_latency"]

_LEVELS = 3


def register_tree(m: Module, values: Sequence[Value], join: Callable[[Value, Value], Value], name: str) -> Value:
    """All `values`, a power of two of them, joined pair by pair; registered every three levels and at the end.

    The result is `tree_latency` cycles late. `join` is associative and gives the shape that holds its result.
    """
    level = 0
    while len(values) > 1:
        level += 1
        joined = []
        for i, (a, b) in enumerate(zip(values[::2], values[1::2], strict=True)):
            result = join(a, b)
            node = Signal(result.shape(), name=f"{name}{level}_{i}", reset_less=True)
            m.d[_domain(level, len(values))] += node.eq(result)
            joined.append(node)
        values = joined
    return values[0]


def _domain(level: int, count: int) -> str:
    return "sync" if level % _LEVELS == 0 or count == 2 else "comb"


def tree_latency(lanes: int) -> int:
    """Cycles of `register_tree` over `lanes` values."""
    levels = (lanes - 1).bit_length()
    return -(-levels // _LEVELS)
