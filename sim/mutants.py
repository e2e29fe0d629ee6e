"""Seeded faults against a block's bench, the proofs of it and the machine's directed tests: what is found, and what survives.

    nibblecore mutants --block ltoaq.output.quantizer
    nibblecore mutants --machine cambriconq --count 20

Of every block with a bench so many faults are drawn (`nibblecore.sim.faults.seeding`) from the Verilog that its bench runs on, all its
configurations together. A block without a bench of its own belongs to those with one that hold it. What the bench does not find goes on to
the proofs, then to the machine's directed tests, and last to Yosys, which may prove that the fault changes nothing.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nibblecore.formal.runner import all_proofs
from nibblecore.formal.seeded import refutes
from nibblecore.hdl.emit.emit import emit_verilog
from nibblecore.sim.faults.equivalence import equivalent
from nibblecore.sim.faults.seeding import Fault, Text, drawn, schemata
from nibblecore.sim.kept import cache_folder, held
from nibblecore.sim.machines import accelerator, config_of
from nibblecore.sim.progress import ticking
from nibblecore.sim.refusal import Refusal

__all__ = ["GOAL", "benches", "cambriconq", "ltoaq"]

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.95
"""Share of the faults that must be found, those left out that change nothing."""

ARGUED = ROOT / "tests" / "argued.toml"
"""Faults that change nothing that anyone relies on, each with the reason."""

DIRECTED = {
    "ltoaq": {
        "tiny": ["tests/ltoaq/test_top.py", "-k", "tiny and not fused"],
        "tiny_fused": ["tests/ltoaq/test_top.py", "-k", "tiny_fused"],
    },
    "cambriconq": {"tiny": ["tests/cambriconq/test_top.py"]},
}
"""The tests of a whole machine, by machine and configuration."""

_SHARED = ("arith", "bus", "memory")


@dataclass(frozen=True)
class Bench:
    """A block with a bench, ``"ltoaq.output.quantizer"``, and the faults drawn of it."""

    block: str

    @property
    def file(self) -> Path:
        path = Path(*self.block.split("."))
        return ROOT / "tests" / path.parent / f"test_{path.name}.py"

    @property
    def folder(self) -> Path:
        return _room() / self.block

    def calls(self) -> list[dict[str, Any]]:
        return _lines(self.folder / "calls.jsonl")

    def results(self, file: str = "results.jsonl") -> list[dict[str, Any]]:
        return _lines(self.folder / file)

    def plan(self) -> dict[str, Any]:
        return json.loads((self.folder / "plan.json").read_text())

    def faults(self) -> dict[int, Fault]:
        return {int(number): Fault(**fault) for number, fault in self.plan()["faults"].items()}


def _room() -> Path:
    return cache_folder() / "mutants"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def benches(machine: str) -> dict[str, Bench]:
    """The blocks with a bench, by name; of those that the machines share the ones that this machine holds."""
    used = "\n".join(path.read_text() for path in (ROOT / "hdl" / machine).rglob("*.py"))
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "bench.run(" not in path.read_text():
            continue
        parts = path.relative_to(ROOT / "tests").with_suffix("").parts
        block = ".".join((*parts[:-1], parts[-1].removeprefix("test_")))
        if parts[0] == machine or (block.split(".")[0] in _SHARED and re.search(rf"\b{re.escape(block)} import", used)):
            found[block] = Bench(block)
    return found


def ltoaq(*, block: Sequence[str] | None, count: int, seed: int, mutant: int | None) -> int:
    """``nibblecore mutants``."""
    return _main("ltoaq", block or [], count, seed, mutant)


def cambriconq(*, block: Sequence[str] | None, count: int, seed: int, mutant: int | None) -> int:
    """``nibblecore mutants --machine cambriconq``."""
    return _main("cambriconq", block or [], count, seed, mutant)


def _main(machine: str, block: Sequence[str], count: int, seed: int, mutant: int | None) -> int:
    known = benches(machine)
    if not known:
        raise RuntimeError("the benches are in the repository, not in the installed package; run this in a clone of it")
    if unknown := [name for name in block if name not in known]:
        raise Refusal("block", f"{machine} has no bench of {', '.join(unknown)}; it has {', '.join(known)}")
    chosen = [bench for name, bench in known.items() if not block or name in block]
    with ExitStack() as ours:
        for bench in chosen:
            ours.enter_context(held(bench.folder))
        if mutant is not None:
            return _alone(chosen, known, machine, count, seed, mutant)
        return _all(chosen, known, machine, count, seed)


def _all(chosen: Sequence[Bench], known: Mapping[str, Bench], machine: str, count: int, seed: int) -> int:
    from tqdm import tqdm

    with tqdm(total=count * len(chosen), unit="fault", disable=None) as bar, ticking(bar):
        for bench in chosen:
            bar.set_description(bench.block)
            _prepare(bench, known, count, seed)
            _bench(bench)
            _equivalents(bench)
            _proofs(bench)
            bar.update(count)
    _machine(chosen, machine)
    return _report(chosen, machine, count, seed)


# A block's bench.


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _prepare(bench: Bench, known: Mapping[str, Bench], count: int, seed: int) -> None:
    """Collect the Verilog that the bench runs on and draw the faults, unless that has been done for these sources."""
    folder = bench.folder
    sources = [path.read_text() for path in sorted((ROOT / "hdl").rglob("*.py"))]
    wanted = _digest(*sources, bench.file.read_text(), os.environ.get("LONG", ""))
    if not (folder / "collected").exists() or (folder / "collected").read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (*(folder / name for name in ("collected", "plan.json", "calls.jsonl")), *folder.glob("*.v")):
            path.unlink(missing_ok=True)
        shutil.rmtree(folder / "built", ignore_errors=True)
        _pytest(bench, [str(bench.file)])
        if not bench.calls():
            raise RuntimeError(f"{bench.file} ran no bench")
        (folder / "collected").write_text(wanted)
    plan = _plan(bench, known, count, seed)
    path = folder / "plan.json"
    if not path.exists() or json.loads(path.read_text()) != plan:
        path.write_text(json.dumps(plan, indent=1))
        for name in ("results.jsonl", "later.jsonl"):
            (folder / name).write_text("")
    for name in ("results.jsonl", "later.jsonl"):
        (folder / name).touch()


def _block(text: Text, module: str) -> str:
    """The block whose module it is: functions of other files leave a line here and there."""
    lines = Counter(file for n in text.modules[module] if (file := text.sources[n].partition(":")[0]))
    return max(lines, key=lambda file: lines[file], default="").removeprefix("hdl/").removesuffix(".py")


def _of_block(text: Text, own: str, with_bench: Set[str]) -> Iterator[Fault]:
    """The faults of a block, and of those without a bench that it holds, but not within another that has one: that is nearer to them."""
    holders = text.holders()

    def nearest(module: str) -> set[str]:
        """Of each place of the module the block with a bench that is nearest around it."""
        if (block := _block(text, module)) in with_bench:
            return {block}
        return {around for holder in holders[module] for around in nearest(holder)} if holders[module] else {own}

    belongs = {module for module in text.modules if own in nearest(module)}
    for fault in text.faults():
        if fault.block == own or (fault.block not in with_bench and fault.module in belongs):
            yield fault


def _plan(bench: Bench, known: Mapping[str, Bench], count: int, seed: int) -> dict[str, Any]:
    """The faults by number, and which of them each text holds."""
    own = bench.block.replace(".", "/")
    with_bench = {name.replace(".", "/") for name in known}
    texts = {entry["text"]: entry["top"] for entry in bench.calls()}
    found: dict[str, Fault] = {}
    here: dict[str, dict[str, Fault]] = {}
    opened = {name: Text((bench.folder / f"{name}.v").read_text()) for name in texts}
    for name, text in opened.items():
        here[name] = {fault.key: fault for fault in _of_block(text, own, with_bench)}
        # What another width of the same line offers is the same again.
        before = {fault.source for fault in found.values()}
        found |= {key: fault for key, fault in here[name].items() if fault.source not in before}
    chosen = dict(enumerate(drawn([found[key] for key in sorted(found)], count, f"{seed} {bench.block}"), 1))
    holds = {name: [n for n, fault in chosen.items() if fault.key in keys] for name, keys in here.items()}
    written = {}
    for name, text in opened.items():
        if holds[name]:
            verilog = schemata(text, {n: here[name][chosen[n].key] for n in holds[name]}, texts[name])
            (bench.folder / f"{name}-mutants.v").write_text(verilog)
            written[name] = _digest(verilog)
    return {
        "calls": bench.calls(),
        "texts": holds,
        "written": written,
        "bench": _digest(bench.file.read_text()),
        "faults": {str(n): asdict(fault) for n, fault in chosen.items()},
    }


def _pytest(bench: Bench, tests: Sequence[str], results: str = "results.jsonl") -> bool:
    """Whether a test failed; raises RuntimeError if pytest itself does."""
    environment = {**os.environ, "MUTANTS": str(bench.folder), "MUTANTS_RESULTS": results, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-m", "pytest", "-p", "mutate", "-p", "no:cacheprovider", *tests]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    (bench.folder / "pytest.log").write_text(run.stdout + run.stderr)
    if run.returncode not in (0, 1):
        raise RuntimeError(f"pytest failed on {bench.file.relative_to(ROOT)}; the whole log is in {bench.folder / 'pytest.log'}")
    return run.returncode == 1


def _bench(bench: Bench, file: str = "results.jsonl") -> None:
    """Run what of the bench is left to run."""
    plan = bench.plan()
    results = bench.results(file)
    killed = {result["fault"] for result in results if result["found"]}
    done = {(result["fault"], *result["call"]) for result in results}
    left = {
        entry["call"][0]
        for entry in plan["calls"]
        for number in plan["texts"][entry["text"]]
        if number not in killed and (number, *entry["call"]) not in done
    }
    if not left:
        return
    # In the order of the calls; a test that has no fault to look for is not run.
    tests = [test for test in dict.fromkeys(entry["call"][0] for entry in plan["calls"]) if test in left]
    if _pytest(bench, tests, file):
        raise RuntimeError(f"{bench.block}: its bench fails without a fault; the whole log is in {bench.folder / 'pytest.log'}")


# What its bench does not find.


def _note(bench: Bench, fault: int, stage: str, found: str) -> None:
    with open(bench.folder / "later.jsonl", "a") as lines:
        lines.write(json.dumps({"fault": fault, "stage": stage, "found": found}) + "\n")


def _found(bench: Bench) -> dict[int, str]:
    """Where each fault that was found was found first: ``"bench"``, ``"proof"``, ``"machine"``; ``"equivalent"``, ``"argued"``."""
    found: dict[int, str] = {}
    for result in bench.results():
        if result["fault"] and result["found"]:
            found[result["fault"]] = "bench"
    for result in _lines(bench.folder / "later.jsonl"):
        if result["found"]:
            found.setdefault(result["fault"], result["stage"].partition(":")[0])
    for number, fault in bench.faults().items():
        if number not in found and any(_argues(argument, fault) for argument in _arguments()):
            found[number] = "argued"
    return found


def _left(bench: Bench, stage: str) -> dict[int, Fault]:
    """The faults that nothing has found and that have not been through this stage."""
    found = _found(bench)
    tried = {result["fault"] for result in _lines(bench.folder / "later.jsonl") if result["stage"] == stage}
    return {number: fault for number, fault in bench.faults().items() if number not in found and number not in tried}


def _equivalents(bench: Bench) -> None:
    plan = bench.plan()
    tops = {entry["text"]: entry["top"] for entry in plan["calls"]}
    for number, fault in _left(bench, "equivalent").items():
        same = True
        for text in (text for text, holds in plan["texts"].items() if number in holds):
            opened = Text((bench.folder / f"{text}.v").read_text())
            here = next(other for other in opened.faults() if other.key == fault.key)
            # The module by itself is the smaller question; what surrounds it may leave less to tell apart.
            same = same and any(equivalent(opened, here, module) for module in dict.fromkeys((here.module, tops[text])))
        _note(bench, number, "equivalent", "proved" if same else "")


def _proofs(bench: Bench) -> None:
    """Every quick proof of the fault's block, with the Verilog of the block in its place."""
    for number, fault in _found_none(bench):
        for proof in all_proofs([f"{fault.block.replace('/', '.')}."]):
            stage = f"proof:{proof.name}"
            if not proof.slow and number in _left(bench, stage):
                _note(bench, number, stage, proof.name if refutes(proof, fault, bench.folder / "proofs" / str(number)) else "")


