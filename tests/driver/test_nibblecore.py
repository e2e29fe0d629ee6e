"""The C driver, compiled as for a microcontroller, and run against the Verilog's registers and memory."""

import re
import subprocess
from ctypes import CDLL, CFUNCTYPE, Structure, byref, c_bool, c_char_p, c_uint8, c_uint32, c_void_p
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibblecore.hdl.cambriconq import registers as cambriconq_registers
from nibblecore.hdl.cambriconq.program.errors import ErrorCode as CambriconqCode
from nibblecore.hdl.config import CAMBRICONQ, FPGA, PAPER, TINY, CambriconqConfig
from nibblecore.hdl.ltoaq import registers as ltoaq_registers
from nibblecore.hdl.ltoaq.command import descriptor
from nibblecore.hdl.ltoaq.command.descriptor import pack
from nibblecore.hdl.ltoaq.command.errors import ErrorCode as LtoaqCode
from nibblecore.sim.compiler.asm import assemble
from nibblecore.sim.export.c_header import c_header
from nibblecore.sim.golden.ltoaq import top as golden
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.host.cambriconq.functional import FunctionalTransport
from nibblecore.sim.host.ltoaq import functional as ltoaq_functional
from nibblecore.sim.host.ltoaq import tiling
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.simulation import Simulation
from nibblecore.sim.regress import ltoaq as regress

