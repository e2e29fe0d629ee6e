"""Bitstreams: a board's design through Yosys, nextpnr and ecppack.

    nibblecore bitstream --board ulx3s --config tiny

Each step's outcome is kept under a hash of what it is made from: another seed places the same netlist again, and a seed that was tried is not
tried again. Seeds are tried until one meets the clock.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nibblecore.hdl.boards.targets import TARGETS, Target
from nibblecore.sim.kept import cached, kept
from nibblecore.sim.machines import Config, full_name
from nibblecore.sim.progress import doing
from nibblecore.sim.refusal import Refusal

from .design import plan, platform_of
from .synthesis import counted, wanted
from .tools import run, tool, yosys

__all__ = ["DEVICES", "RESOURCES", "Placement", "main", "placement"]

_ROOM = "boards"
_NEXTPNR = ("--router", "router2", "--timing-allow-fail")

RESOURCES = {"TRELLIS_COMB": "logic cells", "TRELLIS_FF": "flip-flops", "MULT18X18D": "multipliers", "DP16KD": "block RAMs"}
"""What nextpnr counts, and what it is called here."""

DEVICES = {"12F": (24288, 28, 56), "25F": (24288, 28, 56), "45F": (43848, 72, 108), "85F": (83640, 156, 208)}
"""Logic cells, multipliers and block RAMs of the devices by the end of their names."""

_MADE = re.compile(r"\$|_(?:TRELLIS_\w+?|LUT4|PFUMX|L6MUX21|CCU2C|MULT18X18D|DP16KD)_|\.\d+\.\d+$")


@dataclass(frozen=True)
class Placement:
    """What nextpnr reports of a design.

    Parameters
    ----------
    seed : int
    mhz, wanted_mhz : float
        Of the slowest clock.
    use : dict
        By the names of `RESOURCES`' values, what is used and what there is.
    path : list of str
        The longest path: where it begins, ends and goes through, by the names of the source where there are any, each with the
        nanoseconds until there.
    """

    seed: int
    mhz: float
    wanted_mhz: float
    use: dict[str, tuple[int, int]]
    path: list[tuple[float, str]]

    @property
    def met(self) -> bool:
        return self.mhz >= self.wanted_mhz


def placement(report: dict[str, Any], seed: int) -> Placement:
    """Of nextpnr's report, as ``--report`` writes it."""
    clock, slowest = min(report["fmax"].items(), key=lambda item: item[1]["achieved"] / item[1]["constraint"])
    use = {
        ours: (report["utilization"][name]["used"], report["utilization"][name]["available"]) for name, ours in RESOURCES.items()
    }
    longest = next(path for path in report["critical_paths"] if path["from"].endswith(clock) and path["to"].endswith(clock))
    return Placement(seed, slowest["achieved"], slowest["constraint"], use, list(_named(longest["path"])))


def _see_room(target: Target, folder: Path) -> None:
    """Raises `Refusal` where the device has less than a netlist wants: nextpnr would say so much later."""
    use = wanted(counted(folder))
    there = dict(zip(("logic cells", "multipliers", "block RAMs"), DEVICES[target.device[-3:]], strict=True))
    short = [f"{use[name]:,} {name} where there are {count:,}" for name, count in there.items() if use[name] > count]
    if short:
        raise Refusal("config", f"it takes {' and '.join(short)} in an {target.device}; choose a smaller one, or another board")


def _named(path: list[dict[str, Any]]) -> Iterator[tuple[float, str]]:
    """The signals of the source that a path goes through, each where it is reached."""
    passed, last = 0.0, ""
    for number, step in enumerate(path):
        passed += step["delay"]
        made = step.get("net", "") if 0 < number < len(path) - 1 else step["to" if number else "from"]["cell"]
        # Yosys names what it makes after a signal near by: the signal, the cells in between, their ports.
        name = _MADE.split(made)[0]
        if name and name != last:
            yield round(passed, 2), name
            last = name


@dataclass(frozen=True)
class _Netlist:
    """A folder with ``top.json``, ``top.lpf`` and the counts of cells, and what names the device to nextpnr."""

    folder: Path
    device: tuple[str, ...]


