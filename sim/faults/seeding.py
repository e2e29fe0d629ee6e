"""Faults in generated Verilog: where one can be seeded, and the text that holds many of them at once.

Generated Verilog has one operation a line, and ``emit_verilog(…, sources=True)`` says of each which line of the hardware's source it
came from. So a fault is another right side for one line. `schemata` writes a text in which the variable ``MUTANT`` of the environment
chooses among them while it runs: one build by Verilator serves all the faults of a block.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["KINDS", "Fault", "Text", "drawn", "mutated", "schemata"]

KINDS = {
    "operator": "another operator, or none",
    "edge": "a comparison that takes in its bound, or leaves it out",
    "constant": "a number one higher or lower",
    "operand": "an operand tied to what leaves the other as it is",
    "condition": "a choice that always falls the same way, or with its arms exchanged",
    "arm": "the value of another arm",
    "slice": "bits from one place higher or lower",
    "bit": "a bit of the result inverted",
    "enable": "a register that always or never loads",
    "reset": "another reset value of a register by which something is decided",
}
"""Every kind of fault, and what it is."""


_SOURCE = re.compile(r'\(\* src = "([^"]*)" \*\) ?')
_ATTRIBUTE = re.compile(r"\s*\(\*.*\*\)\s*")
_DECLARATION = re.compile(r"  (?:(input|output) )?(?:(wire|reg) )?(?:signed )?(?:\[(\d+):(\d+)\] )?(\w+)(?: = [^;]*)?;")
_ARRAY = re.compile(r"  reg (?:\[(\d+):0\] )?(\w+) \[\d+:0\];")
_NAME = re.compile(r"(?<![\w'$.])[A-Za-z_]\w*")
_CONSTANT = re.compile(r"(\d+)'([hdb])([0-9a-f]+)\b")
_SLICE = re.compile(r"\b([A-Za-z_]\w*)\[(\d+)(?::(\d+))?\]")
_REGISTER = re.compile(r"    (else )?(?:if \((!?\S+)\) )?(\w+(?:\[[\d:]+\])?) <= (.+);")
_PORT = re.compile(r"    \.\w+\((.*)\),?")
_NUMBERED = re.compile(r"\b_\d+_\b")

_OTHER = {"+": "-", "-": "+", "*": "+", "&": "|", "|": "&", "^": "|", "==": "!=", "!=": "==", "<<": ">>", ">>": "<<", ">>>": ">>"}
_EDGE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_UNARY = {"~": "", "!": "| ", "-": "", "&": "| "}


@dataclass(frozen=True)
class Fault:
    """Another text for a piece of one line of a `Text`.

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    what : str
        For the reader: what stands there instead.
    module : str
        The module in the Verilog.
    source : str
        File and line of the hardware, ``"hdl/bus/reader.py:82"``.
    line : str
        The line of Verilog, without its indentation.
    number : int
        Of the line in the text.
    start, end : int
        The piece that is replaced.
    text : str
        What replaces it.
    again : int
        How many lines before it in the text are the same, of the same source.
    """

    kind: str
    what: str
    module: str
    source: str
    line: str
    number: int
    start: int
    end: int
    text: str
    again: int

    @property
    def block(self) -> str:
        """``"bus/reader"``"""
        return self.source.partition(":")[0].removeprefix("hdl/").removesuffix(".py")

    @property
    def key(self) -> str:
        """The same for the same fault in another text that holds the block, with other numbers for what Verilog numbers."""
        return " | ".join((self.source, _NUMBERED.sub("_", self.line), self.kind, _NUMBERED.sub("_", self.what), str(self.again)))


class Text:
    """Verilog with its sources, as ``emit_verilog(…, sources=True)`` writes it.

    Members
    -------
    lines : list of str
        Without attributes.
    sources : list of str
        Of each line, ``"hdl/bus/reader.py:82"``; "" where it is not of the hardware.
    modules : dict
        Of each module, by name, its lines.
    """

    def __init__(self, verilog: str) -> None:
        self.lines: list[str] = []
        self.sources: list[str] = []
        before = ""
        for line in verilog.splitlines():
            found = _SOURCE.findall(line)
            if _ATTRIBUTE.fullmatch(line):
                before = found[0] if found else before
                continue
            self.lines.append(_SOURCE.sub("", line))
            self.sources.append(_of_hardware(found[0] if found else before))
            # An attribute is of one statement, which ends where the next begins.
            before = before if line.startswith("    ") or line.endswith(("@(posedge clk)", "begin")) or "posedge" in line else ""
        starts = [(number, match[1]) for number, line in enumerate(self.lines) if (match := re.match(r"module (\w+)", line))]
        ends = [number for number, line in enumerate(self.lines) if line == "endmodule"]
        self.modules = {name: range(start, end) for (start, name), end in zip(starts, ends, strict=True)}

    def ports(self, module: str) -> dict[str, tuple[str, int]]:
        """Of each port of a module ``"input"`` or ``"output"``, and its bits."""
        declared = (_DECLARATION.fullmatch(self.lines[number]) for number in self.modules[module])
        return {match[5]: (match[1], int(match[3] or 0) + 1) for match in declared if match and match[1]}

    def holders(self) -> dict[str, set[str]]:
        """Of each module those that hold it."""
        found: dict[str, set[str]] = {name: set() for name in self.modules}
        for holder, place in self.modules.items():
            for number in place:
                if (match := re.fullmatch(r"  (\w+) \S+ \(", self.lines[number])) and match[1] in found:
                    found[match[1]].add(holder)
        return found

    def faults(self) -> Iterator[Fault]:
        """Every fault that this text can hold, where what it changes reaches a port of its module."""
        for name, place in self.modules.items():
            yield from _Module(self, name, place).faults()


def _of_hardware(source: str) -> str:
    """The first place below ``hdl/``, with its path from there; "" if there is none."""
    for place in source.split("|"):
        if match := re.search(r"(?:^|/)(hdl/[\w/]+\.py:\d+)(?:\.\d+-\d+\.\d+)?$", place):
            return match[1]
    return ""


class _Module:
    def __init__(self, text: Text, name: str, place: range) -> None:
        self._text, self._name, self._place = text, name, place
        self._widths: dict[str, int] = {}
        self._live: set[str] = set()
        self._deciding: set[str] = set()
        readers: dict[str, set[str]] = defaultdict(set)
        sources: dict[str, set[str]] = defaultdict(set)
        inside = False
        for number in place:
            line = text.lines[number]
            # The names in a function are its own.
            inside = (inside or line.startswith("  function")) and not line.startswith("  endfunction")
            if inside:
                continue
            if match := _DECLARATION.fullmatch(line):
                direction, _, high, low, net = match.groups()
                self._widths[net] = int(high) - int(low) + 1 if high else 1
                if direction == "output":
                    self._live.add(net)
            elif match := re.fullmatch(r"  assign (.+?) = (.+);", line):
                for target in _names(match[1]):
                    readers[target] |= _names(match[2])
                    sources[target] |= _names(match[2])
                self._deciding |= _deciding(match[2])
            elif match := _PORT.fullmatch(line):
                self._live |= _names(match[1])
            elif "<=" in line or line.startswith("    if (") or line.startswith("    else"):
                self._statement(number, readers)
                if match := re.match(r"    (?:else )?if \((.*?)\)", line):
                    self._deciding |= _names(match[1])
        _close(self._live, readers)
        _close(self._deciding, sources)

    def _statement(self, number: int, readers: dict[str, set[str]]) -> None:
        """What a register, or a memory, takes in: the names of all lines of its statement."""
        lines = self._text.lines
        first, last = number, number
        while not lines[first].startswith("  always"):
            first -= 1
        while lines[last + 1].startswith("    "):
            last += 1
        names = _names(" ".join(lines[first + 1 : last + 1]))
        for line in lines[first + 1 : last + 1]:
            if match := re.search(r"(\w+)(?:\[[^\]]*\])? <=", line):
                readers[match[1]] |= names

    def width(self, target: str) -> int:
        """Bits of the left side of an assignment."""
        if target.startswith("{"):
            return sum(self.width(part) for part in _parts(target))
        if match := _SLICE.fullmatch(target):
            return int(match[2]) - int(match[3]) + 1 if match[3] else 1
        return self._widths[target]

    def faults(self) -> Iterator[Fault]:
        times: dict[tuple[str, str], int] = defaultdict(int)
        source = ""
        for number in self._place:
            line = self._text.lines[number]
            source = self._text.sources[number] or self._source_of_function(number) or (source if line.startswith("    ") else "")
            if not source:
                continue
            same = (source, _NUMBERED.sub("_", line))
            for kind, what, start, end, text in self._of_line(number, line):
                if text != line[start:end]:
                    yield Fault(kind, what, self._name, source, line.strip(), number, start, end, text, times[same])
            times[same] += 1

    def _source_of_function(self, number: int) -> str:
        """A function belongs to the line that calls it, the first after its end."""
        if not self._text.lines[number].startswith("        _"):
            return ""
        while self._text.lines[number] != "  endfunction":
            number += 1
        return self._text.sources[number + 1]

    def _of_line(self, number: int, line: str) -> Iterator[tuple[str, str, int, int, str]]:
        if match := re.fullmatch(r"  assign (.+?) = (.+);", line):
            if _names(match[1]) & self._live:
                for kind, what, text in self._of_expression(match[2], self.width(match[1]), _names(match[1])):
                    yield kind, what, match.start(2), match.end(2), text
        elif match := _REGISTER.fullmatch(line):
            if _names(match[3]) & self._live:
                yield from self._of_register(match)
        elif match := re.fullmatch(r"        (\w+) = (b\[(\d+):(\d+)\]);", line):
            width = int(match[3]) - int(match[4]) + 1
            low = int(match[4]) - width if int(match[4]) else width
            header = next(
                self._text.lines[n]
                for n in range(number, 0, -1)
                if self._text.lines[n].startswith("    input") and " b;" in self._text.lines[n]
            )
            (high,) = re.findall(r"\[(\d+):0\]", header)
            if low + width - 1 <= int(high):
                text = f"b[{low + width - 1}:{low}]"
                yield "arm", f"{text} for {match[2]}", match.start(2), match.end(2), text
        elif match := re.fullmatch(r"    \w+\[\d+\] = (\d+'h[0-9a-f]+);", line):
            for what, text in _other_constants(match[1]):
                yield "constant", what, match.start(1), match.end(1), text

    def _of_register(self, match: re.Match[str]) -> Iterator[tuple[str, str, int, int, str]]:
        otherwise, condition, _, value = match.groups()
        resets = bool(condition) and not otherwise and bool(_CONSTANT.fullmatch(value))
        if resets and _names(match[3]) & self._deciding:
            for what, text in _other_constants(value):
                yield "reset", what, match.start(4), match.end(4), text
        elif condition and not resets:
            for text in ("1'h1", "1'h0"):
                yield "enable", f"{text} for {condition}", match.start(2), match.end(2), text
        if not resets:
            for what, text in _other_constants(value):
                yield "constant", what, match.start(4), match.end(4), text
            yield from (("slice", what, match.start(4), match.end(4), text) for what, text in self._other_slices(value, set()))

    def _of_expression(self, text: str, width: int, targets: set[str]) -> Iterator[tuple[str, str, str]]:
        """Faults of a right side of so many bits, as (kind, what, another right side)."""
        tokens = _split(text)
        for place in sorted({0, width // 2, width - 1}):
            if len(tokens) > 1:
                yield "bit", f"bit {place} inverted", f"{text} ^bit {place}"
        yield from (("constant", *pair) for pair in _other_constants(text))
        yield from (("slice", *pair) for pair in self._other_slices(text, targets))
        if len(tokens) == 2 and tokens[0] in (*_UNARY, "|"):
            operator, operand = tokens
            if operator in _UNARY and not (operator in "!&" and self._one_bit(operand)):
                other = _UNARY[operator]
                yield "operator", f"{other.strip() or 'nothing'} for {operator}", other + operand
            if operator in "&|" and operand.startswith("{"):
                yield from self._without_a_part(operand, lambda rest: f"{operator} {rest}")
        elif len(tokens) == 3:
            left, operator, right = tokens
            if operator in _OTHER:
                yield "operator", f"{_OTHER[operator]} for {operator}", f"{left} {_OTHER[operator]} {right}"
            if operator in _EDGE:
                yield "edge", f"{_EDGE[operator]} for {operator}", f"{left} {_EDGE[operator]} {right}"
            if operator in ("+", "-", "&", "|", "^", "<<", ">>", ">>>"):
                yield "operand", f"{left} alone", left
            if operator in ("+", "&", "|", "^"):
                yield "operand", f"{right} alone", right
            if operator == "!=" and left.startswith("{"):
                yield from self._without_a_part(left, lambda rest: f"{rest} {operator} {right}")
        elif len(tokens) == 5 and tokens[1] == "?":
            condition, _, one, _, other = tokens
            if not {"x"} & {_undefined(one), _undefined(other)}:
                yield "condition", "arms exchanged", f"{condition} ? {other} : {one}"
                yield "condition", f"always {one}", one
                yield "condition", f"always {other}", other

    def _one_bit(self, operand: str) -> bool:
        return not operand.startswith(("{", "$")) and self.width(operand) == 1

    def _without_a_part(self, operand: str, written: Callable[[str], str]) -> Iterator[tuple[str, str, str]]:
        parts = _parts(operand)
        for place, part in enumerate(parts):
            rest = parts[:place] + parts[place + 1 :]
            if rest and not _CONSTANT.fullmatch(part):
                yield "operand", f"without {part}", written("{ " + ", ".join(rest) + " }")

    def _other_slices(self, text: str, targets: set[str]) -> Iterator[tuple[str, str]]:
        for match in _SLICE.finditer(text):
            name, high, low = match[1], int(match[2]), int(match[3] or match[2])
            # Bits of what the line drives would make a loop.
            if name in targets or name not in self._widths:
                continue
            for by in (1, -1):
                if low + by >= 0 and high + by < self._widths[name]:
                    other = f"{name}[{high + by}:{low + by}]" if match[3] else f"{name}[{high + by}]"
                    yield f"{other} for {match[0]}", text[: match.start()] + other + text[match.end() :]


def _close(names: set[str], sources: Mapping[str, set[str]]) -> None:
    """Add whatever the names are made from."""
    todo = [*names]
    while todo:
        fresh = sources.get(todo.pop(), set()) - names
        names |= fresh
        todo += fresh


def _deciding(text: str) -> set[str]:
    """Names in a right side by which something is chosen."""
    tokens = _split(text)
    if len(tokens) == 5:
        return _names(tokens[0])
    return _names(text) if (len(tokens) == 3 and tokens[1] in ("==", "!=", *_EDGE)) or re.match(r"_\d+_\(", text) else set()


def _names(text: str) -> set[str]:
    return set(_NAME.findall(text))


def _undefined(text: str) -> str:
    return "x" if re.fullmatch(r"\d+'[hb]x+", text) else ""


def _split(text: str) -> list[str]:
    """Operands and operators: what spaces part outside of brackets."""
    tokens, depth = [""], 0
    for letter in text:
        depth += (letter in "({[") - (letter in ")}]")
        if letter == " " and not depth:
            tokens.append("")
        else:
            tokens[-1] += letter
    return tokens


def _parts(text: str) -> list[str]:
    """Of ``{ a, b[1:0] }``."""
    parts, depth = [""], 0
    for letter in text[1:-1]:
        depth += (letter in "({[") - (letter in ")}]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _other_constants(text: str) -> Iterator[tuple[str, str]]:
    for match in _CONSTANT.finditer(text):
        width, base, digits = int(match[1]), match[2], match[3]
        value = int(digits, {"h": 16, "d": 10, "b": 2}[base])
        for by in (1, -1) if width > 1 else (1,):
            other = f"{width}'h{(value + by) % (1 << width):x}"
            yield f"{other} for {match[0]}", text[: match.start()] + other + text[match.end() :]


def drawn(faults: Sequence[Fault], count: int, seed: int | str) -> list[Fault]:
    """`count` of the faults at random, as evenly over kinds as there are any, and over lines within a kind."""
    rng = random.Random(seed)
    by_kind: dict[str, dict[tuple[str, int], list[Fault]]] = {kind: defaultdict(list) for kind in KINDS}
    for fault in faults:
        by_kind[fault.kind][fault.source, fault.number].append(fault)
    queues = {}
    for kind, lines in by_kind.items():
        places = [*lines.values()]
        rng.shuffle(places)
        for place in places:
            rng.shuffle(place)
        queues[kind] = [place[turn] for turn in range(max(map(len, places), default=0)) for place in places if turn < len(place)]
    chosen: list[Fault] = []
    order = [*KINDS]
    rng.shuffle(order)
    while len(chosen) < count and any(queues.values()):
        for kind in order:
            if queues[kind] and len(chosen) < count:
                chosen.append(queues[kind].pop(0))
    return chosen


def mutated(text: Text, fault: Fault, module: str = "") -> str:
    """The Verilog with one fault in it; of one module alone if it is named."""
    return _written(text, {1: fault}, module, lambda number: "1'h1", frame=False)


def schemata(text: Text, faults: Mapping[int, Fault], top: str) -> str:
    """The Verilog with all of the faults, for Verilator: ``MUTANT`` in the environment is the number of the one that holds, 0 for none.

    After ``MUTANT_CYCLES`` cycles of the clock of module `top`, if that is not 0, the simulation ends.
    """
    return _written(text, faults, "", lambda number: f"mutant == {number}", frame=True, top=top)


def _written(
    text: Text, faults: Mapping[int, Fault], only: str, chosen: Callable[[int], str], *, frame: bool, top: str = ""
) -> str:
    by_line: dict[int, list[tuple[int, Fault]]] = defaultdict(list)
    for number, fault in faults.items():
        by_line[fault.number].append((number, fault))
    modules = {only: text.modules[only]} if only else text.modules
    result = []
    for name, place in modules.items():
        inside = any(number in by_line for number in place)
        widths = _Module(text, name, place) if inside else None
        header = True
        for number in place:
            line = text.lines[number]
            if widths is not None and number in by_line:
                result += _mutated_line(line, by_line[number], widths, chosen)
            else:
                result.append(line)
            if header and line.endswith(");"):
                header = False
                if frame and inside:
                    result += ["  integer mutant;", f"  initial mutant = {_environment('MUTANT')};"]
                if frame and name == top and "  input clk;" in text.lines[place.start : place.stop]:
                    result += [
                        "  integer mutant_cycles, mutant_limit;",
                        f"  initial begin mutant_cycles = 0; mutant_limit = {_environment('MUTANT_CYCLES')}; end",
                        "  always @(posedge clk) begin",
                        "    mutant_cycles = mutant_cycles + 1;",
                        "    if (mutant_limit != 0 && mutant_cycles > mutant_limit) $finish;",
                        "  end",
                    ]
        result += ["endmodule", ""]
    return "\n".join(result)


def _environment(name: str) -> str:
    return f'$c32("(std::getenv(\\"{name}\\") ? std::atoi(std::getenv(\\"{name}\\")) : 0)")'


def _mutated_line(line: str, faults: Iterable[tuple[int, Fault]], module: _Module, chosen: Callable[[int], str]) -> list[str]:
    match = re.fullmatch(r"  assign (.+?) = (.+);", line)
    if not match:
        spans: dict[tuple[int, int], str] = {}
        for number, fault in faults:
            span = fault.start, fault.end
            spans[span] = f"({chosen(number)} ? {fault.text} : {spans.get(span, line[fault.start : fault.end])})"
        for (start, end), text in sorted(spans.items(), reverse=True):
            line = line[:start] + text + line[end:]
        return [line]
    # Each right side is computed in a net of its own, so that neither widens the other or takes its sign.
    target, right = match.groups()
    width = module.width(target)
    numbers = [number for number, _ in faults]
    whole = f"mutant_{numbers[0]}_none"
    lines = [f"  wire [{width - 1}:0] {whole} = {right};"]
    choice = whole
    for number, fault in faults:
        inverted = re.search(r" \^bit (\d+)$", fault.text)
        text = f"{whole} ^ {width}'d{1 << int(inverted[1])}" if inverted else fault.text
        lines.append(f"  wire [{width - 1}:0] mutant_{number} = {text};")
        choice = f"{chosen(number)} ? mutant_{number} : {choice}"
    return [*lines, f"  assign {target} = {choice};"]