ROOT = Path(__file__).resolve().parents[2]
DRIVER = ROOT / "driver"
MEMORY = 1 << 16
OK, WRONG_MACHINE, WRONG_CONFIG, BAD_ARGUMENT, BUSY, TIMEOUT, MACHINE_ERROR, WRONG_RESULT = range(8)
FREESTANDING = ["-std=c99", "-ffreestanding", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
HEADERS: dict[str, Any] = {"ltoaq_tiny": TINY, "ltoaq_paper": PAPER, "cambriconq_tiny": CAMBRICONQ["tiny"]}

READ, WRITE, PAUSE = (
    CFUNCTYPE(c_uint32, c_void_p, c_uint32),
    CFUNCTYPE(None, c_void_p, c_uint32, c_uint32),
    CFUNCTYPE(None, c_void_p),
)


class Bus(Structure):
    _fields_ = (
        ("read_register", READ),
        ("write_register", WRITE),
        ("read_memory", READ),
        ("write_memory", WRITE),
        ("pause", PAUSE),
        ("context", c_void_p),
        ("looks", c_uint32),
    )


class Device(Structure):
    _fields_ = (("bus", Bus), ("config", c_uint32 * 2), ("code", c_uint32), ("place", c_uint32))


class Tensor(Structure):
    _fields_ = (
        *((name, c_uint32) for name in ("header", "codes", "runs", "run_stride")),
        ("bits", c_uint8),
        ("is_signed", c_bool),
        ("k", c_uint8),
        ("threshold", c_uint8),
    )


class Gemm(Structure):
    _fields_ = (
        *((name, c_uint32) for name in "mnk"),
        *((name, c_bool) for name in ("a_transposed", "w_transposed")),
        *((name, Tensor) for name in "aw"),
        ("quantized", c_bool),
        *((name, c_uint32) for name in ("raw_address", "raw_pitch")),
        ("out", Tensor),
        ("alpha", c_uint32),
        *((name, c_uint8) for name in ("multiplier", "shift")),
        ("relu", c_bool),
    )


class LtoaqCounters(Structure):
    _fields_ = tuple((name, c_uint32) for name in ("done", "abandoned", "cycles", "array_cycles", "load_stalls", "output_stalls"))


class CambriconqCounters(Structure):
    _fields_ = (("cycles", c_uint32), ("array_cycles", c_uint32), ("phase", c_uint32 * 8))


def headers(folder, *names):
    """Generated headers and the user's, which includes them."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.h").write_text(c_header(HEADERS[name], name))
    (folder / "nibblecore_config.h").write_text("".join(f'#include "{name}.h"\n' for name in names))
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = headers(tmp_path_factory.mktemp("driver"), *HEADERS)
    target = folder / "nibblecore.so"
    options = ["-std=c99", "-O1", "-shared", "-fPIC", "-fsanitize=undefined", "-fno-sanitize-recover", f"-I{folder}"]
    subprocess.run(["gcc", *options, "-o", target, DRIVER / "nibblecore.c"], check=True)
    loaded = CDLL(str(target))
    for name in ("nb_ltoaq_cause", "nb_cambriconq_cause"):
        getattr(loaded, name).restype = c_char_p
    for name in ("nb_ltoaq_self_test_bytes", "nb_cambriconq_self_test_bytes", "nb_ltoaq_interrupt"):
        getattr(loaded, name).restype = c_uint32
    loaded.nb_cambriconq_interrupt.restype = c_bool
    return loaded


class Board:
    """A transport as the driver's bus. A callback cannot raise through C: what it raised waits in `failure`."""

    def __init__(self, library, transport, looks=100_000):
        self.library, self.transport, self.device = library, transport, Device()
        self.failure: list[BaseException] = []
        self.pauses = 0
        self.flip: int | None = None
        """A word of memory that reads with its lowest bit wrong."""
        self.bus = Bus(
            READ(lambda _, offset: self._kept(lambda: transport.read_register(offset))),
            WRITE(lambda _, offset, value: self._kept(lambda: transport.write_register(offset, value))),
            READ(lambda _, address: self._kept(lambda: self._word(address))),
            WRITE(lambda _, address, value: self._kept(lambda: transport.write_memory(address, value.to_bytes(4, "little")))),
            PAUSE(lambda _: self._kept(self._pause)),
            None,
            looks,
        )

    def _kept(self, work):
        try:
            return work() or 0
        except BaseException as error:
            self.failure.append(error)
            return 0

    def _word(self, address):
        return int.from_bytes(self.transport.read_memory(address, 4), "little") ^ (address == self.flip)

    def _pause(self):
        self.pauses += 1

    def call(self, name, *arguments):
        result = getattr(self.library, name)(byref(self.device), *arguments)
        assert not self.failure, self.failure
        return result

    def open(self, config, last=MEMORY - 1, flip=(0, 0)):
        cambriconq = isinstance(config, CambriconqConfig)
        words = cambriconq_registers.config_words(config) if cambriconq else ltoaq_registers.config_words(config)
        expected = [word ^ bit for word, bit in zip(words, flip, strict=True)]
        if cambriconq:
            return self.call("nb_cambriconq_open", byref(self.bus), *expected, last)
        return self.call("nb_ltoaq_open", byref(self.bus), *expected, 0, last)


@pytest.fixture(scope="module", params=["simulation", "functional"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def ltoaq(library, kind):
    if kind == "functional":
        yield Board(library, ltoaq_functional.FunctionalTransport(TINY, MEMORY))
        return
    with Simulation(TINY, memory_size=MEMORY, stall=0.1, seed=3) as simulation:
        yield Board(library, simulation)


@pytest.fixture(scope="module")
def cambriconq(library, kind):
    config = CAMBRICONQ["tiny"]
    if kind == "functional":
        yield Board(library, FunctionalTransport(config, MEMORY))
        return
    with Simulation(config, memory_size=MEMORY, stall=0.1, seed=3) as simulation:
        yield Board(library, simulation)


@pytest.mark.parametrize("optimize", ["-Os", "-O2"])
@pytest.mark.parametrize("names", [list(HEADERS), ["ltoaq_tiny"], ["cambriconq_tiny"]], ids=["both", "ltoaq", "cambriconq"])
def test_it_is_freestanding(names, optimize, tmp_path):
    """Compiled for a machine without a library, and without a warning; nothing is left for the linker to find."""
    folder = headers(tmp_path, *names)
    target = folder / "nibblecore.o"
    subprocess.run(["gcc", *FREESTANDING, optimize, f"-I{folder}", "-c", DRIVER / "nibblecore.c", "-o", target], check=True)
    symbols = subprocess.run(["nm", target], check=True, capture_output=True, text=True).stdout
    assert not re.findall(r"^ *U .*", symbols, re.M)
    defined = set(re.findall(r" T (\w+)", symbols))
    declared = set(re.findall(r"\b(nb_\w+)\(", (DRIVER / "nibblecore.h").read_text()))
    other = [f"nb_{machine}_" for machine in ("ltoaq", "cambriconq") if not any(name.startswith(machine) for name in names)]
    assert defined == {name for name in declared if not name.startswith(tuple(other))}


def test_its_header_is_cpp_too(tmp_path):
    folder = headers(tmp_path, *HEADERS)
    source = folder / "main.cpp"
    source.write_text('#include "nibblecore.h"\nint main() { nb_device device{}; return int(device.code); }\n')
    options = ["-std=c++11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", f"-I{folder}", f"-I{DRIVER}"]
    subprocess.run(["g++", *options, source], check=True)


def test_without_a_machine_it_says_what_is_missing(tmp_path):
    folder = headers(tmp_path)
    run = subprocess.run(["gcc", f"-I{folder}", "-fsyntax-only", DRIVER / "nibblecore.c"], capture_output=True, text=True)
    assert run.returncode and "nibblecore_config.h includes no header of a machine; make verilog writes them" in run.stderr


def test_the_pages_examples_compile(tmp_path):
    """Every block of C on the page, the first as nibblecore_config.h, the others each a file of its own."""
    folder = headers(tmp_path, *HEADERS)
    page = (ROOT / "docs" / "c-driver.md").read_text().replace("_fpga", "_tiny").replace("_FPGA", "_TINY")
    config, *blocks = re.findall(r"```c\n(.*?)```", page, re.S)
    (folder / "nibblecore_config.h").write_text(config)
    assert len(blocks) == 3
    for number, block in enumerate(blocks):
        source = folder / f"example{number}.c"
        source.write_text(block)
        subprocess.run(["gcc", *FREESTANDING, f"-I{folder}", f"-I{DRIVER}", "-fsyntax-only", source], check=True)


def test_self_tests(ltoaq, cambriconq):
    for board, config, name in ((ltoaq, TINY, "ltoaq"), (cambriconq, CAMBRICONQ["tiny"], "cambriconq")):
        assert board.open(config) == OK
        size = board.call(f"nb_{name}_self_test_bytes")
        for address in (0, 0x1000, (MEMORY - size) // 64 * 64):
            assert board.call(f"nb_{name}_self_test", address) == OK
        assert board.call(f"nb_{name}_self_test", 32) == BAD_ARGUMENT
        assert board.pauses or not isinstance(board.transport, Simulation)


def test_a_self_test_fails_on_any_wrong_result(ltoaq, cambriconq):
    """A bit of each result is wrong on its way to the host."""
    for board, config, name, results, row in (
        (ltoaq, TINY, "ltoaq", 128, 32),
        (cambriconq, CAMBRICONQ["tiny"], "cambriconq", 9 * 64 + 2 * 4 * 16 * 4, 16),
    ):
        assert board.open(config) == OK
        for index in range(16):
            board.flip = 0x400 + results + index // 4 * row + index % 4 * 4
            assert (board.call(f"nb_{name}_self_test", 0x400), board.device.place) == (WRONG_RESULT, index)
        board.flip = None
        assert board.call(f"nb_{name}_self_test", 0x400) == OK


def test_another_machine_and_another_configuration_are_refused(ltoaq, cambriconq):
    assert cambriconq.open(TINY) == ltoaq.open(CAMBRICONQ["tiny"]) == WRONG_MACHINE
    for board, config in ((ltoaq, TINY), (cambriconq, CAMBRICONQ["tiny"])):
        assert board.open(config, flip=(1 << 8, 0)) == board.open(config, flip=(0, 1 << 29)) == WRONG_CONFIG
        enable = (ltoaq_registers if config is TINY else cambriconq_registers).REGISTERS["IRQ_ENABLE"].offset
        board.transport.write_register(enable, 1)
        assert board.open(config) == OK and board.transport.read_register(enable) == 0


def tensor(handle):
    values = {name: getattr(handle, name) for name in ("header", "codes", "runs", "run_stride", "bits", "k", "threshold")}
    return Tensor(**values, is_signed=handle.signed)


@pytest.fixture
def uploaded(ltoaq, kind):
    """The Python driver on the same machine: it places tensors and reads results."""
    accelerator = LtoaqAccelerator(TINY, transport=ltoaq.transport)
    assert ltoaq.open(TINY) == OK
    return accelerator


def described(a, w, a_transposed, w_transposed, **fields):
    m, k = a.shape[::-1] if a_transposed else a.shape
    n = w.shape[1] if w_transposed else w.shape[0]
    return Gemm(m=m, n=n, k=k, a=tensor(a), w=tensor(w), a_transposed=a_transposed, w_transposed=w_transposed, **fields)


@pytest.mark.parametrize(
    "bits, a_transposed, w_transposed", [(4, False, False), (8, True, False), (4, False, True), (8, True, True)]
)
def test_a_product_is_the_golden_models(ltoaq, uploaded, bits, a_transposed, w_transposed):
    rng = np.random.default_rng(bits + a_transposed)
    shapes = (30, 13) if a_transposed else (13, 30), (30, 9) if w_transposed else (9, 30)
    a, w = (regress.random_tensor(rng, shape, bits, outlier_ratio=0.1) for shape in shapes)
    place, overflow = uploaded._place_raw((13, 9)), c_bool(True)
    where = {"raw_address": place.address, "raw_pitch": place.pitch}
    gemm = described(uploaded.upload(a), uploaded.upload(w), a_transposed, w_transposed, **where)
    assert ltoaq.call("nb_ltoaq_multiply", byref(gemm), uploaded._descriptor, byref(overflow)) == OK
    expected, wrapped = golden.gemm(a, w, TINY, a_transposed, w_transposed)
    assert (uploaded.download(place) == expected).all() and overflow.value == wrapped


def test_a_product_can_be_quantized(ltoaq, uploaded):
    rng = np.random.default_rng(7)
    a, w = (regress.random_tensor(rng, shape, 4, outlier_ratio=0.1) for shape in ((20, 17), (11, 17)))
    y, _ = golden.gemm(a, w, TINY)
    q = golden.QuantizerParameters.for_range(float(np.abs(y).max()) * 0.4, float(np.abs(y).max()) + 2, 1.0, 8, True, False)
    out = uploaded._place((20, 11), q.bits, q.signed, q.threshold, q.k, TINY.max_run_beats)
    numbers = {name: getattr(q, name) for name in ("alpha", "multiplier", "shift", "relu")}
    gemm = described(uploaded.upload(a), uploaded.upload(w), False, False, quantized=True, out=tensor(out), **numbers)
    assert ltoaq.call("nb_ltoaq_multiply", byref(gemm), uploaded._descriptor, None) == OK
    assert uploaded.download(out).first_difference(golden.quantize(y, q)[0]) is None


@pytest.mark.parametrize("config", [TINY, PAPER, FPGA, replace(TINY, bank_words=16)], ids=["tiny", "paper", "fpga", "little"])
@pytest.mark.parametrize("bits", [4, 8])
def test_descriptors_are_the_python_drivers(library, config, bits):
    """Fields and tiling, for products of every size, the last with as many panels as a field can say."""
    rng = np.random.default_rng(bits)
    device = Device(config=(c_uint32 * 2)(*ltoaq_registers.config_words(config)))
    words = (c_uint32 * 32)()
    sizes = [tuple(int(rng.integers(1, size + 1)) for _ in range(3)) for size in (1, 5, 40, 300, 5000, 65535)]
    for m, n, k in [*sizes, (65535, 65535, 1)]:
        a, w = (Tensor(header=32, codes=64, runs=96, run_stride=7, bits=bits, is_signed=x, k=2, threshold=3) for x in (True, False))
        gemm = Gemm(m=m, n=n, k=k, a=a, w=w, w_transposed=True, raw_address=128, raw_pitch=4 * n)
        assert library.nb_ltoaq_describe(byref(device), byref(gemm), c_bool(True), words) == OK
        stored = {"k": 2, "threshold": 3, "header": 32, "codes": 64, "runs": 96, "run_stride": 7, "eight_bit": int(bits == 8)}
        operands = {f"{name}_{field}": value for name in "aw" for field, value in stored.items()}
        fields = {"opcode": 1, "m": m, "n": n, "k": k, "a_signed": 1, "w_transposed": 1, "raw_output": 1, "interrupt": 1}
        cut = tiling.choose(config, m, n, k, bits)._asdict()
        assert bytes(words) == pack(**fields, **operands, **cut, raw0_address=128, raw0_pitch=4 * n)
    for wrong in ({"m": 0}, {"n": 65536}, {"k": 0}, {"bits": 5}):
        other = {**{"m": m, "n": n, "k": k}, **{name: value for name, value in wrong.items() if name != "bits"}}
        w = Tensor(bits=wrong.get("bits", bits))
        gemm = Gemm(**other, a=a, w=w)
        assert library.nb_ltoaq_describe(byref(device), byref(gemm), c_bool(False), words) == BAD_ARGUMENT


def test_a_bad_descriptor_is_told_with_its_number(ltoaq):
    assert ltoaq.open(TINY) == OK
    assert ltoaq.call("nb_ltoaq_self_test", 0) == OK
    good = ltoaq.transport.read_memory(0, 128)
    fields = descriptor.unpack(good)
    cases = [({"opcode": 9}, LtoaqCode.BAD_OPCODE), ({"a_codes": MEMORY}, LtoaqCode.OUT_OF_WINDOW), ({"m": 0}, LtoaqCode.ZERO_SIZE)]
    for number, (change, code) in enumerate(cases, 1):
        ltoaq.transport.write_memory(0, pack(**{**fields, **change}))
        assert ltoaq.call("nb_ltoaq_push", 0) == OK
        assert ltoaq.call("nb_ltoaq_wait") == MACHINE_ERROR
        assert (ltoaq.device.code, ltoaq.device.place) == (code, number)
        assert ltoaq.library.nb_ltoaq_cause(code).decode() == code.cause
        assert ltoaq.call("nb_ltoaq_wait") == OK, "an error is told once"
    assert ltoaq.call("nb_ltoaq_push", 16) == BAD_ARGUMENT
    counters = LtoaqCounters()
    ltoaq.call("nb_ltoaq_counters", byref(counters))
    assert (counters.done, counters.abandoned) == (1, len(cases))
    assert bool(counters.cycles) == bool(counters.load_stalls) == isinstance(ltoaq.transport, Simulation)


def test_a_full_queue_and_interrupts(ltoaq):
    if not isinstance(ltoaq.transport, Simulation):
        pytest.skip("the functional model's queue is never full")
    assert ltoaq.open(TINY) == OK
    assert ltoaq.call("nb_ltoaq_self_test", 0) == OK
    fields = descriptor.unpack(ltoaq.transport.read_memory(0, 128))
    # A product that takes longer than many accesses of registers: of the same operand, again and again.
    ltoaq.transport.write_memory(0, pack(**{**fields, "a_group": 1, "w_group": 1, "interrupt": 1}))
    ltoaq.call("nb_ltoaq_enable_interrupts", 1)
    results = [ltoaq.call("nb_ltoaq_push", 0) for _ in range(40)]
    assert ltoaq.call("nb_ltoaq_wait") == OK
    assert ltoaq.call("nb_ltoaq_interrupt") == 1 and ltoaq.call("nb_ltoaq_interrupt") == 0
    counters = LtoaqCounters()
    ltoaq.call("nb_ltoaq_counters", byref(counters))
    assert set(results) == {OK, BUSY} and counters.done == 1 + results.count(OK) and counters.abandoned == 0


def test_what_does_not_end_is_given_up(library, kind, ltoaq, cambriconq):
    """With a bus that answers, but a patience of no more than a look or two."""
    if kind == "functional":
        pytest.skip("the functional model ends at once")
    for board, config, name in ((ltoaq, TINY, "ltoaq"), (cambriconq, CAMBRICONQ["tiny"], "cambriconq")):
        assert board.open(config) == OK
        board.device.bus.looks = 1
        assert board.call(f"nb_{name}_self_test", 0) == TIMEOUT
        board.device.bus.looks = 100_000
        assert board.call(f"nb_{name}_{'abandon' if name == 'ltoaq' else 'stop'}") == OK
        assert board.call(f"nb_{name}_self_test", 0) == OK


def test_a_program_is_the_functional_models(library, cambriconq):
    """The manual's softmax, on the machine and on the model: all of memory is equal afterwards."""
    config, entry = CAMBRICONQ["tiny"], 0x3000
    program, matrix = assemble((ROOT / "docs" / "softmax.s").read_text()), np.linspace(-3, 3, 32, dtype="<f4").tobytes()
    model = CambriconqAccelerator(config, transport="functional", memory_size=MEMORY)
    assert cambriconq.open(config) == OK
    for memory in (model, cambriconq.transport):
        memory.write_memory(0, bytes(MEMORY))
        memory.write_memory(0x1000, matrix)
        memory.write_memory(entry, program)
    model.run(entry)
    assert cambriconq.call("nb_cambriconq_run", entry) == OK
    assert cambriconq.transport.read_memory(0, MEMORY) == model.read_memory(0, MEMORY)
    counters = CambriconqCounters()
    cambriconq.call("nb_cambriconq_counters", byref(counters))
    assert sum(counters.phase) == counters.cycles and bool(counters.cycles) == isinstance(cambriconq.transport, Simulation)


def test_a_program_that_fails_is_told_with_its_instruction(library, cambriconq):
    assert cambriconq.open(CAMBRICONQ["tiny"]) == OK
    fine = assemble("SLOAD rows=1 cols=1\n")
    for program, code, index in (
        (fine + bytes(64), CambriconqCode.ILLEGAL_INSTRUCTION, 1),
        (fine + fine + assemble(f"SLOAD rows=1 cols=1 src={MEMORY}\n"), CambriconqCode.MEMORY_RANGE, 2),
        (assemble("SLOAD rows=0 cols=1\n"), CambriconqCode.ZERO_SIZE, 0),
    ):
        cambriconq.transport.write_memory(0, program)
        assert cambriconq.call("nb_cambriconq_run", 0) == MACHINE_ERROR
        assert (cambriconq.device.code, cambriconq.device.place) == (code, index)
        assert library.nb_cambriconq_cause(code).decode() == code.cause
    assert cambriconq.call("nb_cambriconq_run", 32) == BAD_ARGUMENT
    cambriconq.transport.write_memory(0, fine + assemble("HALT"))
    assert cambriconq.call("nb_cambriconq_run", 0) == OK
    assert library.nb_cambriconq_cause(99) == b"an error code that this driver does not know"


def test_a_running_program_is_not_disturbed(library, cambriconq):
    """START while another program runs; an interrupt at the end."""
    if not isinstance(cambriconq.transport, Simulation):
        pytest.skip("the functional model's programs take no time")
    assert cambriconq.open(CAMBRICONQ["tiny"]) == OK
    cambriconq.transport.write_memory(0, assemble("SLOAD rows=60 cols=100 dest_col=1\n" * 8 + "HALT"))
    cambriconq.call("nb_cambriconq_enable_interrupts", c_bool(True))
    assert cambriconq.call("nb_cambriconq_start", 0) == OK
    assert cambriconq.call("nb_cambriconq_start", 0) == BUSY
    assert not cambriconq.call("nb_cambriconq_interrupt")
    cambriconq.transport.wait(100_000)
    assert cambriconq.call("nb_cambriconq_interrupt") and not cambriconq.call("nb_cambriconq_interrupt")
    assert cambriconq.call("nb_cambriconq_wait") == OK
    assert cambriconq.call("nb_cambriconq_flags") == 0


def test_a_mapping_reaches_registers_and_memory(library, tmp_path):
    """The bus of a processor that sees both: here words of this program."""
    folder = headers(tmp_path, *HEADERS)
    source = folder / "mapped.c"
    source.write_text(
        """#include <stdio.h>
#include "nibblecore.c"
int main(void) {
    static uint32_t registers[64], memory[64];
    struct nb_mapping mapping = {registers, memory, 0x1000};
    struct nb_bus bus = nb_mapped(&mapping, 10);
    struct nb_device device;
    uint32_t back[2];
    const uint32_t words[2] = {7, 8};
    registers[0] = LTOAQ_ID_VALUE, registers[1] = LTOAQ_TINY_CONFIG0, registers[2] = LTOAQ_TINY_CONFIG1;
    printf("%d ", nb_ltoaq_open(&device, &bus, LTOAQ_TINY_CONFIG0, LTOAQ_TINY_CONFIG1, 0x1000, 0x10FF));
    nb_write_words(&device, 0x1008, words, 2);
    nb_read_words(&device, 0x1008, back, 2);
    printf("%u %u %u %u %x\\n", memory[2], memory[3], back[0], back[1], registers[LTOAQ_WINDOW_LAST_OFFSET / 4]);
    registers[LTOAQ_STATUS_OFFSET / 4] = LTOAQ_STATUS_BUSY_MASK;
    printf("%d\\n", nb_ltoaq_wait(&device));
    return 0;
}
"""
    )
    program = folder / "mapped"
    subprocess.run(["gcc", "-std=c99", "-Wall", "-Werror", f"-I{folder}", f"-I{DRIVER}", "-o", program, source], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert printed == f"0 7 8 7 8 10ff\n{TIMEOUT}\n"
