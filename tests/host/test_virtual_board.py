"""A board's design under Verilator, at the end of a line."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from nibblecore.hdl.boards.targets import TARGETS, build_of
from nibblecore.hdl.config import CAMBRICONQ, FPGA, TINY
from nibblecore.hdl.link.protocol import Opcode
from nibblecore.hdl.ltoaq.registers import ID, REGISTERS
from nibblecore.sim.formats.frames import wrap
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.host.functional_board import FunctionalBoard
from nibblecore.sim.host.link import LinkError, LinkTransport, SerialLine, reach
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport
from nibblecore.sim.host.transport import BusError
from nibblecore.sim.host.virtual_board import VirtualBoard
from nibblecore.sim.refusal import Refusal
from nibblecore.sim.train import data
from nibblecore.sim.train.cambriconq.session import Recipe as CambriconqRecipe
from nibblecore.sim.train.cambriconq.session import Session
from nibblecore.sim.train.ltoaq.learner import LtoaqLearner
from nibblecore.sim.train.ltoaq.network import Recipe

ROOT = Path(__file__).resolve().parents[2]
ULX3S = TARGETS["ulx3s"]
SDRAM = TARGETS["ulx3s_sdram"]


@pytest.fixture
def board():
    with VirtualBoard(TINY, ULX3S) as board:
        yield board


@pytest.mark.parametrize("target", [ULX3S, SDRAM], ids=lambda target: target.name)
def test_memory_and_registers(target):
    with VirtualBoard(TINY, target) as board:
        _memory_and_registers(board, target)


def _memory_and_registers(board, target):
    transport = LinkTransport(board)
    size = transport.memory_size
    assert size == target.memory_bytes and transport.board.build == build_of(TINY)
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


def test_a_memory_of_no_whole_row_is_refused():
    with pytest.raises(Refusal, match="size must be a multiple of 8192, a row of all banks, not 4096"):
        VirtualBoard(CAMBRICONQ["tiny"], ULX3S, memory_bytes=4096)


@pytest.fixture
def port():
    """Of the command, which runs meanwhile and must end with status 0 upon Ctrl-C."""
    command = [sys.executable, "-m", "nibblecore.sim.cli", "virtual-board"]
    # A shell starts what runs in the background with SIGINT ignored, and children inherit that.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    finally:
        signal.signal(signal.SIGINT, handler)
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


def test_hostile_frames(board):
    """Damaged, cut, repeated, out of turn, out of bounds, with noise between them: byte for byte the board says what the golden link says."""
    twin = FunctionalBoard(TINY, FunctionalTransport(TINY, ULX3S.memory_bytes), LinkTransport(board).board.clock_hz)
    rng = random.Random(int(os.environ.get("SEED", "1")))
    inside, reach, number, last = 1 << 12, ULX3S.memory_bytes, 0, b""
    compared = 0

    def command():
        kind = rng.choice([Opcode.READ_MEMORY, Opcode.WRITE_MEMORY, Opcode.READ_REGISTER, None])
        if kind is None:
            return bytes([rng.randrange(6, 256)])
        if kind == Opcode.READ_REGISTER:
            return bytes([kind, rng.choice([REGISTERS["ID"].offset, REGISTERS["PUSH"].offset, rng.randrange(128, 256)])])
        size = rng.choice([0, 1, rng.randrange(40), rng.randrange(40), 65_535])
        address = rng.choice([rng.randrange(inside - 40), reach - rng.randrange(1, 40) + 40, (1 << 32) - 1])
        data = rng.randbytes(min(size, 60)) if kind == Opcode.WRITE_MEMORY else b""
        return bytes([kind]) + address.to_bytes(4, "little") + size.to_bytes(2, "little") + data

    def frame():
        nonlocal number, last
        if rng.random() < 0.1:
            return last
        # Most begin anew, because no one sends again what was damaged.
        which = rng.choice([0x80 | rng.randrange(128), 0x80 | rng.randrange(128), rng.randrange(128), number])
        number = (which + 1) % 128
        last = wrap(bytes([which]) + b"".join(command() for _ in range(rng.randint(1, 3))))
        return last

    def exchange(line):
        twin.write(line)
        expected = twin.read()
        board.write(line)
        found = b""
        for _ in range(100):
            if len(found) >= len(expected):
                break
            found += board.read()
        assert found == expected
        return len(found)

    exchange(wrap(bytes([0x80 | 127, Opcode.WRITE_MEMORY]) + bytes(4) + (400).to_bytes(2, "little") + bytes(400)))
    for address in range(0, inside, 400):
        frame_of_zeros = bytes([0xFF, Opcode.WRITE_MEMORY]) + address.to_bytes(4, "little") + (400).to_bytes(2, "little")
        exchange(wrap(frame_of_zeros + bytes(400)))
    for _ in range(100_000 if os.environ.get("LONG") == "1" else 5_000):
        line = bytearray(frame())
        for _ in range(rng.choice([0, 0, 0, 1, 3])):
            place = rng.randrange(len(line))
            change = rng.randrange(4)
            if change == 0:
                line[place] ^= 1 << rng.randrange(8)
            elif change == 1:
                del line[place:]
            elif change == 2:
                line[place:place] = rng.randbytes(rng.randrange(1, 20))
            else:
                line += line[: rng.randrange(len(line))]
            line = line or bytearray(b"\0")
        compared += exchange(bytes(line))
    exchange(b"\0")
    counts, expected = (LinkTransport(line).greet().counts for line in (board, twin))
    assert counts == expected and compared > 5_000 and all(counts[name] for name in ("malformed", "wrong", "repeated", "strange"))
    assert not counts["full"] and not board.error


class PulledLine(SerialLine):
    """Its cable is pulled with every `after`th write, and put back a little later."""

    def __init__(self, port, baud, after):
        self.after, self.writes, self.absent, self.pulls = after, 0, 0, 0
        super().__init__(port, baud)

    def _opened(self):
        self.absent -= 1
        if self.absent > 0:
            raise LinkError("there is no such port")
        return super()._opened()

    def write(self, data):
        self.writes += 1
        if self.writes % self.after == 0:
            self.close()
            self.absent, self.pulls = 5, self.pulls + 1
        super().write(data)


def learned(accelerator, digits):
    """Losses, weights and comparisons of three steps of a small network, every result compared."""
    with LtoaqLearner(Recipe(steps=3, hidden=(12, 12), batch=16), accelerator, digits, True) as learner:
        learner.load()
        losses = [learner.step(number)[0] for number in range(3)]
        return losses, [weights.tobytes() for weights in learner.weights()], learner.checked.comparisons


def test_digits_learn_at_a_terminal(port):
    """The same bits as on the simulated bus, with the cable pulled in the middle."""
    digits = data.load()
    line = PulledLine(port, ULX3S.baud, 60)
    with LinkTransport(line) as transport:
        found = learned(LtoaqAccelerator(TINY, transport=transport), digits)
    assert line.pulls and transport.resent
    assert found == learned(LtoaqAccelerator(TINY, memory_size=ULX3S.memory_bytes), digits)


def test_digits_learn_over_two_wires():
    """Bit by bit, at the board's clock and rate."""
    digits = data.load()
    with VirtualBoard(TINY, ULX3S, wires=True) as board, LinkTransport(board, timeout=10) as transport:
        found = learned(LtoaqAccelerator(TINY, transport=transport), digits)
        assert not transport.resent and not any(transport.greet().counts.values())
        assert board.cycles / ULX3S.clock_hz > 10 * transport.sent / ULX3S.baud, "a byte is ten bits"
    assert found == learned(LtoaqAccelerator(TINY, transport="functional", memory_size=ULX3S.memory_bytes), digits)


