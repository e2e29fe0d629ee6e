"""Readable names for what Amaranth numbers: signals that share a name in a module, and ports that are no whole signal.

Of two signals of one name Amaranth gives one a number, and a port for some bits of a signal it names after a number of its netlist. Both
change with any edit elsewhere.
"""

from collections.abc import Iterator
from typing import Any

from amaranth.hdl import Fragment, Signal, Value
from amaranth.hdl._ast import SignalDict
from amaranth.hdl._ir import Design
from amaranth.hdl._nir import Module, Netlist
from amaranth.hdl._nir import Value as NetValue
from amaranth.lib.wiring import Component

__all__ = ["members", "name_ports", "name_signals"]


def members(component: Any) -> Iterator[tuple[str, Any, Value]]:
    """Name in Verilog, direction and value of each port of a component."""
    for path, member, value in component.signature.flatten(component):
        yield "__".join(map(str, path)), member.flow, Value.cast(value)


def _component_of(fragment: Fragment) -> Component | None:
    """The component that `fragment` was made from."""
    return next((origin for origin in fragment.origins or () if isinstance(origin, Component)), None)


def _ports(fragment: Fragment) -> dict[Any, str]:
    component = _component_of(fragment)
    named = SignalDict()
    for name, _, value in members(component) if component is not None else ():
        if isinstance(value, Signal):
            named.setdefault(value, name)
    return named


def _free(name: str, taken: set[str]) -> str:
    """`name`, or if that is taken the first of ``name_2``, ``name_3``, … that is not; takes it."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found)
    return found


def name_signals(design: Design) -> None:
    """Name every signal anew, module by module.

    A module's own ports have the names of its component's members, those of its submodules ``<submodule>__<member>``; all others
    keep their names, numbered from 2 where one is taken.
    """
    _name_signals(design, design.fragment, design.hierarchy)


def _name_signals(design: Design, fragment: Fragment, hierarchy: tuple[str, ...]) -> None:
    info = design.fragments[fragment]
    info.name = hierarchy
    top = fragment is design.fragment
    own = SignalDict((value, name) for name, value, _ in design.ports if isinstance(value, Signal)) if top else _ports(fragment)
    taken = {name for name, _, _ in design.ports} if top else set()
    names = SignalDict()
    for signal, name in own.items():
        if signal in info.signal_names:
            taken.add(name)
            names[signal] = name
    of_inner = SignalDict()
    for place, (sub, name, _) in enumerate(fragment.subfragments):
        name = _free(name or f"submodule{place}", taken)
        for signal, port in _ports(sub).items():
            of_inner.setdefault(signal, f"{name}__{port}")
        _name_signals(design, sub, (*hierarchy, name))
    for signal in info.signal_names:
        if signal not in names:
            names[signal] = _free(of_inner.get(signal) or signal.name, taken)
    info.signal_names, info.assigned_names = names, taken


def name_ports(netlist: Netlist) -> None:
    """Name after a signal every port that is no whole signal of its module: a field of the signal, or some of its bits.

    A port of several signals, which Amaranth joins where they are neighbours in the cell that drives them, becomes several.
    """
    for module in netlist.modules:
        taken = {*module.ports, *module.signal_names.values(), *(netlist.modules[inner].name[-1] for inner in module.submodules)}
        whole = {name: netlist.signals[signal] for signal, name in module.signal_names.items()}
        ports = {}
        for name, (nets, flow) in module.ports.items():
            while "$" in name and nets:
                count, found = _first_part(netlist, module, nets)
                ports[found if whole.get(found) == nets[:count] else _free(found, taken)] = (nets[:count], flow)
                nets = nets[count:]
            if nets:
                ports[name] = (nets, flow)
        module.ports.clear()
        module.ports.update(ports)


def _first_part(netlist: Netlist, module: Module, port: NetValue) -> tuple[int, str]:
    """Of how many of the nets of a port, from the lowest on, there is a name, and which; names nearer the module count more."""
    near = [module]
    while (parent := near[-1].parent) is not None:
        near.append(netlist.modules[parent])
    signals = [item for place in near for item in place.signal_names.items()]
    parts = []
    for signal, name in signals:
        for path, field in netlist.signal_fields[signal].items():
            if field.value == port[: len(field.value)] and field.value:
                parts.append((len(field.value), "__".join([name, *map(str, path)])))
        nets = netlist.signals[signal]
        if port[0] in nets:
            low = nets.index(port[0])
            count = next(
                (n for n, (a, b) in enumerate(zip(nets[low:], port, strict=False)) if a != b), min(len(nets) - low, len(port))
            )
            parts.append((count, f"{name}_{low + count - 1}_{low}" if count > 1 else f"{name}_{low}"))
    return max(parts, key=lambda part: part[0], default=(len(port), "port"))