def _found_none(bench: Bench) -> list[tuple[int, Fault]]:
    found = _found(bench)
    return [(number, fault) for number, fault in bench.faults().items() if number not in found]


def _machine(chosen: Sequence[Bench], machine: str) -> None:
    """The machine's directed tests on its whole Verilog with every fault that is left."""
    for config, tests in DIRECTED[machine].items():
        stage = f"machine:{config}"
        left = [(bench, number, fault) for bench in chosen for number, fault in _left(bench, stage).items()]
        if not left:
            continue
        with held(_room() / f"{machine}.{config}"):
            _directed(left, machine, config, tests)


def _directed(left: Sequence[tuple[Bench, int, Fault]], machine: str, config: str, tests: Sequence[str]) -> None:
    """One configuration's directed tests with these faults, each with its bench and number."""
    from tqdm import tqdm

    text = Text(_verilog(machine, config))
    keys = {fault.key: fault for fault in text.faults()}
    # What this configuration does not hold is not tried on it.
    here = [(bench, number, keys[fault.key]) for bench, number, fault in left if fault.key in keys]
    folder = _room() / f"{machine}.{config}"
    if here:
        folder.mkdir(parents=True, exist_ok=True)
        top = folder / "top.v"
        top.write_text(schemata(text, {n: fault for n, (_, _, fault) in enumerate(here, 1)}, ""))
        (folder / "machine.jsonl").unlink(missing_ok=True)
        environment = {
            **os.environ,
            "MUTANTS": str(folder),
            "MUTANTS_TOP": str(top),
            "MUTANTS_CONFIG": f"{machine}_{config}",
            "MUTANTS_LEFT": json.dumps([*range(1, len(here) + 1)]),
            "PYTHONPATH": str(ROOT / "tests"),
        }
        command = [sys.executable, "-m", "pytest", "-p", "mutate", "-p", "no:cacheprovider", *tests]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        noted = 0
        with tqdm(total=len(here), desc=f"{machine} {config}", unit="fault", disable=None) as bar, ticking(bar):
            running = True
            while running:
                time.sleep(0.2)
                running = process.poll() is None
                results = _lines(folder / "machine.jsonl")
                for result in results[noted:]:
                    if result["fault"]:
                        bench, number, _ = here[result["fault"] - 1]
                        _note(bench, number, f"machine:{config}", result["found"])
                        bar.update()
                    elif result["found"]:
                        raise RuntimeError(f"the directed tests of {machine} {config} fail without a fault: {result['found']}")
                noted = len(results)
        log = process.communicate()[0]
        if noted != len(here) + 1:
            (folder / "pytest.log").write_text(log)
            raise RuntimeError(f"the directed tests of {machine} {config} broke off; the whole log is in {folder / 'pytest.log'}")


