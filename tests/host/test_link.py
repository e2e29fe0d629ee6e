"""The host's side of the link: over a line that loses, damages and repeats, both machines learn the same bits as without one."""

import random
from pathlib import Path

import numpy as np
import pytest
from host.terminal import at_a_terminal
from nibblecore.hdl.config import CAMBRICONQ, TINY
from nibblecore.hdl.link.byte_link import DEPTH
from nibblecore.hdl.link.command_executor import CommandExecutor
from nibblecore.hdl.ltoaq.registers import REGISTERS
from nibblecore.sim.compiler.asm import assemble
from nibblecore.sim.golden.link.byte_link import ByteLink
from nibblecore.sim.host import functional_board
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.functional import FunctionalTransport as CambriconqTransport
from nibblecore.sim.host.link import LinkError, LinkTransport, SerialLine
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport as LtoaqTransport
from nibblecore.sim.host.transport import BusError
from nibblecore.sim.train import data
from nibblecore.sim.train.ltoaq.learner import LtoaqLearner
from nibblecore.sim.train.ltoaq.network import Recipe

MEMORY_BYTES, CLOCK_HZ, BUILD = 1 << 19, 25_000_000, b"nibbles!"
IDENTITY = CommandExecutor(MEMORY_BYTES, CLOCK_HZ, BUILD, DEPTH, 7).identity


class Port(functional_board.Port):
    """Notes how long it was waited for."""

    def __init__(self, model):
        super().__init__(model)
        self.waits = []

    def wait(self, cycles):
        self.waits.append(cycles)
        return super().wait(cycles)


class LossyLine:
    """A board at a line that loses, damages, repeats and inserts bytes, each with probability `harm` a byte."""

    def __init__(self, port, harm=0.0, seed=0, identity=IDENTITY):
        self.board = ByteLink(port, identity, 7)
        self.harm, self.rng = harm, random.Random(seed)
        self.coming = bytearray()
        self.harmed = 0
        self.cut = False

    def _carried(self, data):
        out = bytearray()
        for byte in data:
            if self.rng.random() >= self.harm:
                out.append(byte)
                continue
            self.harmed += 1
            kind = self.rng.randrange(4)
            if kind == 0:
                out.append(byte ^ (1 << self.rng.randrange(8)))
            elif kind == 1:
                out += bytes([byte, byte])
            elif kind == 2:
                out += bytes(self.rng.randrange(256) for _ in range(self.rng.randrange(1, 30)))
        return bytes(out)

    def write(self, data):
        if not self.cut:
            self.coming += self._carried(self.board.receive(self._carried(data)))

    def read(self):
        size = self.rng.randrange(1, 600)
        data, self.coming = bytes(self.coming[:size]), self.coming[size:]
        return data

    def close(self):
        self.cut = True


@pytest.fixture
def board():
    port = Port(LtoaqTransport(TINY, MEMORY_BYTES))
    return port, LossyLine(port)


def test_the_board_says_who_it_is(board):
    _, line = board
    found = LinkTransport(line).board
    assert (found.memory_bytes, found.clock_hz, found.build) == (MEMORY_BYTES, CLOCK_HZ, BUILD) and not any(found.counts.values())


@pytest.mark.parametrize("harm", [0.0, 0.0005])
def test_memory(board, harm):
    port, line = board
    transport = LinkTransport(line, timeout=0.01)
    line.harm = harm
    rng = random.Random(1)
    shadow = bytearray(MEMORY_BYTES)
    for _ in range(40):
        size = rng.choice([0, 1, 3, 4, 496, 497, 500, 5000])
        address = rng.choice([0, rng.randrange(MEMORY_BYTES - size), MEMORY_BYTES - size])
        written = bytes(rng.choice([0, 255, rng.randrange(256)]) for _ in range(size))
        transport.write_memory(address, written)
        shadow[address : address + size] = written
        address = rng.randrange(MEMORY_BYTES - size + 1)
        assert transport.read_memory(address, size) == shadow[address : address + size]
    assert bytes(port.memory) == shadow
    assert bool(transport.resent) == bool(line.harmed) == bool(harm)
    if harm:
        line.harm = 0
        counts = transport.greet().counts
        assert counts["malformed"] and counts["wrong"] and counts["repeated"]


