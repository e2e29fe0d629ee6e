"""A plugin of pytest that runs benches and system tests on Verilog with faults, for ``nibblecore mutants``.

``MUTANTS`` in the environment names a folder. As long as that holds no ``plan.json`` every call of `bench.run` leaves its Verilog there,
and a line in ``calls.jsonl``, and runs nothing. Then it runs its bench once without a fault, which must pass, and once for each fault that
no call before has found, and leaves a line for each run in the file that ``MUTANTS_RESULTS`` names.

With ``MUTANTS_TOP``, the file of a whole machine's Verilog, the tests run on that: once without a fault, and once for each number in
``MUTANTS_LEFT``, until one fails. The machine is the configuration whose name is in ``MUTANTS_CONFIG``.
"""

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import forked
import pytest

FOLDER = Path(os.environ.get("MUTANTS", "."))


def pytest_configure(config: pytest.Config) -> None:
    if "MUTANTS_TOP" in os.environ:
        from nibblecore.sim.host import simulation
        from nibblecore.sim.machines import full_name

        text, own = Path(os.environ["MUTANTS_TOP"]).read_text(), simulation._accelerator_verilog
        simulation._accelerator_verilog = lambda config: text if full_name(config) == os.environ["MUTANTS_CONFIG"] else own(config)
        config.option.maxfail = 1
    elif "MUTANTS" in os.environ:
        bench.run = _run if (FOLDER / "plan.json").exists() else _collect  # type: ignore[assignment]


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """A process of its own for each fault in the whole machine."""
    if "MUTANTS_TOP" not in os.environ:
        return (yield)
    limit = 600.0
    for number in (0, *json.loads(os.environ["MUTANTS_LEFT"])):
        started = time.monotonic()
        child = os.fork()
        if not child:
            os.environ["MUTANT"] = str(number)
            return (yield)
        status, took = forked.wait(child, limit), time.monotonic() - started
        found = f"no end within {limit:.0f} s" if status is None else Path(f"{FOLDER}/failed").read_text() if status else ""
        _note("machine.jsonl", fault=number, found=found, seconds=round(took, 2))
        if not number:
            limit = 10 * took + 10
            if found:
                break
    os._exit(0)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "MUTANTS_TOP" in os.environ and report.failed:
        (FOLDER / "failed").write_text(report.nodeid)
        os._exit(1)


_calls: Counter[str] = Counter()


def _call() -> list[Any]:
    """The test that runs, and how often it has called before."""
    test = os.environ["PYTEST_CURRENT_TEST"].removesuffix(" (call)")
    _calls[test] += 1
    return [test, _calls[test] - 1]


def _note(file: str, **values: Any) -> None:
    with open(FOLDER / file, "a") as lines:
        lines.write(json.dumps(values) + "\n")


def _collect(component: Any, bench: str, name: str, *, parameters: dict[str, Any] | None = None) -> None:
    from nibblecore.hdl.emit.emit import emit_verilog

    verilog = emit_verilog(component, name, sources=True)
    text = hashlib.sha256(verilog.encode()).hexdigest()[:12]
    (FOLDER / f"{text}.v").write_text(verilog)
    _note("calls.jsonl", call=_call(), text=text, top=name)


def _run(component: Any, bench_file: str, name: str, *, parameters: dict[str, Any] | None = None) -> None:
    component._MustUse__silence = True
    call = _call()
    plan = json.loads((FOLDER / "plan.json").read_text())
    text = next(entry["text"] for entry in plan["calls"] if entry["call"] == call)
    file = FOLDER / os.environ["MUTANTS_RESULTS"]
    results = [json.loads(line) for line in file.read_text().splitlines()]
    decided = {result["fault"] for result in results if result["found"] or result["call"] == call}
    left = [number for number in plan["texts"][text] if number not in decided]
    if not left:
        return
    folder = FOLDER / "built" / text
    built = folder / "done"
    if not built.exists() or built.read_text() != plan["written"][text]:
        built.unlink(missing_ok=True)
        bench.build((FOLDER / f"{text}-mutants.v").read_text(), name, folder, ["-Wno-fatal", "-Wno-lint", "-CFLAGS", "-O0"])
        built.write_text(plan["written"][text])
    job = json.dumps({"faults": left, "call": call, "results": str(file)})
    environment = {"MUTANTS_JOB": job, "COCOTB_MAX_FAILURES": "1"}
    # The process in which the copies were made leaves no results of its own.
    with contextlib.suppress(RuntimeError, SystemExit):
        bench.simulate(name, bench_file, folder, parameters, environment, ["forked"])
    runs = [json.loads(line) for line in file.read_text().splitlines()]
    passed = [run for run in runs[len(results) :] if run["fault"] == 0]
    assert passed and not passed[0]["found"], f"{call[0]} fails without a fault: {passed}; log in {folder / 'run.log'}"