def test_digits_learn_in_sdram():
    """The same bits as on the simulated bus, from memory that is a chip beside the design."""
    digits = data.load()
    with VirtualBoard(TINY, SDRAM) as board, LinkTransport(board, timeout=10) as transport:
        found = learned(LtoaqAccelerator(TINY, transport=transport), digits)
        assert not transport.resent and not board.error
    assert found == learned(LtoaqAccelerator(TINY, transport="functional", memory_size=SDRAM.memory_bytes), digits)


def test_an_engine_finds_no_room_in_sdram():
    with pytest.raises(Refusal, match="the memory of ulx3s_sdram is SDRAM; take tiny_bus"):
        VirtualBoard(CAMBRICONQ["tiny"], SDRAM)


def test_more_memory_than_the_chip_has_is_refused():
    with pytest.raises(Refusal, match="at most the chip's 33554432, not 67108864"):
        VirtualBoard(TINY, SDRAM, memory_bytes=1 << 26)


def learned_on_cambriconq(config, target, optimizer):
    """On the board and on the functional model: what three steps return, the accuracy, and memory as far as the training uses it."""
    digits, size = data.load(), ULX3S.memory_bytes

    def learned(transport):
        session = Session(CambriconqRecipe(steps=3, optimizer=optimizer), config, digits, size)
        assert not session.holds_all
        accelerator = CambriconqAccelerator(config, transport=transport, memory_size=size)
        checked = CheckedAccelerator(accelerator, False)
        session.load(checked)
        results = [session.step(checked, step) for step in range(3)]
        return [*results, session.accuracy(checked, session.train_images, 40)], checked.read_memory(0, size)

    with VirtualBoard(config, target, seed=5) as board, LinkTransport(board, timeout=10) as transport:
        found = learned(transport)
        assert not board.error and not transport.resent
    return found, learned("functional")


def test_digits_learn_on_cambriconq():
    """With its engine beside a memory that has no room for all images, to the memory of the functional model."""
    found, expected = learned_on_cambriconq(CAMBRICONQ["tiny"], ULX3S, "adam")
    assert found == expected


def test_digits_learn_on_cambriconq_in_sdram():
    """Without an engine, from memory that is a chip beside the design."""
    found, expected = learned_on_cambriconq(CAMBRICONQ["tiny_bus"], SDRAM, "sgd")
    assert found == expected


def test_another_machine_than_asked_for_is_refused(port):
    with pytest.raises(LinkError, match=f"the board at {port} was built from ltoaq_tiny, not from ltoaq_fpga"):
        reach(port, ULX3S.baud, FPGA)


def test_a_terminal_is_left_and_opened_again(port):
    with LinkTransport(SerialLine(port, ULX3S.baud)) as transport:
        data = os.urandom(5000)
        transport.write_memory(3, data)
    for _ in range(3):
        with LinkTransport(SerialLine(port, ULX3S.baud)) as transport:
            assert transport.read_memory(3, len(data)) == data