def _verilog(machine: str, config: str) -> str:
    """The whole machine's Verilog with its sources, kept as long as the hardware is the same."""
    digest = _digest(*(path.read_text() for path in sorted((ROOT / "hdl").rglob("*.py"))))
    path = _room() / f"{machine}.{config}" / f"{digest}.v"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(emit_verilog(accelerator(config_of(machine, config)), "top", sources=True))
    return path.read_text()


# What is argued.


@cache
def _arguments() -> list[dict[str, str]]:
    return tomllib.loads(ARGUED.read_text()).get("argument", [])


@cache
def _source_lines(file: str) -> list[str]:
    return [line.strip() for line in (ROOT / file).read_text().splitlines()]


def _argues(argument: Mapping[str, str], fault: Fault) -> bool:
    file, _, number = fault.source.partition(":")
    return (
        argument["block"] == fault.block
        and argument["source"] == _source_lines(file)[int(number) - 1]
        and argument["fault"] in (fault.kind, f"{fault.kind}: {re.sub(r'_[0-9]+_', '_', fault.what)}")
    )


def _stale() -> list[str]:
    """Arguments about lines that are not there."""
    return [
        f"{argument['block']}: {argument['source']}"
        for argument in _arguments()
        if argument["source"] not in _source_lines(f"hdl/{argument['block']}.py")
    ]


