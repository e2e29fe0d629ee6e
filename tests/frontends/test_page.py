"""The blocks of docs/pytorch.md run as they stand, and print what the page says."""

import re
from pathlib import Path

import pytest
from nibblecore.sim import cli

pytest.importorskip("torch", reason="PyTorch is not installed: make test-torch installs it")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "pytorch.md").read_text()


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"^```(python)?\n(.*?)^```", PAGE, re.M | re.S)
    assert sum(kind == "python" for kind, _ in blocks) >= 8
    commands = 0
    for kind, block in blocks:
        capsys.readouterr()
        if kind != "python":
            for line in re.findall(r"^nibblecore (.*)$", block, re.M):
                assert cli.main(line.split()) == 0
                commands += 1
            continue
        if name := re.match(r"# (\w+\.py)\n", block):
            tmp_path.joinpath(name[1]).write_text(block)
            continue
        exec(compile(block, "pytorch.md", "exec"), names)
        said = [line for line in re.findall(r"print\(.*?\)(?:  # (.*))?\n((?:# .*\n)*)", block) if any(line)]
        wanted = [part for after, below in said for part in (after, *re.findall(r"^# (.*)$", below, re.M)) if part]
        printed = capsys.readouterr().out
        for text in wanted:
            assert text.removesuffix(", the modules' paths").strip() in printed, text
        if "of the digits" in block:
            # Chance is 10 %.
            assert int(printed.partition("%")[0]) > 40
    assert commands == 2
