"""The table of accuracies of LT-OAQ: what stands in it is what `nibblecore train` gives, and the cycles are the Verilog's."""

import re

import pytest
from nibblecore.sim import cli
from nibblecore.sim.train.ltoaq import accuracies
from nibblecore.sim.train.shell import Diverged


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_table(capsys, tmp_path):
    expected = {}
    for bits in (4, 8):
        for seed in (3, 4):
            words = [
                "--bits",
                str(bits),
                "--seed",
                str(seed),
                "--steps",
                "3",
                "--transport",
                "functional",
                "--output",
                str(tmp_path),
            ]
            assert cli.main(["train", *words]) == 0
            (share,) = re.findall(r"test accuracy +(\S+)% of 360", capsys.readouterr().out)
            expected[bits, seed] = round(3.6 * float(share)) / 360
    assert cli.main(["accuracy", "MACHINE=ltoaq", "STEPS=3", "SEED=3", "COUNT=2"]) == 0
    out = capsys.readouterr().out
    head, _, narrow, wide = cells(out)
    assert head == ["middle layer", "seed 3", "seed 4", "mean", "busy cycles", "array busy"]
    for bits, row in ((4, narrow), (8, wide)):
        shares = [expected[bits, 3], expected[bits, 4]]
        assert row[:4] == [f"{bits} bits", *(f"{share:.1%}" for share in [*shares, sum(shares) / 2])]
    busy = [int(row[4].replace(",", "")) for row in (narrow, wide)]
    assert 0 < busy[0] < busy[1] and "after 3 steps" in out


def test_a_training_that_leaves_its_range(capsys, monkeypatch):
    def fail(*_):
        raise Diverged("step 1", "the loss is nan")

    monkeypatch.setattr(accuracies, "trained", fail)
    assert cli.main(["accuracy", "MACHINE=ltoaq", "BITS=8"]) == 1
    said = capsys.readouterr()
    assert not said.out and said.err.startswith("8 bits, seed 0: step 1: the loss is nan")


@pytest.mark.parametrize(
    ("words", "line"),
    [("NET=mlp", "NET=mlp: ltoaq has no such network"), ("BITS=16", "BITS=16: ltoaq has no such width; it has 4, 8")],
)
def test_what_ltoaq_has_not(words, line, capsys):
    assert cli.main(["accuracy", "MACHINE=ltoaq", words]) == 2
    assert capsys.readouterr().err.startswith(line)