# The report.


def _alone(chosen: Sequence[Bench], known: Mapping[str, Bench], machine: str, count: int, seed: int, mutant: int) -> int:
    """One fault of one block again, on its bench."""
    if len(chosen) != 1:
        raise Refusal("mutant", "name the one block that it is a fault of")
    (bench,) = chosen
    _prepare(bench, known, count, seed)
    faults = bench.faults()
    if mutant not in faults:
        raise Refusal("mutant", f"{bench.block} has faults 1 to {len(faults)}")
    # As if all others had been found.
    others = (f'{{"fault": {other}, "call": ["", 0], "found": "-"}}\n' for other in faults if other != mutant)
    (bench.folder / "again.jsonl").write_text("".join(others))
    _bench(bench, "again.jsonl")
    last = [result for result in bench.results("again.jsonl") if result["fault"] == mutant]
    print("\n".join(_described(mutant, faults[mutant])))
    for result in last:
        print(f"  {result['call'][0]}: {result['found'] or 'not found'}")
    print(f"  logs: {bench.folder / 'built'}")
    return 0 if any(result["found"] for result in last) else 1


def _described(number: int, fault: Fault) -> list[str]:
    file, _, line = fault.source.partition(":")
    return [
        f"  {number:>3}  {fault.kind}: {fault.what}",
        f"       {fault.line}",
        f"       {fault.source}: {_source_lines(file)[int(line) - 1]}",
    ]


