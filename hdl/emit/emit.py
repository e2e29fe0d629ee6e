"""Verilog generation: one readable file, each distinct module once.

Amaranth writes one module for every place in the hierarchy. Components marked `emit_once` are written once for each distinct
set of constructor arguments and instantiated everywhere else; under simulation and formal verification they elaborate
in place as usual.

Restrictions, checked where they can be: clock enables and resets inserted from outside (``EnableInserter``,
``ResetInserter``) do not reach into a shared module; a shared module uses the clock domain ``sync`` only.
"""

import inspect
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Fragment, Instance, Module, ResetSignal
from amaranth.hdl._ast import SignalDict
from amaranth.hdl._ir import PortDirection, build_netlist
from amaranth.lib.wiring import Component, In

from .keywords import KEYWORDS
from .names import members, name_ports, name_signals
from .untangle import untangle

__all__ = ["emit_once", "emit_verilog", "sidecar"]

_PORT = re.compile(r"^  wire .*\b(input|output) \d+ .*\\(\S+)$", re.M)
_MODULE = re.compile(r"^(module|  cell) \\(\S+)", re.M)
_RESERVED = re.compile(r"\\(?:" + "|".join(sorted(KEYWORDS)) + r")(?=[\s\[])")
_ZEROED = re.compile(
    r"^  cell \$meminit_v2 \S+\n(?:    (?!connect \\DATA).*\n)*    connect \\DATA \d+'0*\n(?:    .*\n)*  end\n", re.M
)
_PART = re.compile(r"\\([A-Za-z_]\w*)\[(\d+)(?::(\d+))?\](?=\s)")
_C = TypeVar("_C", bound=type)


class _Emitter:
    """The "platform" under which shared components become instances."""

    def __init__(self, sources: bool) -> None:
        self.sources = sources
        self.modules: dict[str, str] = {}
        self.summaries: dict[str, str] = {}
        self._arguments: dict[str, Any] = {}
        self._defining: Component | None = None

    def text(self, top: Component, name: str) -> str:
        top_text = self._define(top, name)
        return "\n".join([*self.modules.values(), top_text])

    def _define(self, component: Component, name: str) -> str:
        outer, self._defining = self._defining, component
        text = _rtlil(component, name, self, self.summaries, self.sources)
        self._defining = outer
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
        connections: list[Any] = [("i" if flow is In else "o", port, value) for port, flow, value in members(component)]
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


def _rtlil(component: Component, name: str, platform: Any, summaries: dict[str, str], sources: bool) -> str:
    """RTLIL of `component` as module `name`; adds to `summaries` what each module is."""
    fragment = Fragment.get(component, platform)
    ports = [(port, value, PortDirection.Input if flow is In else PortDirection.Output) for port, flow, value in members(component)]
    design = fragment.prepare(ports=ports, hierarchy=(name,))
    name_signals(design)
    for part, info in design.fragments.items():
        if type(part) is Fragment:
            summaries[".".join(info.name)] = _summary(part)
    netlist = build_netlist(design)
    name_ports(netlist)
    empty = rtlil.EmptyModuleChecker(netlist)
    builder = rtlil.Design(emit_src=sources)
    for number, module in enumerate(netlist.modules):
        if not empty.is_empty(number):
            text = builder.module(".".join(module.name))
            if number == 0:
                text.attribute("top", 1)
            rtlil.ModuleEmitter(text, netlist, module, SignalDict(), empty_checker=empty).emit()
    return str(builder)


def _summary(fragment: Fragment) -> str:
    """The first sentence of the docstring of what `fragment` was made from."""
    classes = [type(origin) for origin in fragment.origins or () if not isinstance(origin, Module)]
    text = next(filter(None, (vars(cls).get("__doc__") for cls in classes)), "")
    paragraph = " ".join(inspect.cleandoc(text).split("\n\n")[0].replace("``", "`").split())
    ends = (match.start() for match in re.finditer(r"\.(?=\s|$)|::$", paragraph))
    end = next((end for end in ends if paragraph.count("(", 0, end) == paragraph.count(")", 0, end)), len(paragraph))
    return paragraph[:end] + "." if paragraph else ""


def emit_verilog(
    component: Component, name: str, *, share: bool = True, prefix: str = "", comments: bool = False, sources: bool = False
) -> str:
    """Verilog of `component` as module `name`.

    With ``share=False`` every place in the hierarchy gets a module of its own, as plain Amaranth does; the two are
    equivalent (the test suite proves it for the small configurations). `prefix` stands before the name of every module, `name` too:
    designs with different ones can be read together. With ``comments=True`` each module is preceded by the first sentence of its
    component's docstring. With ``sources=True`` attributes ``src`` name the file and line that each statement came from. Raises
    ValueError if `prefix` can begin no identifier, or if the module or a port of it has a name that (System)Verilog reserves: what drives
    it from outside would not find it under another.
    """
    if not re.fullmatch(r"([A-Za-z_]\w*)?", prefix, re.ASCII):
        raise ValueError(f"no name of a module can begin with {prefix!r}: give letters, digits and _, no digit first")
    if reserved := sorted(KEYWORDS & {prefix + name, *(port for port, _, _ in members(component))}):
        raise ValueError(f"{name}: {', '.join(reserved)} cannot be the name of a module or of its ports, Verilog reserves it")
    emitter = _Emitter(sources)
    text = emitter.text(component, name) if share else _rtlil(component, name, None, emitter.summaries, sources)
    verilog = _clean(_MODULE.sub(lambda match: f"{match[1]} \\{prefix}{match[2].replace('.', '__')}", text), prefix + name, sources)
    if comments:
        summaries = {prefix + module.replace(".", "__"): summary for module, summary in emitter.summaries.items()}
        verilog = re.sub(
            r"^module (\w+)",
            lambda match: f"// {summaries[match[1]]}\n{match[0]}" if summaries.get(match[1]) else match[0],
            verilog,
            flags=re.M,
        )
    return verilog


_YOSYS = "import sys; from pyosys import libyosys as ys; d = ys.Design(); [ys.Pass.call(d, f'tee -q {c}') for c in sys.argv[1:]]"


def _yosys(commands: list[str], name: str) -> None:
    run = subprocess.run([sys.executable, "-c", _YOSYS, *commands], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"Yosys failed on {name}: {(run.stdout + run.stderr)[-2000:]}")


def _part_name(match: re.Match[str]) -> str:
    """A register of which some bits turned out to be constant: Yosys names what is left after its place, ``\\count[3:1]``."""
    return "_".join(filter(None, match.groups()))


def _clean(text: str, name: str, sources: bool) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, optimized, target = Path(folder, "in.il"), Path(folder, "optimized.il"), Path(folder, "out.v")
        # Nothing may rely on what a memory holds at first, so nothing is said of it.
        text = _ZEROED.sub("", text)
        # Verilog would have to escape reserved words.
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
        _yosys(
            [
                f"read_rtlil {optimized}",
                "rename -unescape",
                f"write_verilog {'' if sources else '-noattr '}-noparallelcase {target}",
            ],
            name,
        )
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
        for port, flow, value in members(component)
    ]
    versions = {package: version(package) for package in ("amaranth", "pyosys")}
    return (
        json.dumps({"module": name, "config": config, "latencies": latencies, "ports": ports, "versions": versions}, indent=2)
        + "\n"
    )
