"""The table of accuracies and cycles: what stands in it is what a training gives and what the Verilog takes."""

import re

import pytest
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim import cli
from nibblecore.sim.compiler.estimate import makespan
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.train import data
from nibblecore.sim.train.cambriconq import accuracies
from nibblecore.sim.train.cambriconq.session import Recipe, Session
from nibblecore.sim.train.shell import Diverged


def rows(text):
    """By network and optimizer."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {tuple(row[:2]): row[2:] for row in cells}


def test_table(capsys, tmp_path):
    training = ["--machine", "cambriconq", "--transport", "functional", "--net", "cnn", "--bits", "4", "--steps", "4", "--output"]
    assert cli.main(["train", *training, str(tmp_path)]) == 0
    (trained,) = re.findall(r"test accuracy +(\S+) of 360", capsys.readouterr().out)
    assert cli.main(["accuracy", "--net", "cnn", "--opt", "sgd", "--bits", "8", "4", "--steps", "4"]) == 0
    table = rows(capsys.readouterr().out)
    assert table["network", "optimizer"] == ["8 bits", "4 bits", "cycles a step, 8 bits", "cycles a step, 4 bits"]
    ((_, narrow, *cycles),) = (row for key, row in table.items() if key == ("`cnn`", "sgd"))
    assert narrow == trained
    for bits, count in zip((8, 4), cycles, strict=True):
        program = Session(Recipe(network="cnn", bits=bits), CAMBRICONQ["tiny"], data.load()).program(2)
        assert int(count.replace(",", "")) == pytest.approx(makespan(program, CAMBRICONQ["tiny"]), rel=0.05)


def test_several_seeds(capsys, monkeypatch):
    """Those that follow the first, a column each; the cycles are the first's."""
    monkeypatch.setattr(accuracies, "cycles", lambda session, _: 1000 + session.recipe.seed)
    monkeypatch.setattr(accuracies, "accuracy", lambda session, _: session.recipe.seed / 100)
    assert cli.main(["accuracy", "NET=mlp", "OPT=sgd", "BITS=4 8", "SEED=5", "COUNT=2"]) == 0
    table = rows(capsys.readouterr().out)
    assert table["network", "optimizer"][:4] == ["4 bits, seed 5", "4 bits, seed 6", "8 bits, seed 5", "8 bits, seed 6"]
    assert table["`mlp`", "sgd"] == ["5.0%", "6.0%", "5.0%", "6.0%", "1,005", "1,005"]


@pytest.mark.parametrize(
    ("error", "status", "said"), [(Diverged("step 1", "NaN"), 0, "diverged"), (Mismatch("step 1"), 1, "differs")]
)
def test_what_goes_wrong(error, status, said, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(accuracies, "cycles", lambda *_: 1)
    monkeypatch.setattr(accuracies, "accuracy", fail)
    assert cli.main(["accuracy", "--net", "mlp", "--opt", "sgd", "--bits", "8"]) == status
    out, err = capsys.readouterr()
    assert said in (err if status else rows(out)["`mlp`", "sgd"][0])
