"""The driver, over the functional model and over the Verilog."""

import numpy as np
import pytest
from nibblecore.hdl.config import FPGA, PAPER, TINY
from nibblecore.hdl.ltoaq.command.descriptor import pack
from nibblecore.hdl.ltoaq.command.errors import ErrorCode
from nibblecore.hdl.ltoaq.registers import REGISTERS
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.golden.ltoaq import top as golden
from nibblecore.sim.host.ltoaq.accelerator import AcceleratorError, LtoaqAccelerator
from nibblecore.sim.host.ltoaq.functional import FunctionalTransport
from nibblecore.sim.host.simulation import Simulation

MEMORY = 1 << 18


@pytest.fixture(params=["functional", "simulation"])
def transport(request):
    if request.param == "functional":
        yield FunctionalTransport(TINY, MEMORY)
    else:
        with Simulation(TINY, memory_size=MEMORY) as simulation:
            yield simulation


@pytest.fixture
def accelerator(transport):
    return LtoaqAccelerator(TINY, transport=transport, timeout_cycles=1_000_000)


def tensor(seed, shape, bits=4, signed=True, ratio=0.1):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << bits, shape, dtype=np.uint8)
    return OaqTensor(codes, rng.random(shape) < ratio, bits, signed, 2 ** (bits - signed) - 1, 1)


def matrix(seed, shape, scale=1000):
    return np.rint(np.random.default_rng(seed).laplace(0, scale, shape)).astype(np.int32)


def quantizer(bits=4, signed=True, relu=False):
    return QuantizerParameters.for_range(3000.0, 12_000.0, 1.0, bits, signed, relu)


@pytest.mark.parametrize("bits", [4, 8])
def test_uploads_come_back(accelerator, bits):
    for shape in ((1, 1), (8, 16), (21, 37)):
        t, raw = tensor(1, shape, bits), matrix(2, shape, 1e8)
        handles = accelerator.upload(t), accelerator.upload_raw(raw)
        assert accelerator.download(handles[0]).first_difference(t) is None
        assert np.array_equal(accelerator.download(handles[1]), raw)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_three_products_of_training(accelerator, bits):
    """Y = X·Wᵀ, dX = E·W, dW = Eᵀ·X from the tensors as they are stored once."""
    x, w, e = tensor(1, (13, 21), bits, signed=False), tensor(2, (10, 21), bits), tensor(3, (13, 10), bits)
    hx, hw, he = map(accelerator.upload, (x, w, e))
    vx, vw, ve = (t.values(TINY.value_max(bits)) for t in (x, w, e))
    assert np.array_equal(accelerator.download(accelerator.gemm(hx, hw)), vx @ vw.T)
    assert np.array_equal(accelerator.download(accelerator.gemm(he, hw, w_transposed=True)), ve @ vw)
    assert np.array_equal(accelerator.download(accelerator.gemm(he, hx, a_transposed=True, w_transposed=True)), ve.T @ vx)
    assert accelerator.counters()["done"] == 3


@pytest.mark.parametrize("relu", [False, True])
def test_quantize_and_threshold_gradient(accelerator, relu):
    y, g, q = matrix(1, (19, 11), 2000), matrix(2, (19, 11), 1e6), quantizer(relu=relu)
    expected, statistics = golden.quantize(y, q)
    raw, gradient = accelerator.upload_raw(y), accelerator.upload_raw(g)
    handle = accelerator.quantize(raw, q)
    assert accelerator.download(handle).first_difference(expected) is None
    assert handle.statistics == statistics
    total = accelerator.threshold_grad(raw, gradient, q)
    assert total == golden.threshold_gradient(y, g, q) != 0
    assert accelerator.download(handle).first_difference(expected) is None, "the gradient must not touch the tensor"


def test_product_straight_to_a_tensor(accelerator):
    x, w, q = tensor(1, (9, 30)), tensor(2, (12, 30)), QuantizerParameters.for_range(200.0, 800.0, 1.0, 8, True)
    handle = accelerator.gemm(accelerator.upload(x), accelerator.upload(w), quantizer=q)
    expected, statistics = golden.quantize(golden.gemm(x, w, TINY)[0], q)
    assert accelerator.download(handle).first_difference(expected) is None
    assert handle.statistics == statistics and not handle.overflow


def test_nothing_but_outliers_fits(accelerator):
    y = np.full((9, 9), -50_000, np.int32)
    handle = accelerator.quantize(accelerator.upload_raw(y), quantizer())
    assert handle.statistics.outliers == handle.statistics.saturations == 81
    assert accelerator.download(handle).outlier.all()


def test_overflow_is_reported_with_its_product_only(accelerator):
    k = 2**31 // 1023**2 + 1
    big = OaqTensor(np.full((1, k), 127, np.uint8), np.ones((1, k), bool), 8, True, 127, 3)
    assert accelerator.gemm(*map(accelerator.upload, (big, big))).overflow
    assert not accelerator.gemm(*map(accelerator.upload, (tensor(1, (1, 4)), tensor(2, (1, 4))))).overflow


