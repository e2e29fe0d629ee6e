"""The commands that work on a board at a serial port, on the golden link behind a pseudo-terminal."""

from typing import Any

import pytest
from host.terminal import at_a_terminal
from nibblecore.hdl.config import CAMBRICONQ, TINY
from nibblecore.hdl.ltoaq.registers import REGISTERS
from nibblecore.sim import cli, selftest
from nibblecore.sim.host.cambriconq.functional import FunctionalTransport as CambriconqModel
from nibblecore.sim.host.functional_board import FunctionalBoard
from nibblecore.sim.host.link import LinkTransport
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport as LtoaqModel
from nibblecore.sim.train import data
from nibblecore.sim.train.checkpoint import Checkpoint

MEMORY_BYTES = 1 << 16


def at_a_port(board):
    def answer(data):
        board.write(data)
        return board.read()

    return at_a_terminal(answer)


@pytest.fixture
def few(monkeypatch):
    images = data.load()
    fewer = data.Digits(images.train_images[:60], images.train_labels[:60], images.test_images[:8], images.test_labels[:8])
    monkeypatch.setattr(data, "load", lambda: fewer)


def train(folder, *words):
    """What its checkpoint holds."""
    assert cli.main(["train", f"OUTPUT={folder}", *words]) == 0
    (file,) = folder.glob("*.npz")
    checkpoint = Checkpoint.read(file)
    history = {name: checkpoint.header["history"][name] for name in ("loss", "accuracy", "tests", "train_accuracy")}
    return history | {name: values.tobytes() for name, values in checkpoint.arrays.items()}


def test_train(few, tmp_path, capsys):
    """In memory that all images do not fit at once, to the same checkpoint as without a line between."""
    expected = train(tmp_path / "functional", "TRANSPORT=functional", "STEPS=2")
    with at_a_port(FunctionalBoard(TINY, LtoaqModel(TINY, 1 << 17))) as port:
        assert train(tmp_path / "serial", "TRANSPORT=serial", f"PORT={port}", "STEPS=2") == expected
        assert "accelerator  LT-OAQ tiny, serial transport\n" in capsys.readouterr().out
        assert cli.main(["train", "TRANSPORT=serial", f"PORT={port}", "CONFIG=fpga"]) == 1
        said = capsys.readouterr().err.strip()
        assert said == f"the board at {port} was built from ltoaq_tiny, not from ltoaq_fpga"
    assert cli.main(["train", "TRANSPORT=serial", "PORT=/nowhere"]) == 1
    assert capsys.readouterr().err == "/nowhere cannot be opened: No such file or directory\n"


def test_nobody_answers(capsys, monkeypatch):
    class Silent:
        def write(self, data):
            pass

        def read(self):
            return b""

    monkeypatch.setattr("nibblecore.sim.host.link._TRIES", 2)
    with at_a_port(Silent()) as port:
        assert cli.main(["selftest", f"PORT={port}"]) == 1
    assert capsys.readouterr().err.startswith(f"{port}: no answer within 2 × 0.5 s: is the board on, ")


@pytest.mark.parametrize("machine", ["ltoaq", "cambriconq"])
def test_selftest(machine, capsys):
    bus = CAMBRICONQ["tiny_bus"]
    boards: dict[str, Any] = {"ltoaq": (TINY, LtoaqModel(TINY, MEMORY_BYTES)), "cambriconq": (bus, CambriconqModel(bus, 1 << 18))}
    config, model = boards[machine]
    assert selftest.run(LinkTransport(FunctionalBoard(config, model)), config, count=2, seed=1) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["link", "registers", "memory", "commands" if machine == "ltoaq" else "programs"]


class Stuck(LtoaqModel):
    """A bit of a register holds 0."""

    def write_register(self, offset, value):
        super().write_register(offset, value & ~1 if offset == REGISTERS["WINDOW_BASE"].offset else value)


def test_what_a_selftest_finds(capsys):
    class Board(FunctionalBoard):
        """A bit of memory holds 0."""

        def write(self, line):
            model.memory[77] &= 0xFE
            super().write(line)
            model.memory[77] &= 0xFE

    model = Stuck(TINY, MEMORY_BYTES)
    assert selftest.run(LinkTransport(Board(TINY, model)), TINY, count=1, seed=1) == 1
    link, registers, memory, _ = capsys.readouterr().out.splitlines()
    assert "FAILED" not in link
    assert "registers  FAILED: register WINDOW_BASE holds" in registers
    assert "memory  FAILED: 1 of 65536 bytes differ, first 0x4d" in memory


def test_a_selftest_of_much_memory(capsys):
    """Finds that a wire of the addresses does nothing."""
    model = LtoaqModel(TINY, 1 << 22)

    class Board(FunctionalBoard):
        stuck = False

        def write(self, line):
            super().write(line)
            if self.stuck:
                model.memory[1 << 21 : (1 << 21) + 4096] = model.memory[:4096]

    board = Board(TINY, model)
    for board.stuck, said in ((False, "49,152 bytes in 12 blocks, each bit"), (True, "FAILED: ")):
        assert selftest.run(LinkTransport(board), TINY, count=1, seed=1) == board.stuck
        assert f"memory  {said}" in capsys.readouterr().out


class Dying(FunctionalBoard):
    """Says 150,000 bytes and no more."""

    said = 0

    def read(self):
        data = super().read()
        self.said += len(data)
        return data if self.said < 150_000 else b""


def lost(monkeypatch, capsys, folder, board, *words):
    """The checkpoint that a training of three steps leaves on a board that dies meanwhile."""
    monkeypatch.setattr(LinkTransport.__init__, "__kwdefaults__", {"timeout": 0.02})
    with at_a_port(board) as port:
        assert cli.main(["train", *words, "TRANSPORT=serial", f"PORT={port}", "STEPS=3", f"OUTPUT={folder}"]) == 2
    said = capsys.readouterr().err
    (file,) = folder.glob("*-interrupted.npz")
    assert "the board was lost: no answer within" in said and f"to go on: RESUME={file}" in said
    return file


def test_a_lost_board_leaves_a_checkpoint(few, tmp_path, capsys, monkeypatch):
    file = lost(monkeypatch, capsys, tmp_path / "train", Dying(TINY, LtoaqModel(TINY, 1 << 18)))
    with at_a_port(FunctionalBoard(TINY, LtoaqModel(TINY, 1 << 18))) as port:
        again = train(tmp_path / "again", f"RESUME={file}", f"PORT={port}")
    assert again == train(tmp_path / "whole", "TRANSPORT=functional", "STEPS=3")


def test_memory_without_room_for_all_images(few, tmp_path, capsys, monkeypatch):
    """The same checkpoint as with room for all, also where a training that began without goes on with it."""
    words, config = ("MACHINE=cambriconq", "OPT=momentum", "CHECK=0"), CAMBRICONQ["tiny"]
    expected = train(tmp_path / "whole", *words, "TRANSPORT=functional", "STEPS=3")
    file = lost(monkeypatch, capsys, tmp_path / "train", Dying(config, CambriconqModel(config, 80_000)), *words)
    for memory_bytes in (80_000, 1 << 18):
        with at_a_port(FunctionalBoard(config, CambriconqModel(config, memory_bytes))) as port:
            assert train(tmp_path / str(memory_bytes), f"RESUME={file}", f"PORT={port}") == expected