def main(*, board: str, config: Config, seed: int, tries: int, output: Path) -> int:
    """``nibblecore bitstream``."""
    target = TARGETS[board]
    name = f"{board}_{full_name(config)}"
    platform = platform_of(target)
    if target.vendor:
        raise Refusal(
            "board", f"its bitstream is made by {platform.toolchain}; write the project: make board-project BOARD={board}"
        )
    programs = {program: tool(program) for program in ("nextpnr-ecp5", "ecppack")}
    netlist = _netlist(target, platform, config, name)
    _see_room(target, netlist.folder)
    best: Placement | None = None
    for number in range(seed, seed + tries):
        folder = _placed(netlist, programs["nextpnr-ecp5"], number)
        found = placement(json.loads((folder / "report.json").read_text()), number)
        print(f"seed {number}: {found.mhz:.1f} MHz of {found.wanted_mhz:.0f} wanted", flush=True)
        if best is None or found.mhz > best.mhz:
            best = found
        if found.met:
            break
    assert best is not None
    print("\n".join(_report(target, best)))
    if not best.met:
        print(f"\nno bitstream: none of {tries} seeds meets the clock; try more: TRIES={2 * tries}")
        return 1
    with doing("packing the bitstream"):
        packed = kept(folder.with_name(f"{folder.name}-packed"), lambda made: _pack(programs["ecppack"], folder, made))
    output.mkdir(parents=True, exist_ok=True)
    shutil.copy(packed / "top.bit", output / f"{name}.bit.new")
    (output / f"{name}.bit.new").replace(output / f"{name}.bit")
    (output / f"{name}.json").write_text(json.dumps(asdict(best), indent=1) + "\n")
    print(f"\nwrote {output / name}.bit and .json; onto the board with: make flash BOARD={board}")
    return 0


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _netlist(target: Target, platform: Any, config: Config, name: str) -> _Netlist:
    with doing(f"writing the design of {name}"):
        files = plan(target, platform, config)
    script = files.pop("build_top.sh")
    device = re.search(r"(--\S+k) (--package) (\S+) (--speed) (\S+)", script)
    assert device is not None, script
    files = {file: text for file, text in files.items() if file in ("top.il", "top.ys", "top.lpf")}
    folder = cached(_ROOM, f"{name}-{_digest(version('pyosys'), *files.values())}")

    def make(made: Path) -> None:
        for file, text in files.items():
            (made / file).write_text(text)
        with doing(f"synthesizing {name}"):
            yosys("top.ys", made, folder.parent / f"{name}-yosys.log")

    return _Netlist(kept(folder, make), device.groups())


def _placed(netlist: _Netlist, nextpnr: str, seed: int) -> Path:
    """The folder with ``top.config`` and ``report.json``."""
    source = netlist.folder

    def make(made: Path) -> None:
        # The packaged nextpnr sees the folder that it runs in, and not all others.
        for file in ("top.json", "top.lpf"):
            shutil.copy(source / file, made)
        files = ["--json", "top.json", "--lpf", "top.lpf", "--textcfg", "top.config", "--report", "report.json"]
        with doing(f"placing and routing, seed {seed}"):
            run([nextpnr, *netlist.device, *files, "--seed", str(seed), *_NEXTPNR], made, source.parent / "nextpnr.log")
        (made / "top.json").unlink()

    return kept(source.with_name(f"{source.name}-{_digest(*netlist.device, *_NEXTPNR)}-seed{seed}"), make)


def _pack(ecppack: str, placed: Path, made: Path) -> None:
    shutil.copy(placed / "top.config", made)
    run([ecppack, "--compress", "--input", "top.config", "--bit", "top.bit"], made, placed.parent / "ecppack.log")
    (made / "top.config").unlink()


def _report(target: Target, placed: Placement) -> Iterator[str]:
    yield f"{target.device}, seed {placed.seed}: {placed.mhz:.1f} MHz, {placed.wanted_mhz:.0f} wanted"
    for name, (used, there) in placed.use.items():
        yield f"  {name:<12} {used:>7,} of {there:>7,}  {used / there:>6.1%}"
    yield "  longest path, ns from its begin:"
    yield from (f"    {passed:>6.2f}  {name}" for passed, name in placed.path)
