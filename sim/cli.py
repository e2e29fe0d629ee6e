"""The command ``nibblecore``: everything this project does, a verb each.

`nibblecore.sim.verbs` says which verbs there are. A verb is a function of the module it names, imported when it is run; options become its
keyword arguments, ``--config`` as a configuration.

An option is typed ``--name value`` or ``NAME=value``, as to make. ``NAME?=value`` is left out where the verb has no use for it: so make
hands on what it finds in the environment. An empty value counts as not given. What a machine or a verb lacks is refused in one line that
begins as the user typed it, with status 2 and before anything is run.
"""

import argparse
import errno
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .kept import CACHE
from .machines import MACHINES, config_of
from .refusal import Refusal
from .verbs import VERBS, Option, Verb, listed

__all__ = ["main"]

# Help.


def _default_text(option: Option, machine: str) -> str:
    value = option.default_on(machine)
    if value is None or value == []:
        return option.unset.get(machine, "") if isinstance(option.unset, Mapping) else option.unset
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in (value if isinstance(value, list) else [value]))


def _explained(option: Option, verb: Verb) -> str:
    """What the help says of an option: its meaning, its choices and its default, by machine where they differ."""
    machines = verb.machines or ("",)
    if option.flag:
        return f"do not {option.help}" if option.default_on("") else option.help
    has = [machine for machine in machines if option.on(machine)]
    choices = {machine: listed(option.offered(machine), " or ") for machine in has}
    defaults = {machine: _default_text(option, machine) for machine in has}
    if option.only:
        default = f" (default: {defaults[has[0]]})" if defaults[has[0]] else ""
        return option.help + default + "".join(f"; {machine} has none" for machine in machines if machine not in has)
    if has == list(machines) and len({(choices[machine], defaults[machine]) for machine in has}) == 1:
        default = f" (default: {defaults[has[0]]})" if defaults[has[0]] else ""
        return option.help + (f": {choices[has[0]]}" if choices[has[0]] else "") + default
    if any(choices.values()):
        each = [
            f"{choices[machine]} on {machine}" + f" (default: {defaults[machine]})" * bool(defaults[machine]) for machine in has
        ]
        return f"{option.help}: {'; '.join(each)}" + "".join(f"; {m} has none" for m in machines if m not in has)
    return f"{option.help} (default: {', '.join(f'{defaults[machine]} on {machine}' for machine in has)})"


def _left(option: Option) -> str:
    """How an option is typed, for the left column of a help."""
    metavar = option.metavar or option.name.upper()
    if option.positional:
        return f"{metavar} ..." if option.many else metavar
    if option.flag:
        return f"--no-{option.switch[2:]}" if option.default is True else option.switch
    short = f"{option.short}, " if option.short else ""
    return f"{short}{option.switch} {metavar}" + " ..." * bool(option.many)


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    """The last column is wrapped, the others are as wide as they need."""
    sizes = [max(len(cell) for cell in column) for column in zip(*(row[:-1] for row in rows), strict=True)]
    indent = 2 + sum(size + 2 for size in sizes)
    lines = []
    for *cells, last in rows:
        start = "  " + "".join(f"{cell:<{size}}  " for cell, size in zip(cells, sizes, strict=True))
        lines.append(textwrap.fill(last, max(_width(), indent + 30), initial_indent=start, subsequent_indent=" " * indent))
    return "\n".join(lines)


_WORDS = "An option is typed --name value or NAME=value, a flag --name, --no-name, NAME=1 or NAME=0."


def _help() -> str:
    rows = [(verb.name, listed(verb.machines) or "–", verb.help) for verb in VERBS.values()]
    return (
        "usage: nibblecore VERB [--name value | NAME=value ...]\n\n"
        f"verbs, and the machines that have them\n{_columns(rows)}\n\n"
        f"{_WORDS}\nOptions of a verb, with what each machine takes: nibblecore VERB --help\n"
        f"What is compiled is kept in the folder {CACHE}; without it in the checkout's build/, or in your cache.\n"
    )


def _verb_help(verb: Verb) -> str:
    rows = []
    for option in verb.known.values():
        if option.name == "machine":
            lacking = "".join(f"; {machine} has no {verb.name}" for machine in MACHINES if machine not in verb.machines)
            names = f"{listed(verb.machines, ' or ')} (default: {verb.machines[0]})"
            rows.append((f"{option.switch} NAME", f"{option.help}: {names}{lacking}"))
        else:
            rows.append((_left(option), _explained(option, verb)))
    words = "".join(f" [{_left(option)}]" if option.many else f" {_left(option)}" for option in verb.options if option.positional)
    about = textwrap.fill(f"{verb.help[0].upper()}{verb.help[1:]}. {verb.more}", _width())
    return f"usage: nibblecore {verb.name}{words} [OPTION ...]\n\n{about}\n\noptions\n{_columns(rows)}\n\n{_WORDS}\n"