_ENDS = ("bench", "proof", "machine", "equivalent", "argued")


def _report(chosen: Sequence[Bench], machine: str, count: int, seed: int) -> int:
    width = max(len(bench.block) for bench in chosen)
    print(f"{'block':<{width}}  faults  " + "  ".join(f"{name:>{max(len(name), 5)}}" for name in (*_ENDS, "survived")) + "   share")
    total: Counter[str] = Counter()
    for bench in chosen:
        counts = Counter(_found(bench).values())
        counts["faults"] = len(bench.faults())
        total += counts
        print(_row(bench.block, counts, width))
    if len(chosen) > 1:
        print(_row("all", total, width))
    for bench in chosen:
        survivors = _found_none(bench)
        if survivors:
            print(f"\n{bench.block}; again: make mutants MACHINE={machine} BLOCK={bench.block} COUNT={count} SEED={seed} MUTANT=…")
        for number, fault in survivors:
            print("\n".join(_described(number, fault)))
    for argument in _stale():
        print(f"argued, but no such line: {argument}")
    share = _share(total)
    if share is None:
        print("\nnone of the faults counts: nothing was shown")
        return 1
    print(f"\n{share:.1%} of {_counted(total)} faults found, {GOAL:.0%} wanted")
    return 0 if share >= GOAL else 1


def _counted(counts: Mapping[str, int]) -> int:
    return counts["faults"] - counts.get("equivalent", 0) - counts.get("argued", 0)


def _share(counts: Mapping[str, int]) -> float | None:
    """Of the faults that count; None if there is none."""
    killed = sum(counts.get(name, 0) for name in ("bench", "proof", "machine"))
    return killed / _counted(counts) if _counted(counts) else None


def _row(name: str, counts: Mapping[str, int], width: int) -> str:
    survived = counts["faults"] - sum(counts.get(end, 0) for end in _ENDS)
    cells = [f"{counts.get(end, 0):>{max(len(end), 5)}}" for end in _ENDS] + [f"{survived:>8}"]
    share = _share(counts)
    return f"{name:<{width}}  {counts['faults']:>6}  " + "  ".join(cells) + f"  {'–' if share is None else f'{share:.1%}':>6}"
