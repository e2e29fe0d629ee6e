"""The rule of every AXI channel: what is offered holds until it is taken."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import Assert
from nibblecore.formal.runner import Proof

__all__ = ["PROOFS", "assert_holds"]

PROOFS: list[Proof] = []
"""None: what the other proofs share."""


def assert_holds(m: Module, name: str, valid: Any, ready: Any, *payload: Any, unless: Any = 0) -> None:
    """Assert that after a cycle with `valid` and without `ready`, `valid` is still high and the payload the same, or `unless`."""
    together = Cat(*payload)
    waiting = Signal(name=f"{name}_waiting")
    before = Signal(len(together), name=f"{name}_before")
    m.d.sync += [waiting.eq(valid & ~ready), before.eq(together)]
    m.d.comb += Assert(Mux(waiting & ~Value.cast(unless)[0], valid & (together == before), 1))
