"""Verilog generation: one readable file, each distinct module once.

Amaranth writes one module for every place in the hierarchy. Components marked `emit_once` are written once for each distinct
set of constructor arguments and instantiated everywhere else; under simulation and formal verification they elaborate
in place as usual.

Restrictions, checked where they can be: clock enables and resets inserted from outside (``EnableInserter``,
``ResetInserter``) do not reach into a shared module; a shared module uses the clock domain ``sync`` only.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Fragment, Instance, ResetSignal, Signal, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib.wiring import Component, In

from .keywords import KEYWORDS
from .untangle import untangle

__all__ = ["emit_once", "emit_verilog", "sidecar"]

_PORT = re.compile(r"^  wire .*\b(input|output) \d+ .*\\(\S+)$", re.M)
_MODULE = re.compile(r"^(module|  cell) \\\S+", re.M)
_RESERVED = re.compile(r"\\(?:" + "|".join(sorted(KEYWORDS)) + r")(?=[\s\[])")
_NUMBERED = re.compile(r"\\[A-Za-z_]\w*(?:\$\d+)+\b")
_ZEROED = re.compile(
    r"^  cell \$meminit_v2 \S+\n(?:    (?!connect \\DATA).*\n)*    connect \\DATA \d+'0*\n(?:    .*\n)*  end\n", re.M
)
_PART = re.compile(r"\\([A-Za-z_]\w*)\[(\d+)(?::(\d+))?\](?=\s)")
_C = TypeVar("_C", bound=type)


class _Emitter:
    """The "platform" under which shared components become instances."""

    def __init__(self) -> None:
        self.modules: dict[str, str] = {}
        self._arguments: dict[str, Any] = {}
        self._defining: Component | None = None

    def text(self, top: Component, name: str) -> str:
        top_text = self._define(top, name)
        return "\n".join([*self.modules.values(), top_text])

    def _define(self, component: Component, name: str) -> str:
        outer, self._defining = self._defining, component
        fragment = Fragment.get(component, self)
        self._defining = outer
        _name_nets(fragment)
        ports = {
            port: (value, PortDirection.Input if flow is In else PortDirection.Output) for port, flow, value in _members(component)
        }
        text, _ = rtlil.convert_fragment(fragment, ports=ports, name=name, emit_src=False)
        return text

    def instance(self, component: Any) -> Instance:
        name = component.module_name
        arguments = component._emit_arguments
        if name not in self.modules:
            self.modules[name] = ""
            self._arguments[name] = arguments
            copy = type(component)(*arguments[0], **arguments[1])
            self.modules[name] = self._define(copy, name).replace("attribute \\top 1\n", "", 1)
        elif self._arguments[name] != arguments:
            raise TypeError(
                f"module name {name!r} stands for two sets of arguments: {self._arguments[name]} and {arguments}; "
                "module_name must encode every argument"
            )
        # The text holds the module's own submodules as well.
        body = re.search(rf"^module \\{re.escape(name)}$.*?^end$", self.modules[name], re.M | re.S)
        declared = {port for _, port in _PORT.findall(body[0] if body else "")}
        connections: list[Any] = [("i" if flow is In else "o", port, value) for port, flow, value in _members(component)]
        connections += [("i", port, value) for port, value in (("clk", ClockSignal()), ("rst", ResetSignal())) if port in declared]
        if {port for _, port, _ in connections} != declared:
            raise TypeError(f"ports of {name}, {sorted(declared)}, do not match its signature")
        return Instance(name, *connections)


def emit_once(cls: _C) -> _C:
    """Class decorator: in generated Verilog all instances with equal arguments share one module, named ``module_name``."""
    inner_init: Callable[..., None] = cls.__init__  # type: ignore[misc]
    inner_elaborate = cls.elaborate  # type: ignore[attr-defined]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        self._emit_arguments = (args, kwargs)
        inner_init(self, *args, **kwargs)

    def elaborate(self: Any, platform: Any) -> Any:
        if isinstance(platform, _Emitter) and platform._defining is not self:
            return platform.instance(self)
        return inner_elaborate(self, platform)

    cls.__init__ = __init__  # type: ignore[misc]
    cls.elaborate = elaborate  # type: ignore[attr-defined]
    return cls


def _members(component: Any) -> Iterator[tuple[str, Any, Value]]:
    for path, member, value in component.signature.flatten(component):
        yield "__".join(map(str, path)), member.flow, Value.cast(value)


def _name_nets(fragment: Fragment) -> None:
    """Name the nets at an instance after its place, so that a thousand of them stay readable."""
    for sub, name, _ in fragment.subfragments:
        if isinstance(sub, Instance):
            for port, (value, _kind) in sub.ports.items():
                if isinstance(value, Signal):
                    value.name = f"{name}__{port}"
        else:
            _name_nets(sub)


def emit_verilog(component: Component, name: str, *, share: bool = True) -> str:
    """Verilog of `component` as module `name`.

    With ``share=False`` every place in the hierarchy gets a module of its own, as plain Amaranth does; the two are
    equivalent (the test suite proves it for the small configurations). Raises ValueError if the module or a port of it has a
    name that (System)Verilog reserves: what drives it from outside would not find it under another.
    """
    if reserved := sorted(KEYWORDS & {name, *(port for port, _, _ in _members(component))}):
        raise ValueError(f"{name}: {', '.join(reserved)} cannot be the name of a module or of its ports, Verilog reserves it")
    if share:
        text = _Emitter().text(component, name)
    else:
        ports = {
            port: (value, PortDirection.Input if flow is In else PortDirection.Output) for port, flow, value in _members(component)
        }
        text, _ = rtlil.convert_fragment(Fragment.get(component, None), ports=ports, name=name, emit_src=False)
    return _clean(text, name)


_YOSYS = "import sys; from pyosys import libyosys as ys; d = ys.Design(); [ys.Pass.call(d, f'tee -q {c}') for c in sys.argv[1:]]"


def _yosys(commands: list[str], name: str) -> None:
    run = subprocess.run([sys.executable, "-c", _YOSYS, *commands], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"Yosys failed on {name}: {(run.stdout + run.stderr)[-2000:]}")


def _part_name(match: re.Match[str]) -> str:
    """A register of which some bits turned out to be constant: Yosys names what is left after its place, ``\\count[3:1]``."""
    return "_".join(filter(None, match.groups()))


def _clean(text: str, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, optimized, target = Path(folder, "in.il"), Path(folder, "optimized.il"), Path(folder, "out.v")
        # Amaranth joins the names of nested modules with dots and numbers what would clash with dollars, which Verilog would have
        # to escape; so would it reserved words.
        text = _MODULE.sub(lambda match: match[0].replace(".", "__"), text)
        text = _NUMBERED.sub(lambda match: match[0].replace("$", "_"), text)
        # Nothing may rely on what a memory holds at first, so nothing is said of it.
        text = _ZEROED.sub("", text)
        source.write_text(_RESERVED.sub(lambda match: match[0] + "_", text))
        # A process of its own: Yosys numbers nets through its whole life, and equal designs must give equal text.
        commands = [
            f"read_rtlil {source}",
            f"hierarchy -check -top {name}",
            "proc",
            "opt_clean",
            "opt_dff -keepdc",
            "opt_clean -purge",
            f"write_rtlil {optimized}",
        ]
        _yosys(commands, name)
        optimized.write_text(untangle(optimized.read_text()))
        # The branches of a selection by one-hot conditions exclude each other as written, not by an attribute that promises it.
        _yosys([f"read_rtlil {optimized}", "rename -unescape", f"write_verilog -noattr -noparallelcase {target}"], name)
        verilog = _PART.sub(_part_name, target.read_text())
    if "\\" in verilog:
        line = next(line for line in verilog.splitlines() if "\\" in line)
        raise ValueError(f"generated Verilog of {name} holds an escaped name: {line.strip()}")
    header = f"// {name}: generated by nibblecore; change the source, not this file.\n"
    return header + "\n".join(line for line in verilog.splitlines() if not line.startswith("/* Generated by")) + "\n"


def sidecar(component: Any, name: str, *, config: dict[str, Any], latencies: dict[str, Any]) -> str:
    """JSON beside the Verilog of a component with registers: ports, configuration, latencies in cycles, tool versions."""
    ports = [{"name": port, "direction": "input", "width": 1, "signed": False} for port in ("clk", "rst")]
    ports += [
        {"name": port, "direction": "input" if flow is In else "output", "width": len(value), "signed": value.shape().signed}
        for port, flow, value in _members(component)
    ]
    versions = {package: version(package) for package in ("amaranth", "pyosys")}
    return (
        json.dumps({"module": name, "config": config, "latencies": latencies, "ports": ports, "versions": versions}, indent=2)
        + "\n"
    )
