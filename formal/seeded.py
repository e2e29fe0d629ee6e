"""A fault in generated Verilog under a formal proof: the Verilog takes the block's place in the proof's specification."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from amaranth.hdl import ClockSignal, Instance, ResetSignal
from amaranth.lib.wiring import Component, In
from nibblecore.hdl.emit.emit import emit_verilog
from nibblecore.hdl.emit.names import members
from nibblecore.sim.faults.seeding import Fault, Text, mutated

from .runner import Proof, refuted

__all__ = ["refutes"]


class _Unwritable(Exception):
    """The block as the specification builds it cannot be written as Verilog."""


def refutes(proof: Proof, fault: Fault, folder: Path, timeout: int = 60) -> bool:
    """Whether `proof` finds a counterexample once the fault is in the block.

    False as well where its specification builds the block with other parameters, so that the fault is in no line of it, and where it
    looks inside the block, so that a counterexample would say nothing: then it finds one in the block without a fault too. False where it
    puts what only a proof has, such as ``$anyseq``, inside the block, which Verilog then cannot say.
    """
    return (
        _hunt(proof, fault, folder / "fault", True, timeout) == "FAIL"
        and _hunt(proof, fault, folder / "none", False, timeout) == "PASS"
    )


def _hunt(proof: Proof, fault: Fault, folder: Path, faulty: bool, timeout: int) -> str:
    """How the hunt ends; "" if the fault is nowhere."""
    texts: dict[str, str] = {}
    seeded = []

    def verilog_of(component: Any) -> tuple[str, list[str]]:
        name = f"block_{len(texts)}"
        try:
            text = Text(emit_verilog(component, name, sources=True))
        except ValueError as error:
            raise _Unwritable from error
        here = [other for other in text.faults() if other.key == fault.key]
        seeded.extend(here)
        texts[name] = mutated(text, here[0]) if here and faulty else "\n".join(text.lines)
        head = text.lines[text.modules[name].start : text.modules[name].stop]
        return name, [port for port in ("clk", "rst") if f"  input {port};" in head]

    with _as_verilog(fault.block, verilog_of), suppress(_Unwritable):
        return refuted(proof, folder, proof.spec(), lambda: "\n".join(texts.values()) if seeded else "", timeout)
    return ""


@contextmanager
def _as_verilog(block: str, verilog_of: Any) -> Iterator[None]:
    """The components of a block's file elaborate to an instance of the module that `verilog_of` names."""
    module = importlib.import_module(f"nibblecore.hdl.{block.replace('/', '.')}")
    classes: list[Any] = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Component) and kind.__module__ == module.__name__
    ]
    own = {kind: kind.elaborate for kind in classes}

    def elaborate(self: Any, platform: Any) -> Any:
        for kind in classes:
            kind.elaborate = own[kind]
        name, clocked = verilog_of(self)
        for kind in classes:
            kind.elaborate = elaborate
        ports = [("i" if flow is In else "o", port, value) for port, flow, value in members(self)]
        return Instance(name, *ports, *(("i", port, {"clk": ClockSignal(), "rst": ResetSignal()}[port]) for port in clocked))

    for kind in classes:
        kind.elaborate = elaborate
    try:
        yield
    finally:
        for kind in classes:
            kind.elaborate = own[kind]
