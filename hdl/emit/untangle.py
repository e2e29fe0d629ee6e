"""Output ports that depend on themselves as vectors though not bit by bit.

A bus that its own module reads back by slices, ``o[1] = ~o[0]``, is no loop; but tools that order logic by whole vectors, Verilator
among them, see one, warn of it and simulate it slowly. They divide nets inside a module themselves; a port has to stay whole.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import NamedTuple

__all__ = ["untangle"]

_MODULE = re.compile(r"^module (\S+)\n.*?^end\n", re.M | re.S)
_WIRE = re.compile(r"^  wire (?:width (\d+) )?(?:(input|output) \d+ )?(?:signed )?([\\$]\S+)$", re.M)
_CELL = re.compile(r"^  cell (\S+) \S+\n(.*?)^  end$", re.M | re.S)
_PORT = re.compile(r"^    connect (\S+) (.*)$", re.M)
_ALIAS = re.compile(r"^  connect (\{.*?\}|\S+(?: \[[\d:]+\])?) (.*)$", re.M)
_CHUNK = re.compile(r"([\\$]\S+)(?: \[(\d+)(?::(\d+))?\])?|(\d+)'\S+|(?<!\S)-?\d+(?!\S)")
_INIT = re.compile(r"  attribute \\init \d+'(\S+)")
_RESULTS = {r"\Y", r"\Q", r"\DATA"}
_STATE = {"$dff", "$dffe", "$adff", "$adffe", "$sdff", "$sdffe", "$sdffce", "$memwr", "$memwr_v2", "$meminit", "$meminit_v2"}


class _Chunk(NamedTuple):
    """Bits of a net, or of a constant if `net` is empty."""

    net: str
    low: int
    bits: int


def untangle(text: str) -> str:
    """The same design, RTLIL as `opt_clean` leaves it, with every output port that lies on a loop of whole nets divided.

    Drivers and readers inside the module get nets ``<port>_<high>_<low>``, one for each driver, which make up the port.
    """
    modules = {match[1]: match[0] for match in _MODULE.finditer(text)}
    outputs = {name: {net for _, direction, net in _WIRE.findall(text) if direction == "output"} for name, text in modules.items()}

    def mend(match: re.Match[str]) -> str:
        module = match[0]
        for port in sorted(_tangled(module) & outputs[match[1]]):
            module = _divide(module, port, outputs)
        return module

    return _MODULE.sub(mend, text)


def _tangled(module: str) -> set[str]:
    """Nets on a loop of whole nets through the module's combinational cells, enough of them to cut every loop."""
    widths = _widths(module)
    sources: dict[str, set[str]] = defaultdict(set)
    for kind, ports in _cells(module, widths):
        if kind.startswith("$") and kind not in _STATE:
            inputs = {chunk.net for port, chunks in ports.items() if port not in _RESULTS for chunk in chunks if chunk.net}
            for target in {chunk.net for port in ports.keys() & _RESULTS for chunk in ports[port]}:
                sources[target] |= inputs
    for left, right in _ALIAS.findall(module):
        bits = ([chunk.net for chunk in _chunks(side, widths) for _ in range(chunk.bits)] for side in (left, right))
        for target, source in zip(*bits, strict=True):
            if source:
                sources[target].add(source)
    tangled: set[str] = set()
    while True:
        try:
            TopologicalSorter({net: inputs - tangled for net, inputs in sources.items() if net not in tangled}).prepare()
        except CycleError as error:
            tangled.update(error.args[1])
        else:
            return tangled


def _divide(module: str, port: str, outputs: dict[str, set[str]]) -> str:
    """`module` with a net for each driver of `port`; `outputs`: the output ports of every module."""
    widths = _widths(module)
    driving = [chunk for left, _ in _ALIAS.findall(module) for chunk in _chunks(left, widths)]
    for kind, ports in _cells(module, widths):
        driving += [chunk for name, chunks in ports.items() if name in outputs.get(kind, _RESULTS) for chunk in chunks]
    width = widths[port]
    edges = {0, width}.union(*((chunk.low, chunk.low + chunk.bits) for chunk in driving if chunk.net == port))
    # (net, lowest bit, the bit above its highest), most significant first.
    parts = [(f"{port}_{end - 1}_{start}", start, end) for start, end in pairwise(sorted(edges))][::-1]
    if taken := widths.keys() & {net for net, _, _ in parts}:
        raise ValueError(f"dividing port {port} would take a name that is in use: {', '.join(taken)}")

    def slices(match: re.Match[str]) -> str:
        high, low = (width - 1, 0) if match[1] is None else (int(match[1]), int(match[2] or match[1]))
        bits = (
            (net, min(high + 1, end) - 1 - start, max(low, start) - start)
            for net, start, end in parts
            if start <= high and low < end
        )
        return f"{{ {' '.join(f'{net} [{top}:{bottom}]' for net, top, bottom in bits)} }}"

    reference = re.compile(rf"{re.escape(port)}(?: \[(\d+)(?::(\d+))?\])?(?!\S)")
    lines = [reference.sub(slices, line) if line.lstrip().startswith("connect ") else line for line in module.splitlines()]
    place = next(i for i, line in enumerate(lines) if line.startswith("  wire ") and line.endswith(f" {port}"))
    first = place
    while lines[first - 1].startswith("  attribute "):
        first -= 1
    init = next(filter(None, map(_INIT.fullmatch, lines[first:place])), None)
    declarations = []
    for net, start, end in parts:
        if init:
            declarations.append(f"  attribute \\init {end - start}'{init[1][width - end : width - start]}")
        declarations.append(f"  wire width {end - start} {net}")
    kept = [line for line in lines[first:place] if not _INIT.fullmatch(line)]
    lines[first : place + 1] = [*kept, lines[place], *declarations]
    return "\n".join([*lines[:-1], f"  connect {port} {{ {' '.join(net for net, _, _ in parts)} }}", lines[-1], ""])


def _widths(module: str) -> dict[str, int]:
    return {net: int(width or 1) for width, _, net in _WIRE.findall(module)}


def _cells(module: str, widths: dict[str, int]) -> Iterator[tuple[str, dict[str, list[_Chunk]]]]:
    """Type and connections of each cell."""
    for kind, body in _CELL.findall(module):
        yield kind, {port: _chunks(signal, widths) for port, signal in _PORT.findall(body)}


def _chunks(signal: str, widths: dict[str, int]) -> list[_Chunk]:
    """The parts of a signal, most significant first."""
    chunks = []
    for net, high, low, constant in _CHUNK.findall(signal):
        if not net:
            chunks.append(_Chunk("", 0, int(constant or 32)))
        elif high:
            chunks.append(_Chunk(net, int(low or high), int(high) - int(low or high) + 1))
        else:
            chunks.append(_Chunk(net, 0, widths[net]))
    return chunks