# What the user typed.


@dataclass(frozen=True)
class _Given:
    """An option's texts, and how they were typed."""

    typed: str
    texts: list[str]


class _Note(argparse.Action):
    """Keeps an option's texts with how they were typed; of an option of several values, those of all its places."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, switch: str | None = None) -> None:
        if self.nargs == 0:
            texts = ["0" if switch and switch.startswith("--no-") else "1"]
            typed = switch or ""
        else:
            texts = list(values) if isinstance(values, list) else [values]
            if not any(texts) and (texts or not switch):
                return
            typed = " ".join(([switch] if switch else []) + texts)
        before = getattr(namespace, self.dest, None)
        if before and isinstance(self.nargs, str):
            typed, texts = f"{before.typed} {typed}", before.texts + texts
        setattr(namespace, self.dest, _Given(typed, texts))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise _Refused(message.removeprefix("argument "))


class _Refused(Exception):
    """The line that says what is refused."""


_WORD = re.compile(r"([A-Z][A-Z0-9_]*)(\??)=(.*)", re.S)


def _given(verb: Verb, words: Sequence[str]) -> dict[str, _Given]:
    """The options of a verb that the user gave, by name."""
    known = verb.known
    parser = _Parser(add_help=False, allow_abbrev=False)
    for option in known.values():
        nargs: Any = 0 if option.flag else option.many or None
        if option.positional:
            parser.add_argument(option.name, nargs=option.many or "?", action=_Note, default=None)
        else:
            names = [option.short] * bool(option.short) + [option.switch]
            names += [f"--no-{option.switch[2:]}"] * option.flag
            parser.add_argument(*names, dest=option.name, nargs=nargs, action=_Note, default=None)
    found: dict[str, _Given] = {}
    rest = []
    for word in words:
        match = _WORD.fullmatch(word)
        if not match:
            rest.append(word)
            continue
        name, maybe, text = match.groups()
        option_of = {option.variable: option for option in known.values()}
        useless = name not in option_of or (name == "MACHINE" and len(verb.machines) == 1)
        many = not useless and option_of[name].many
        if not (text.split() if many else text) or (maybe and useless):
            continue
        if name not in option_of:
            raise _Refused(f"{name}={text}: {_lacking(verb, name.lower(), name)}")
        option = option_of[name]
        found[option.name] = _Given(f"{name}={text}", text.split() if option.many else [text])
    namespace, unknown = parser.parse_known_args(rest)
    if unknown:
        switch = unknown[0].partition("=")[0]
        if not switch.startswith("-"):
            raise _Refused(f"{unknown[0]}: {verb.name} takes no such word; nibblecore {verb.name} --help says what it takes")
        raise _Refused(f"{unknown[0]}: {_lacking(verb, switch.lstrip('-').replace('-', '_'), switch)}")
    return {name: given for name, given in vars(namespace).items() if given is not None} | found


def _lacking(verb: Verb, name: str, typed: str) -> str:
    """Why a verb does not take an option, and which verbs do."""
    others = [other.name for other in VERBS.values() if name in other.known and name != "machine"]
    do = "do" if len(others) > 1 else "does"
    return f"{verb.name} takes no {typed}" + (f"; {listed(others, ' and ')} {do}" if others else "")


def _settled(verb: Verb, given: dict[str, _Given]) -> dict[str, str]:
    """Texts of the options that others settle. Raises _Refused and `Refusal`."""
    settled: dict[str, str] = {}
    for option in verb.options:
        if option.settles and option.name in given and option.kind:
            place, _, name = option.settles.partition(":")
            settled |= getattr(import_module(f"nibblecore.{place}"), name)(option.kind(given[option.name].texts[0]))
    return settled


def _contradicts(typed: str, verb: Verb, given: dict[str, _Given], text: str) -> _Refused:
    by = " and ".join(given[option.name].typed for option in verb.options if option.settles and option.name in given)
    return _Refused(f"{typed}: {by} is of {text}; leave it out")


def _machine(verb: Verb, given: dict[str, _Given], settled: dict[str, str]) -> str:
    """Raises _Refused unless the verb has the machine that was asked for."""
    if "machine" not in given:
        return settled.get("machine", verb.machines[0] if verb.machines else "")
    (machine,) = given["machine"].texts
    if machine not in MACHINES:
        raise _Refused(f"{given['machine'].typed}: there is no such machine; there are {listed(MACHINES, ' and ')}")
    if machine not in verb.machines:
        raise _Refused(f"{given['machine'].typed}: {machine} has no {verb.name}; {listed(verb.machines)} has")
    if settled.get("machine", machine) != machine:
        raise _contradicts(given["machine"].typed, verb, given, settled["machine"])
    return machine


def _values(verb: Verb, machine: str, given: dict[str, _Given], settled: dict[str, str]) -> dict[str, Any]:
    """The keyword arguments of the verb's function. Raises _Refused."""
    values = {}
    for option in verb.options:
        if not option.on(machine):
            if option.name in given:
                if option.only:
                    raise _Refused(f"{given[option.name].typed}: {machine} takes no {option.switch}; {listed(option.only)} does")
                others = "; ".join(f"{m} has {listed(option.offered(m))}" for m in verb.machines if option.on(m))
                raise _Refused(f"{given[option.name].typed}: {machine} has no such {option.noun}; {others}")
            continue
        if option.name not in given:
            if option.needed:
                raise _Refused(f"{verb.name}: {option.needed}")
            default = option.default_on(machine)
            values[option.name] = option.value(settled[option.name], machine) if option.name in settled else default
            continue
        typed, texts = given[option.name].typed, given[option.name].texts
        try:
            converted = [option.value(text, machine) for text in texts]
        except ValueError as error:
            offers = {m: listed(option.offered(m)) for m in verb.machines if option.on(m)}
            others = "".join(f"; {m} has {offer}" for m, offer in offers.items() if offer != offers.get(machine))
            raise _Refused(f"{typed}: {error}{others}") from None
        if option.name in settled and converted[0] != option.value(settled[option.name], machine):
            raise _contradicts(typed, verb, given, settled[option.name])
        values[option.name] = converted if option.many else converted[0]
    if "config" in values:
        names = values["config"]
        values["config"] = [config_of(machine, name) for name in names] if isinstance(names, list) else config_of(machine, names)
    return values


