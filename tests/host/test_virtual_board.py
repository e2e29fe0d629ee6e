"""A board's design under Verilator, at the end of a line."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from nibblecore.hdl.boards.targets import TARGETS, build_of
from nibblecore.hdl.config import CAMBRICONQ, TINY
from nibblecore.hdl.ltoaq.registers import ID, REGISTERS
from nibblecore.sim.host.link import LinkTransport, SerialLine
from nibblecore.sim.host.transport import BusError
from nibblecore.sim.host.virtual_board import VirtualBoard
from nibblecore.sim.refusal import Refusal

ROOT = Path(__file__).resolve().parents[2]
ULX3S = TARGETS["ulx3s"]


@pytest.fixture
def board():
    with VirtualBoard(TINY, ULX3S) as board:
        yield board


def test_memory_and_registers(board):
    transport = LinkTransport(board)
    size = transport.memory_size
    assert size == ULX3S.memory_bytes and transport.board.build == build_of(TINY)
    assert transport.read_register(REGISTERS["ID"].offset) == ID
    with pytest.raises(BusError):
        transport.write_register(REGISTERS["ID"].offset, 1)
    rng = random.Random(1)
    places = [0, size // 2 - 2000, size - 4000]
    for place in places:
        shadow = bytearray(transport.read_memory(place, 4000))
        for count in (1, 7, 8, 100, 2000):
            at = rng.randrange(4001 - count)
            shadow[at : at + count] = data = rng.randbytes(count)
            transport.write_memory(place + at, data)
        assert transport.read_memory(place, 4000) == shadow
    assert not board.error and not transport.resent and not any(transport.greet().counts.values())


def test_engine_beside_the_memory_is_refused():
    with pytest.raises(Refusal, match="its engine needs banks"):
        VirtualBoard(CAMBRICONQ["tiny"], ULX3S)


@pytest.fixture
def port():
    """Of the command, which runs meanwhile and must end with status 0 upon Ctrl-C."""
    command = [sys.executable, "-m", "nibblecore.sim.cli", "virtual-board"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout and process.stderr
    try:
        line = process.stdout.readline()
        assert line.startswith("ulx3s with ltoaq_tiny at /dev/"), line + process.stderr.read()
        yield line.split()[-1]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0 and " cycles\n" in errors, errors
    finally:
        process.kill()


def test_a_terminal_is_left_and_opened_again(port):
    with LinkTransport(SerialLine(port, ULX3S.baud)) as transport:
        data = os.urandom(5000)
        transport.write_memory(3, data)
    for _ in range(3):
        with LinkTransport(SerialLine(port, ULX3S.baud)) as transport:
            assert transport.read_memory(3, len(data)) == data
