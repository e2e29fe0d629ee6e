"""What of an earlier run of ``nibblecore mutants`` may serve the next."""

import json
from collections import Counter
from types import SimpleNamespace

import bench
import mutate
import pytest


@pytest.fixture
def run(tmp_path, monkeypatch, request):
    """Run a bench on faults 1 and 2 of a text of this digest; returns the texts built so far."""
    built = []

    def build(verilog, name, folder, args):
        folder.mkdir(parents=True, exist_ok=True)
        built.append(verilog)

    def simulate(name, bench_file, folder, parameters, environment, modules):
        job = json.loads(environment["MUTANTS_JOB"])
        with open(job["results"], "a") as lines:
            for fault in (0, *job["faults"]):
                lines.write(json.dumps({"fault": fault, "call": job["call"], "found": "" if fault == 0 else "a test"}) + "\n")

    monkeypatch.setattr(mutate, "FOLDER", tmp_path)
    monkeypatch.setattr(bench, "build", build)
    monkeypatch.setattr(bench, "simulate", simulate)
    monkeypatch.setenv("MUTANTS_RESULTS", "results.jsonl")

    def run(verilog):
        monkeypatch.setattr(mutate, "_calls", Counter())
        call = [request.node.nodeid, 0]
        plan = {"calls": [{"call": call, "text": "t", "top": "top"}], "texts": {"t": [1, 2]}, "written": {"t": verilog}}
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        (tmp_path / "t-mutants.v").write_text(verilog)
        (tmp_path / "results.jsonl").write_text("")
        mutate._run(SimpleNamespace(), "bench.py", "top")
        results = [json.loads(line)["fault"] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
        assert results == [0, 1, 2]
        return built

    return run


def test_a_text_is_built_once_and_again_for_other_faults(run):
    assert run("seed 1") == ["seed 1"]
    assert run("seed 1") == ["seed 1"]
    assert run("seed 2") == ["seed 1", "seed 2"]