def test_a_damaged_operand_is_named_and_the_next_command_runs(accelerator, transport):
    x, w = accelerator.upload(tensor(1, (16, 16))), accelerator.upload(tensor(2, (16, 16)))
    good = accelerator.download(accelerator.gemm(x, w))
    saved = transport.read_memory(x.runs, 8)
    transport.write_memory(x.runs, b"\xff" * 8)
    with pytest.raises(
        AcceleratorError,
        match=r"MALFORMED_RUNS in GEMM of a 16×16 tensor of 4-bit signed codes .*: a run-length segment is malformed; see wh",
    ) as info:
        accelerator.gemm(x, w)
    assert info.value.code == ErrorCode.MALFORMED_RUNS
    transport.write_memory(x.runs, saved)
    assert np.array_equal(accelerator.download(accelerator.gemm(x, w)), good)


def test_a_damaged_header(accelerator, transport):
    x = accelerator.upload(tensor(1, (8, 8)))
    for beats in (0, x.run_stride + 1, TINY.max_run_beats + 1):
        transport.write_memory(x.header, beats.to_bytes(4, "little"))
        with pytest.raises(AcceleratorError, match="MALFORMED_RUNS"):
            accelerator.gemm(x, x)


def test_outside_the_window(accelerator, transport):
    raw = accelerator.upload_raw(matrix(1, (8, 8)))
    transport.write_register(REGISTERS["WINDOW_LAST"].offset, raw.address + 100)
    with pytest.raises(AcceleratorError, match="OUT_OF_WINDOW in QUANTIZE of a 8×8 32-bit matrix"):
        accelerator.quantize(raw, quantizer())


def test_registers_tell_done_from_abandoned(accelerator, transport):
    """Two commands that fail between two that do not, with nobody clearing anything: both transports read the same."""
    read, write = transport.read_register, transport.write_register
    raw, seen = accelerator.upload_raw(matrix(1, (8, 8))), {}
    accelerator._run = lambda fields, what, address, size: seen.update(fields) or (False, bytes(size))
    accelerator.quantize(raw, quantizer())
    address = {register.name: register.offset for register in REGISTERS}
    size = (ErrorCode.ZERO_SIZE, 1)
    expected = [(1, 0, 1, (0, 0)), (1, 1, 2, size), (1, 2, 2, size), (2, 2, 1, size)]
    for wrong, (done, abandoned, interrupt, error) in zip(({}, {"m": 0}, {"alpha": 0}, {}), expected, strict=True):
        accelerator.write_memory(accelerator._descriptor, pack(**{**seen, **wrong}, interrupt=1))
        write(address["PUSH"], accelerator._descriptor)
        transport.wait(10_000)
        if isinstance(transport, Simulation):
            transport.run(100)
        assert (read(address["DONE"]), read(address["ABANDONED"]), read(address["IRQ_STATUS"])) == (done, abandoned, interrupt)
        assert tuple(REGISTERS["ERROR"].unpack(read(address["ERROR"])).values()) == error
        write(address["IRQ_STATUS"], 3)


def test_what_another_driver_left_at_work_is_dropped(accelerator, transport):
    seen = {}
    accelerator._run = lambda fields, what, address, size: seen.update(fields) or (False, bytes(size))
    accelerator.quantize(accelerator.upload_raw(matrix(1, (100, 100))), quantizer())
    accelerator.write_memory(accelerator._descriptor, pack(**seen, interrupt=1))
    transport.write_register(REGISTERS["PUSH"].offset, accelerator._descriptor)
    works = REGISTERS["STATUS"].unpack(transport.read_register(REGISTERS["STATUS"].offset))["busy"]
    assert works == isinstance(transport, Simulation)
    second = LtoaqAccelerator(TINY, transport=transport)
    y = matrix(2, (9, 7))
    expected, _ = golden.quantize(y, quantizer())
    assert second.download(second.quantize(second.upload_raw(y), quantizer())).first_difference(expected) is None
    assert second.counters()["done"] == 1 and second.counters()["abandoned"] == 0


def test_freed_handles_are_refused(accelerator):
    raw, t = accelerator.upload_raw(matrix(1, (4, 4))), accelerator.upload(tensor(1, (4, 4)))
    accelerator.free()
    for use in (lambda: accelerator.download(raw), lambda: accelerator.quantize(raw, quantizer()), lambda: accelerator.gemm(t, t)):
        with pytest.raises(ValueError, match="was freed"):
            use()