def _run(verb: Verb, words: Sequence[str]) -> int:
    given = _given(verb, words)
    machine = ""
    try:
        settled = _settled(verb, given)
        machine = _machine(verb, given, settled)
        values = _values(verb, machine, given, settled)
        place, _, name = (verb.run if isinstance(verb.run, str) else verb.run[machine]).partition(":")
        return getattr(import_module(f"nibblecore.{place}"), name)(**values)
    except Refusal as refusal:
        if refusal.option in given:
            raise _Refused(f"{given[refusal.option].typed}: {refusal.reason}") from None
        option = verb.known[refusal.option]
        style = f"{option.variable}=" if any(_WORD.fullmatch(word) for word in words) else f"{option.switch} "
        raise _Refused(f"{style}{_default_text(option, machine)} (the default): {refusal.reason}") from None
    except ModuleNotFoundError as error:
        if not verb.extra or (error.name or "nibblecore").partition(".")[0] == "nibblecore":
            raise
        raise _Refused(
            f"{error.name} is missing; install what {verb.name} needs with: pip install 'nibblecore[{verb.extra}]'"
        ) from None


def _main(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help(), end="")
        return 0
    if words[0] not in VERBS:
        raise _Refused(f"{words[0]}: nibblecore has no such verb; it has {listed(VERBS)}")
    verb = VERBS[words[0]]
    if {"-h", "--help"} & set(words[1:]):
        print(_verb_help(verb), end="")
        return 0
    return _run(verb, words[1:])


def _elsewhere(words: Sequence[str]) -> str:
    """What to do where nothing may be written."""
    verb = VERBS.get(words[0]) if words else None
    option = verb.known.get("output") if verb else None
    return f"; name another {(option.metavar or 'file').lower()} with OUTPUT= or {option.switch}" if option else ""


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: that of the verb; 2 if it was refused, 1 if a tool or a file failed, 130 after Ctrl-C."""
    words = sys.argv[1:] if words is None else words
    try:
        status = _main(words)
        sys.stdout.flush()
        return status
    except _Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has left; what Python flushes at its end has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        print(f"{error.filename}: {error.strerror}{_elsewhere(words) * denied}" if error.filename else error, file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:
        print(str(error) or "there is not enough memory", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