def test_calls_in_one_exchange(board):
    """What is written, started, awaited and read goes there and back at once, and what a wait leaves open is asked again."""
    port, line = board
    transport = LinkTransport(line)
    before = transport.exchanges
    transport.write_memory(64, b"posted")
    assert transport.exchanges == before and bytes(port.memory[64:70]) == bytes(6)
    read = ("read_memory", 64, 6)
    enable = REGISTERS["IRQ_ENABLE"].offset
    assert transport.perform(("write_register", enable, 3), ("read_register", enable), read) == [None, 3, b"posted"]
    assert transport.exchanges == before + 1
    pending = iter([False, False, True])
    port.wait = lambda cycles: next(pending)
    calls = (("write_memory", 64, b"starts"), ("wait", 10_000_000), read, ("read_register", enable))
    assert transport.perform(*calls) == [None, None, b"starts", 3]
    assert transport.exchanges == before + 4
    transport.write_memory(64, bytes(1 << 17))
    assert transport.exchanges == before + 5, "what is much waits for nothing"


@pytest.mark.parametrize(("harm", "seed"), [(0.0, 1), (0.0, 2), (0.0005, 3)])
def test_what_is_read_later_is_what_was_there(harm, seed):
    """Whatever is written and read meanwhile, in the same few pages, and in whatever order it is taken."""
    transport = LinkTransport(LossyLine(Port(LtoaqTransport(TINY, MEMORY_BYTES)), harm, seed), timeout=0.01)
    rng, memory, waiting, count = random.Random(seed), bytearray(6000), [], 0
    transport.write_memory(0, bytes(memory))

    def place():
        begin = rng.randrange(len(memory))
        return begin, rng.randrange(min(len(memory) - begin, rng.choice([4, 600, 3000])) + 1)

    for _ in range(400):
        address, size = place()
        match rng.randrange(5):
            case 0 | 1:
                values = rng.randbytes(size)
                memory[address : address + size] = values
                transport.write_memory(address, values)
            case 2:
                waiting.append((transport.read_later(address, size), bytes(memory[address : address + size])))
            case 3:
                assert transport.read_memory(address, size) == memory[address : address + size]
            case _ if waiting:
                taken, expected = waiting.pop(rng.randrange(len(waiting)))
                assert taken() == taken() == expected
                count += 1
    assert count > 30 and all(taken() == expected for taken, expected in waiting)
    assert transport.read_memory(0, len(memory)) == memory


def test_payload_is_most_of_a_long_transfer(board):
    _, line = board
    transport = LinkTransport(line)
    rng = np.random.default_rng(1)
    sent, received = transport.sent, transport.received
    transport.write_memory(0, rng.bytes(100_000))
    assert 100_000 / (transport.sent - sent) > 0.95
    transport.read_memory(0, 100_000)
    assert 100_000 / (transport.received - received) > 0.95