def test_what_is_reserved_stays(accelerator):
    """Through `free` and `reset`, beside all that is handed out later; `free` takes back the rest as before."""
    matrices = [np.arange(rows * 5, dtype=np.int32).reshape(rows, 5) - 7 for rows in (3, 4)]
    old = accelerator.upload_raw(matrices[0])
    places = [accelerator.reserve_raw(matrix.shape) for matrix in matrices]
    assert all(place.reserved for place in places) and not old.reserved
    with pytest.raises(ValueError, match="was freed"):
        accelerator.download(old)
    for place, matrix in zip(places, matrices, strict=True):
        accelerator.store_raw(place, matrix)
    for _ in range(2):
        assert accelerator.upload_raw(np.full((40, 40), -1, np.int32)).address > places[1].address
        accelerator.free()
    later = [accelerator.download_later(place) for place in places]
    assert all(np.array_equal(taken(), matrix) for taken, matrix in zip(later, matrices, strict=True))
    with pytest.raises(ValueError, match="cannot hold a"):
        accelerator.store_raw(places[0], matrices[1])
    with pytest.raises(MemoryError):
        accelerator.reserve_raw((1 << 14, 1 << 14))
    assert np.array_equal(accelerator.download(places[1]), matrices[1])
    product = accelerator.upload_raw(matrices[0])
    assert np.array_equal(accelerator.download(product), matrices[0])


def test_what_cannot_be_is_refused_before_it_is_sent(accelerator):
    a, b, c = (accelerator.upload(tensor(1, shape, bits)) for shape, bits in (((2, 3), 4), ((2, 3), 8), ((3, 2), 4)))
    for w in (b, c):
        with pytest.raises(ValueError, match="cannot multiply a 2×3 tensor of 4-bit"):
            accelerator.gemm(a, w)
    with pytest.raises(ValueError, match="differ in shape"):
        accelerator.threshold_grad(
            accelerator.upload_raw(matrix(1, (2, 2))), accelerator.upload_raw(matrix(1, (2, 3))), quantizer()
        )
    with pytest.raises(ValueError, match="2-D int32"):
        accelerator.upload_raw(np.zeros((2, 2)))
    with pytest.raises(MemoryError, match="free"):
        accelerator.allocate(MEMORY)
    assert accelerator.counters()["done"] == 0


def test_the_wrong_configuration_is_noticed(monkeypatch):
    with pytest.raises(RuntimeError, match="not built with config 'fpga': output_rows is 4, not 8, output_cols is 4, not 8"):
        LtoaqAccelerator(FPGA, transport=FunctionalTransport(TINY))
    other = FunctionalTransport(PAPER)
    monkeypatch.setattr(other, "read_register", lambda offset: 0)
    with pytest.raises(RuntimeError, match="no LT-OAQ accelerator: register ID is 0x00000000"):
        LtoaqAccelerator(PAPER, transport=other)


def test_an_allocation_that_fails_takes_nothing():
    accelerator = LtoaqAccelerator(TINY, transport=FunctionalTransport(TINY))
    with pytest.raises(MemoryError, match="bytes wanted"):
        accelerator.allocate(accelerator.transport.memory_size)
    assert accelerator.allocate(32) > 0


def test_a_command_that_never_ends(monkeypatch):
    transport = FunctionalTransport(TINY)
    accelerator = LtoaqAccelerator(TINY, transport=transport, timeout_cycles=10)
    monkeypatch.setattr(transport, "_run", lambda address: None)
    with pytest.raises(TimeoutError, match=r"QUANTIZE of a 2×2 32-bit matrix .* did not end within 10 cycles"):
        accelerator.quantize(accelerator.upload_raw(matrix(1, (2, 2))), quantizer())


def test_both_transports_leave_the_same_memory():
    """Codes, segments and headers byte for byte, after the same commands."""
    memories = []
    for transport in ("functional", "simulation"):
        with LtoaqAccelerator(TINY, transport=transport, memory_size=MEMORY) as accelerator:
            x, w = accelerator.upload(tensor(1, (20, 33))), accelerator.upload(tensor(2, (17, 33)))
            raw = accelerator.gemm(x, w)
            accelerator.quantize(raw, QuantizerParameters.for_range(100.0, 300.0, 1.0, 8, False))
            accelerator.gemm(x, w, quantizer=QuantizerParameters.for_range(100.0, 300.0, 1.0, 4, True))
            memories.append(accelerator.read_memory(0, MEMORY))
            counters = accelerator.counters()
    assert memories[0] == memories[1]
    assert counters["done"] == 3 and 0 < counters["array_cycles"] < counters["cycles"]


def test_array_cycles_of_the_functional_model_are_the_arrays():
    counts = []
    for transport in ("functional", "simulation"):
        with LtoaqAccelerator(TINY, transport=transport, memory_size=MEMORY) as accelerator:
            for bits in (4, 8):
                for m, n, k in ((1, 1, 1), (9, 20, 17), (16, 8, 300)):
                    accelerator.gemm(accelerator.upload(tensor(1, (m, k), bits)), accelerator.upload(tensor(2, (n, k), bits)))
            counts.append(accelerator.counters()["array_cycles"])
    assert counts[0] == counts[1]