def test_what_cannot_be_had(board):
    port, line = board
    transport = LinkTransport(line)
    for call in (
        lambda: transport.read_register(0x7C),
        lambda: transport.write_register(0x80, 1),
        lambda: transport.read_register(2),
    ):
        with pytest.raises(BusError):
            call()
    for address, size in ((-1, 1), (MEMORY_BYTES, 1), (0, MEMORY_BYTES + 1)):
        with pytest.raises(ValueError, match="not all in a memory"):
            transport.read_memory(address, size)
    with pytest.raises(ValueError, match="32 bits"):
        transport.write_register(0, 1 << 32)
    with pytest.raises(TimeoutError, match="within 6000000 cycles"):
        transport.wait(6_000_000)
    with pytest.raises(ValueError, match="behind a wait come reads only"):
        transport.perform(("wait", 1), ("write_register", 0, 0))
    assert sum(port.waits) == 6_000_000 and max(port.waits) <= CLOCK_HZ / 10
    assert transport.read_memory(0, 4) == bytes(4), "the link goes on"


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [(0, 2, "version 2 of the link, this driver version 1"), (1, 1, "takes 1 frames"), (2, 7, "of 263 bytes")],
)
def test_another_protocol(place, value, words):
    identity = bytearray(IDENTITY)
    identity[place] = value
    with pytest.raises(LinkError, match=words):
        LinkTransport(LossyLine(Port(LtoaqTransport(TINY, 1 << 12)), identity=bytes(identity)))


def test_no_board(board):
    _, line = board
    line.cut = True
    with pytest.raises(LinkError, match=r"no answer within 10 × 0\.01 s"):
        LinkTransport(line, timeout=0.01)


def test_a_line_that_is_cut_and_joined(board):
    _, line = board
    transport = LinkTransport(line, timeout=0.01)
    transport.write_memory(8, b"before")
    transport.flush()
    line.cut = True
    with pytest.raises(LinkError):
        transport.read_memory(8, 6)
    line.cut = False
    assert LinkTransport(line, timeout=0.01).read_memory(8, 6) == b"before"


@pytest.mark.parametrize("harm", [0.0, 0.0002])
def test_ltoaq_learns_over_a_line(harm):
    """The same weights after some steps as without a line between, every result compared with the golden model."""
    digits = data.load()
    found = []
    for over in (False, True):
        model = LtoaqTransport(TINY, MEMORY_BYTES)
        line = LossyLine(Port(model), seed=2)
        transport = LinkTransport(line, timeout=0.01) if over else model
        line.harm = harm
        learner = LtoaqLearner(Recipe(steps=3), LtoaqAccelerator(TINY, transport=transport), digits, True)
        learner.load()
        losses = [learner.step(number)[0] for number in range(3)]
        found.append((losses, [weights.tobytes() for weights in learner.weights()]))
        assert bool(line.harmed) == bool(harm and over)
    assert found[0] == found[1]


def test_cambriconq_runs_over_a_line():
    """The manual's example, its result and its flags as without a line between."""
    program = assemble((Path(__file__).resolve().parents[2] / "docs" / "softmax.s").read_text())
    config = CAMBRICONQ["tiny"]
    matrix = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    found = []
    for over in (False, True):
        model = CambriconqTransport(config, MEMORY_BYTES)
        line = LossyLine(Port(model), harm=0.002, seed=3)
        accelerator = CambriconqAccelerator(config, transport=LinkTransport(line, timeout=0.01) if over else model)
        accelerator.write_memory(0x1000, matrix.tobytes())
        accelerator.write_memory(0x8000, program)
        accelerator.run(0x8000)
        found.append(accelerator.read_memory(0x2000, 128))
        assert bool(line.harmed) == over
    assert found[0] == found[1]
    softmax = np.exp(matrix) / np.exp(matrix).sum(1, keepdims=True)
    assert np.allclose(np.frombuffer(found[1], np.float32).reshape(4, 8), softmax, rtol=1e-5)


def test_a_serial_port():
    """Through the kernel's terminal and pyserial."""
    board = ByteLink(Port(LtoaqTransport(TINY, MEMORY_BYTES)), IDENTITY, 7)
    with at_a_terminal(board.receive) as port, LinkTransport(SerialLine(port, 3_000_000)) as transport:
        payload = np.random.default_rng(2).bytes(20_000)
        transport.write_memory(100, payload)
        assert transport.read_memory(100, len(payload)) == payload and not transport.resent
    with pytest.raises(LinkError, match="/nowhere cannot be opened"):
        SerialLine("/nowhere", 115_200)
