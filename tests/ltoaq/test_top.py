"""The whole accelerator, as its users see it: registers, descriptors, memory."""

import struct
from bisect import bisect_left
from dataclasses import replace

import numpy as np
import pytest
from nibblecore.hdl.bus.axi4 import Response
from nibblecore.hdl.config import PRESETS, LtoaqConfig
from nibblecore.hdl.ltoaq.command.descriptor import Opcode, pack, unpack
from nibblecore.hdl.ltoaq.command.errors import ErrorCode
from nibblecore.hdl.ltoaq.registers import REGISTERS
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.golden.ltoaq import top as golden
from nibblecore.sim.host.ltoaq import descriptor as descriptors
from nibblecore.sim.host.ltoaq.accelerator import AcceleratorError, LtoaqAccelerator
from nibblecore.sim.host.simulation import Simulation
from nibblecore.sim.regress import ltoaq as regress

MEMORY = 1 << 20
TINY = PRESETS["tiny"]
EIGHT_LANES = LtoaqConfig(name="eight", rows=8, cols=8, tile=16, bus_bytes=32, bank_words=256, lanes=8)
ODD = LtoaqConfig(
    name="odd", rows=16, cols=8, tile=32, bus_bytes=8, bank_words=512, fifo_depth=5, run_bits=7, queue_depth=2, id_bits=3
)
"""Eight columns are no matter of a bus of eight bytes; a block of such a bus has four rows, and lanes are four or eight."""
OFFSET = {register.name: register.offset for register in REGISTERS}


def noting(seen):
    """In the place of the driver's `_run`: the command's fields, which is not run."""
    return lambda fields, what, address=0, size=0: seen.update(fields) or (False, bytes(size))


@pytest.fixture(scope="module", params=["tiny", "tiny_fused"])
def config(request):
    return PRESETS[request.param]


@pytest.fixture
def simulation(config):
    with Simulation(config, memory_size=MEMORY) as simulation:
        yield simulation


@pytest.fixture
def accelerator(simulation, config):
    return LtoaqAccelerator(config, transport=simulation, timeout_cycles=200_000)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_random_commands_equal_the_golden_model(config, stall):
    with LtoaqAccelerator(config, stall=stall, seed=7, timeout_cycles=2_000_000) as accelerator:
        products = sum(regress.run_one(accelerator, seed).multiplications > 0 for seed in range(2000, 2040))
    assert products > 20


def test_paired_products_are_the_same_machine():
    """Its results, and its times to the cycle."""
    cycles = []
    for paired in (False, True):
        config = replace(TINY, paired=paired)
        with LtoaqAccelerator(config, stall=0.2, seed=7, timeout_cycles=2_000_000) as accelerator:
            products = sum(regress.run_one(accelerator, seed).multiplications > 0 for seed in range(2000, 2040))
            cycles.append(accelerator.counters())
        assert products > 20
    assert cycles[0] == cycles[1]


def test_sizes_of_which_no_two_are_equal():
    """Random commands where rows, columns, tile, block, bank and queue all differ, so that none can stand in for another."""
    with LtoaqAccelerator(ODD, stall=0.2, seed=7, timeout_cycles=2_000_000) as accelerator:
        products = sum(regress.run_one(accelerator, seed).multiplications > 0 for seed in range(2000, 2040))
    assert products > 20


def test_eight_lanes():
    """Random commands on the machine with eight lanes; words of the array are counted as the functional model counts them."""
    counts = []
    with LtoaqAccelerator(EIGHT_LANES, stall=0.2, seed=8) as accelerator:
        products = sum(regress.run_one(accelerator, seed).multiplications > 0 for seed in range(3000, 3040))
        for machine in (accelerator, LtoaqAccelerator(EIGHT_LANES, transport="functional")):
            before = machine.counters()["array_cycles"]
            for seed in range(3040, 3048):
                regress.run_one(machine, seed)
            counts.append(machine.counters()["array_cycles"] - before)
    assert products > 20
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    "wrong, message", [({"bus_bytes": 8}, "32-byte bus"), ({"outliers": "fused", "cols": 16}, "wide"), ({"lanes": 16}, "4 or 8")]
)
def test_eight_lanes_are_refused_where_they_are_not_built(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(EIGHT_LANES, **wrong)


def test_large_k_is_summed_in_parts(accelerator, config):
    """K so long that no panel fits half a bank: the accumulators are held across parts of K."""
    rng = np.random.default_rng(3)
    k = config.bank_words * config.block
    a = regress.random_tensor(rng, (5, k), 8, outlier_ratio=0.1)
    w = regress.random_tensor(rng, (k, 3), 8, outlier_ratio=0.1)
    expected, overflow = golden.gemm(a, w, config, False, True)
    raw = accelerator.gemm(accelerator.upload(a), accelerator.upload(w), w_transposed=True)
    assert np.array_equal(accelerator.download(raw), expected)
    assert raw.overflow == overflow


def overflowing(config):
    """A tensor whose product with itself leaves 32 bits."""
    largest = config.value_max(8)
    k = 2**31 // largest**2 + 64
    a = regress.random_tensor(np.random.default_rng(0), (2, k), 8, outlier_ratio=1.0)
    full = a.replace(codes=np.full((2, k), (largest - 255) >> 2, np.uint8), signed=False, threshold=255, k=2)
    assert golden.gemm(full, full, config)[1], "the case is meant to overflow"
    return full


def test_a_residual_beyond_the_range_counts_as_the_largest(accelerator):
    """1 × 1 × 1: an outlier of code 15 with T = 15 and k = 3 is 31, not 15 + 15 · 8, in both schemes."""
    a = OaqTensor(np.full((1, 1), 15, np.uint8), np.ones((1, 1), bool), 4, False, 15, 3)
    one = OaqTensor(np.ones((1, 1), np.uint8), np.zeros((1, 1), bool), 4, True, 7, 0)
    product = accelerator.gemm(accelerator.upload(a), accelerator.upload(one))
    assert accelerator.download(product).tolist() == [[31]]


def test_overflow_is_flagged_and_wraps(accelerator, config):
    full = overflowing(config)
    raw = accelerator.gemm(accelerator.upload(full), accelerator.upload(full))
    assert raw.overflow
    assert np.array_equal(accelerator.download(raw), golden.gemm(full, full, config)[0])


def test_overflow_and_interrupt_beat_their_clear(simulation, accelerator, config):
    """A clear before either, or in its cycle, leaves it; the first after it clears it for good, although the core's flag stays up.

    Cycles count from the answer to the push. A write that begins in a cycle acts at the end of the next; CONTROL is seen in the one after
    that. What is read in a cycle was set in the cycle before.
    """
    full = overflowing(config)
    seen: dict[str, int] = {}
    push, accelerator._run = accelerator._run, noting(seen)
    accelerator.gemm(accelerator.upload(full), accelerator.upload(full))
    accelerator._run = push
    simulation.write_memory(accelerator._descriptor, pack(**seen, interrupt=1))

    def run(cycles):
        accelerator._abandon("what ran before")
        simulation.run(100)
        simulation.write_register(OFFSET["PUSH"], accelerator._descriptor)
        simulation.run(cycles)

    def overflowed():
        return bool(REGISTERS["STATUS"].unpack(simulation.read_register(OFFSET["STATUS"]))["overflow"])

    run(0)
    begun = simulation.cycles
    simulation.wait(100_000)
    ends = simulation.cycles - begun
    shown = bisect_left(range(ends), True, key=lambda cycles: run(cycles) or overflowed())
    assert 0 < shown < ends
    last_to_lose = shown - 1 - 2
    for cycle in range(last_to_lose - 6, last_to_lose + 7):
        run(cycle)
        simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(clear_error=1))
        simulation.wait(100_000)
        assert overflowed() == (cycle <= last_to_lose), f"{cycle - last_to_lose} cycles from the last that loses"
    last_to_lose = ends - 1 - 1
    for cycle in range(last_to_lose - 6, last_to_lose + 7):
        run(cycle)
        simulation.write_register(OFFSET["IRQ_STATUS"], REGISTERS["IRQ_STATUS"].mask)
        simulation.run(20)
        pending = REGISTERS["IRQ_STATUS"].unpack(simulation.read_register(OFFSET["IRQ_STATUS"]))
        assert pending == {"done": cycle <= last_to_lose, "error": 0}, f"{cycle - last_to_lose} cycles from the last that loses"


def test_a_quantized_result_feeds_all_three_products(accelerator, config):
    """No host touches it in between."""
    rng = np.random.default_rng(5)
    limit = config.value_max(4)
    x, w = (regress.random_tensor(rng, shape, 4, outlier_ratio=0.05) for shape in ((11, 19), (13, 19)))
    q = golden_parameters(np.abs(golden.gemm(x, w, config)[0]), 4, limit)
    y = accelerator.gemm(accelerator.upload(x), accelerator.upload(w), quantizer=q)
    expected_y, statistics = golden.quantize(golden.gemm(x, w, config)[0], q)
    assert y.statistics == statistics
    other = regress.random_tensor(rng, (11, 7), 4, outlier_ratio=0.05)
    turned = regress.random_tensor(rng, (7, 13), 4, outlier_ratio=0.05)
    straight = regress.random_tensor(rng, (13, 9), 4, outlier_ratio=0.05)
    for left, right, a_transposed, w_transposed in ((y, turned, False, False), (y, straight, False, True), (y, other, True, True)):
        raw = accelerator.gemm(left, accelerator.upload(right), a_transposed=a_transposed, w_transposed=w_transposed)
        expected, _ = golden.gemm(expected_y, right, config, a_transposed, w_transposed)
        assert np.array_equal(accelerator.download(raw), expected)


def golden_parameters(magnitudes, bits, value_max):
    alpha = float(np.quantile(magnitudes, 0.9)) + 1
    return golden.QuantizerParameters.for_range(alpha, float(magnitudes.max()) + 2, 1.0, bits, True, False)


def legal_descriptors(accelerator, config):
    """A GEMM to a tensor, a GEMM to raw words, a QUANTIZE and a THRESHOLD_GRAD, each in memory of its own."""
    rng = np.random.default_rng(9)
    a, w = (accelerator.upload(regress.random_tensor(rng, shape, 4, outlier_ratio=0.05)) for shape in ((9, 10), (11, 10)))
    y, g = (accelerator.upload_raw(rng.integers(-1000, 1000, (9, 11)).astype(np.int32)) for _ in range(2))
    seen: list[dict[str, int]] = []
    push = accelerator._run

    def keep(fields, what, address=0, size=0):
        seen.append(dict(fields))
        return False, bytes(size)

    accelerator._run = keep
    q = golden_parameters(np.arange(1000), 4, 31)
    accelerator.gemm(a, w, quantizer=q)
    accelerator.gemm(a, w)
    accelerator.quantize(y, q)
    accelerator.threshold_grad(y, g, q)
    accelerator._run = push
    return seen


def broken_descriptors(config, legal):
    """(name, fields) with one field made illegal in every way that has a code."""
    beat = config.bus_bytes
    for fields in legal:
        name = Opcode(fields["opcode"]).name.lower()
        yield f"{name} opcode", {**fields, "opcode": 77}
        for field in ("m", "n", "k"):
            if fields.get(field):
                yield f"{name} {field}=0", {**fields, field: 0}
                yield f"{name} {field}=65536", {**fields, field: 65536}
        for field, value in fields.items():
            if field.endswith(("_codes", "_runs", "_header", "_address")) and field in fields:
                yield f"{name} {field}+1", {**fields, field: value + 1}
                yield f"{name} {field} outside", {**fields, field: MEMORY}
                yield f"{name} {field} at the end", {**fields, field: 2**32 - 32}
            if field.endswith("_pitch"):
                yield f"{name} {field} odd", {**fields, field: value + 1}
                yield f"{name} {field} short", {**fields, field: beat}
            if field.endswith("_run_stride"):
                yield f"{name} {field}=0", {**fields, field: 0}
                yield f"{name} {field} huge", {**fields, field: 65535}
            if field.endswith("_threshold"):
                yield f"{name} {field}=0", {**fields, field: 0}
                yield f"{name} {field} large", {**fields, field: 200}
            if field in ("a_group", "w_group", "k_tiles"):
                yield f"{name} {field}=0", {**fields, field: 0}
                yield f"{name} {field} large", {**fields, field: 255}
        if "alpha" in fields:
            for field, value in (("alpha", 0), ("alpha", 2**31), ("multiplier", 0), ("shift", 40)):
                yield f"{name} {field}={value}", {**fields, field: value}
        else:
            yield f"{name} alpha unused", {**fields, "alpha": 5}
        if name != "gemm":
            yield f"{name} k unused", {**fields, "k": 3}
        else:
            yield f"{name} widths differ", {**fields, "w_eight_bit": 1 - int(fields["w_eight_bit"])}


def test_bad_descriptors_are_refused_with_their_code_and_write_nothing(simulation, accelerator, config):
    legal = legal_descriptors(accelerator, config)
    cases = [(name, pack(**fields, interrupt=1)) for name, fields in broken_descriptors(config, legal)]
    reserved = bytearray(pack(**legal[0], interrupt=1))
    reserved[4 * 30] = 1
    cases.append(("reserved word", bytes(reserved)))
    window = (0, MEMORY - 1)
    codes = set()
    for name, raw in cases:
        expected, why = descriptors.check(raw, config, window)
        assert expected != ErrorCode.NONE, f"{name} is legal after all"
        codes.add(expected)
        simulation.write_memory(accelerator._descriptor, raw)
        before = simulation.memory.copy()
        simulation.write_register(OFFSET["PUSH"], accelerator._descriptor)
        simulation.wait(10_000)
        simulation.run(50)
        got = ErrorCode(REGISTERS["ERROR"].unpack(simulation.read_register(OFFSET["ERROR"]))["code"])
        assert got == expected, f"{name}: {got.name}, expected {expected.name} ({why})"
        assert np.array_equal(simulation.memory, before), f"{name}: memory changed"
        simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(clear_error=1))
        simulation.write_register(OFFSET["IRQ_STATUS"], REGISTERS["IRQ_STATUS"].mask)
    assert codes == {ErrorCode(code) for code in range(1, 8)}
    regress.run_one(accelerator, 4711)


@pytest.mark.parametrize("side", ["a", "w"])
@pytest.mark.parametrize("damage", ["count beyond what is fetched", "codes past the tile", "codes left over", "header"])
def test_malformed_runs_abandon_the_command_and_the_next_one_works(simulation, accelerator, config, side, damage):
    rng = np.random.default_rng(2)
    tensors = {name: regress.random_tensor(rng, (20, 20), 4, outlier_ratio=0.1) for name in "aw"}
    handles = {name: accelerator.upload(tensor) for name, tensor in tensors.items()}
    victim = handles[side]
    last_tile = victim.runs + 8 * victim.run_stride * config.bus_bytes
    slots, r = config.run_slots, config.run_bits
    most = (1 << r) - 1

    def segment(count, codes):
        word = count | sum(code << (2 * r + i * r) for i, code in enumerate(codes))
        return word.to_bytes(config.bus_bytes, "little").ljust(victim.run_stride * config.bus_bytes, b"\0")

    if damage == "header":
        simulation.write_memory(victim.header, struct.pack("<I", config.max_run_beats + 1))
    elif damage == "count beyond what is fetched":
        simulation.write_memory(last_tile, segment(slots * victim.run_stride, [0] * (slots - 2)))
    elif damage == "codes past the tile":
        simulation.write_memory(last_tile, segment(3, [most, 60, 0]))
    else:
        simulation.write_memory(last_tile, segment(4, [most, 0, 0, 0]))
    with pytest.raises(AcceleratorError) as error:
        accelerator.gemm(handles["a"], handles["w"])
    assert error.value.code == ErrorCode.MALFORMED_RUNS
    regress.run_one(accelerator, 99)


def test_an_output_segment_longer_than_its_stride_is_an_error(simulation, accelerator, config):
    y = np.full((config.tile, config.tile), 1000, np.int32)
    raw = accelerator.upload_raw(y)
    q = golden.QuantizerParameters(bits=4, signed=True, alpha=10, multiplier=255, shift=8, k=0, threshold=7)
    seen: dict[str, int] = {}
    push = accelerator._run
    accelerator._run = noting(seen)
    accelerator.quantize(raw, q)
    accelerator._run = push
    guard = seen["out_runs"] + config.bus_bytes
    simulation.write_memory(guard, b"\xa5" * 64)
    with pytest.raises(AcceleratorError) as error:
        accelerator._run({**seen, "out_run_stride": 1}, "QUANTIZE")
    assert error.value.code == ErrorCode.RUN_OVERFLOW
    assert simulation.read_memory(guard, 64) == b"\xa5" * 64, "a neighbour's segment was overwritten"
    regress.run_one(accelerator, 5)


@pytest.mark.parametrize(
    "field, code", [("a_codes", ErrorCode.BUS_READ), ("a_header", ErrorCode.BUS_READ), ("raw0_address", ErrorCode.BUS_WRITE)]
)
def test_bus_errors_are_reported_and_survived(simulation, accelerator, config, field, code):
    """The window is wider than the memory, so that the memory itself refuses."""
    legal = legal_descriptors(accelerator, config)[1]
    simulation.write_register(OFFSET["WINDOW_LAST"], 2 * MEMORY - 1)
    with pytest.raises(AcceleratorError) as error:
        accelerator._run({**legal, field: MEMORY + 4096}, "GEMM")
    assert error.value.code == code
    simulation.write_register(OFFSET["WINDOW_LAST"], MEMORY - 1)
    regress.run_one(accelerator, 6)


def transfers(config, legal):
    """(descriptor, its field that holds a region's address, beats of the region that are sure to be moved, error of a refused one)"""
    product, quantize, gradient = legal[1:]
    tiles, beats = 4, config.tile_beats(4)  # each tensor has 2 × 2 tiles of 4 bits
    rows = 9 * product["raw0_pitch"] // config.bus_bytes
    for name in "aw":
        yield product, f"{name}_header", 1, ErrorCode.BUS_READ
        yield product, f"{name}_codes", tiles * beats, ErrorCode.BUS_READ
        yield product, f"{name}_runs", tiles * product[f"{name}_run_stride"], ErrorCode.BUS_READ
    yield product, "raw0_address", rows, ErrorCode.BUS_WRITE
    yield quantize, "raw0_address", rows, ErrorCode.BUS_READ
    yield quantize, "out_codes", tiles * beats, ErrorCode.BUS_WRITE
    yield quantize, "out_runs", (tiles - 1) * quantize["out_run_stride"] + 1, ErrorCode.BUS_WRITE
    yield quantize, "out_header", 1, ErrorCode.BUS_WRITE
    yield gradient, "raw0_address", rows, ErrorCode.BUS_READ
    yield gradient, "raw1_address", rows, ErrorCode.BUS_READ
    yield gradient, "out_header", 1, ErrorCode.BUS_WRITE


def test_an_answer_other_than_okay_to_any_beat_abandons_the_command(simulation, accelerator, config):
    """One beat of all of a command's, in turn: EXOKAY too, with data that would do, and nothing asked for exclusive access."""
    bus, abandoned = config.bus_bytes, 0
    cases = [
        (fields, name, fields[name] + beat * bus, code)
        for fields, name, beats, code in transfers(config, legal_descriptors(accelerator, config))
        for beat in range(0, beats, fields["out_run_stride"] if name == "out_runs" else 1)
    ]
    product = cases[0][0]
    cases += [(product, "descriptor", accelerator._descriptor + at, ErrorCode.BUS_READ) for at in range(0, 128, bus)]
    for fields, name, address, code in cases:
        for response in (Response.EXOKAY, Response.SLVERR, Response.DECERR):
            done = accelerator.counters()["done"]
            simulation.answer(address, response)
            with pytest.raises(AcceleratorError) as error:
                accelerator._run(fields, "a command")
            simulation.answer(address, Response.OKAY)
            abandoned += 1
            assert error.value.code == code, f"{name}, {response.name} at {address:#x}: {error.value}"
            assert (accelerator.counters()["done"], accelerator.counters()["abandoned"]) == (done, abandoned), name
    regress.run_one(accelerator, 16)


def test_a_bus_error_on_any_beat_abandons_the_command(simulation, accelerator, config):
    """Every region in turn lies across the end of the memory, so that each of its beats once is the first that is refused."""
    bus = config.bus_bytes
    simulation.write_register(OFFSET["WINDOW_LAST"], 2 * MEMORY - 1)
    refused = 0
    for fields, name, beats, code in transfers(config, legal_descriptors(accelerator, config)):
        data = simulation.read_memory(fields[name], beats * bus)
        for inside in range(beats):
            address = MEMORY - inside * bus
            simulation.write_memory(address, data[: inside * bus])
            done = accelerator.counters()["done"]
            with pytest.raises(AcceleratorError) as error:
                accelerator._run({**fields, name: address}, "a command")
            refused += 1
            assert error.value.code == code, f"{name}, beat {inside}: {error.value}"
            assert (accelerator.counters()["done"], accelerator.counters()["abandoned"]) == (done, refused), name
    for outside in range(32, 128, 32):
        simulation.write_register(OFFSET["PUSH"], MEMORY - 128 + outside)
        simulation.wait(10_000)
        assert REGISTERS["ERROR"].unpack(simulation.read_register(OFFSET["ERROR"]))["code"] == ErrorCode.BUS_READ
        accelerator._abandon("a descriptor")
        assert simulation.read_register(OFFSET["ABANDONED"]) == refused + outside // 32
    simulation.write_register(OFFSET["WINDOW_LAST"], MEMORY - 1)
    regress.run_one(accelerator, 15)


def test_an_abandoned_command_does_not_look_done(simulation, accelerator, config):
    """A soft reset at any time: `done` and DONE exactly for what was done, and no end is lost."""
    seen: dict[str, int] = {}
    push, accelerator._run = accelerator._run, noting(seen)
    raw = accelerator.upload_raw(np.ones((30, 30), np.int32))
    accelerator.quantize(raw, golden_parameters(np.arange(1000), 4, 31))
    accelerator._run = push
    simulation.write_memory(accelerator._descriptor, pack(**seen, interrupt=1))
    ends = set()
    for cycles in (0, 20, 40, 80, 300, *range(500, 1600, 75), 4000):
        simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(clear_counters=1))
        simulation.write_register(OFFSET["IRQ_STATUS"], REGISTERS["IRQ_STATUS"].mask)
        simulation.write_memory(seen["out_header"], b"\xa5" * 32)
        for _ in range(2):
            simulation.write_register(OFFSET["PUSH"], accelerator._descriptor)
        simulation.run(cycles)
        simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(soft_reset=1))
        simulation.run(400)
        done, abandoned, interrupt, error = (
            simulation.read_register(OFFSET[name]) for name in ("DONE", "ABANDONED", "IRQ_STATUS", "ERROR")
        )
        assert done + abandoned == 2 and interrupt == (done > 0) and error == 0, (cycles, done, abandoned, interrupt, error)
        if done:
            assert simulation.read_memory(seen["out_header"], 32) != b"\xa5" * 32, cycles
        ends.add(done)
    assert ends == {0, 1, 2}


def test_a_window_holds_from_the_next_command_on(simulation, accelerator, config):
    """The first of two commands runs while the window is shrunk to exclude both, at any time of its check."""
    legal = legal_descriptors(accelerator, config)[2]
    simulation.write_memory(accelerator._descriptor, pack(**legal))
    for cycles in range(40):
        simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(clear_counters=1, clear_error=1))
        for _ in range(2):
            simulation.write_register(OFFSET["PUSH"], accelerator._descriptor)
        simulation.run(cycles)
        simulation.write_register(OFFSET["WINDOW_LAST"], 255)
        simulation.run(3000)
        error = REGISTERS["ERROR"].unpack(simulation.read_register(OFFSET["ERROR"]))
        assert error == {"code": ErrorCode.OUT_OF_WINDOW, "sequence": 1}, cycles
        assert (simulation.read_register(OFFSET["DONE"]), simulation.read_register(OFFSET["ABANDONED"])) == (1, 1), cycles
        simulation.write_register(OFFSET["WINDOW_LAST"], MEMORY - 1)


def test_queued_commands_run_in_order_and_a_full_queue_says_so(simulation, accelerator, config):
    rng = np.random.default_rng(4)
    jobs = []
    for i in range(config.queue_depth):
        y = rng.integers(-500, 500, (6, 7)).astype(np.int32)
        seen: dict[str, int] = {}
        push, accelerator._run = accelerator._run, noting(seen)
        q = golden_parameters(np.abs(y), 4, 31)
        handle = accelerator.quantize(accelerator.upload_raw(y), q)
        accelerator._run = push
        address = accelerator.allocate(128)
        simulation.write_memory(address, pack(**seen, interrupt=int(i == config.queue_depth - 1)))
        # It has not run yet, so the driver read no header of it.
        jobs.append((address, replace(handle, run_beats=None), golden.quantize(y, q)[0]))
    done = simulation.read_register(OFFSET["DONE"])
    for address, _, _ in jobs:
        simulation.write_register(OFFSET["PUSH"], address)
    simulation.wait(100_000)
    simulation.write_register(OFFSET["IRQ_STATUS"], 3)
    assert simulation.read_register(OFFSET["DONE"]) == done + len(jobs)
    for _, handle, expected in jobs:
        assert accelerator.download(handle).first_difference(expected) is None
    # Registers are slower than short commands, so the queue is filled behind a long one.
    long = legal_descriptors(accelerator, config)[0]
    address = accelerator.allocate(128)
    simulation.write_memory(address, pack(**long))
    depth = 1 << REGISTERS["CONFIG1"].unpack(simulation.read_register(OFFSET["CONFIG1"]))["queue_depth"]
    status = {"error": 0, "queue_level": 0}
    for _ in range(60):
        room = status["queue_level"] < depth
        simulation.write_register(OFFSET["PUSH"], address)
        status = REGISTERS["STATUS"].unpack(simulation.read_register(OFFSET["STATUS"]))
        if status["error"]:
            break
    assert status["error"] and not room, "only a push into a full queue is dropped"
    assert REGISTERS["ERROR"].unpack(simulation.read_register(OFFSET["ERROR"]))["code"] == ErrorCode.QUEUE_OVERFLOW


def test_soft_reset_abandons_the_command_and_empties_the_queue(simulation, accelerator, config):
    rng = np.random.default_rng(8)
    a, w = (accelerator.upload(regress.random_tensor(rng, (60, 60), 4, outlier_ratio=0.1)) for _ in range(2))
    seen: dict[str, int] = {}
    push, accelerator._run = accelerator._run, noting(seen)
    accelerator.gemm(a, w)
    accelerator._run = push
    for cycles in (30, 150, 700, 1500):
        simulation.write_memory(accelerator._descriptor, pack(**seen))
        for _ in range(3):
            simulation.write_register(OFFSET["PUSH"], accelerator._descriptor)
        simulation.run(cycles)
        simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(soft_reset=1))
        simulation.run(400)
        status = REGISTERS["STATUS"].unpack(simulation.read_register(OFFSET["STATUS"]))
        assert not status["busy"] and not status["queue_level"] and not status["error"], f"after {cycles} cycles: {status}"
    regress.run_one(accelerator, 12)


def refused_command(accelerator, simulation):
    """The address of a command with an opcode that there is not."""
    address = accelerator.allocate(128)
    simulation.write_memory(address, pack(opcode=77))
    return address


def test_a_command_pushed_right_after_a_soft_reset_runs(simulation, accelerator):
    address = refused_command(accelerator, simulation)
    for queued in range(5):
        simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(clear_error=1, clear_counters=1))
        for _ in range(queued + 1):
            simulation.write_register(OFFSET["PUSH"], address)
        simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(soft_reset=1, clear_error=1, clear_counters=1))
        simulation.write_register(OFFSET["PUSH"], address)
        simulation.run(1000)
        error = REGISTERS["ERROR"].unpack(simulation.read_register(OFFSET["ERROR"]))
        assert error["code"] == ErrorCode.BAD_OPCODE and simulation.read_register(OFFSET["DONE"]) == 0, queued
        # The one that was running when the counters were cleared counts, too.
        assert simulation.read_register(OFFSET["ABANDONED"]) in (1, 2), queued


@pytest.mark.parametrize("cycles", range(0, 60, 4))
def test_a_soft_reset_leaves_no_error_behind(simulation, accelerator, cycles):
    """Of the command that it abandons, wherever that has got to."""
    simulation.write_register(OFFSET["PUSH"], refused_command(accelerator, simulation))
    simulation.run(cycles)
    simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(soft_reset=1, clear_error=1))
    simulation.run(300)
    assert simulation.read_register(OFFSET["ERROR"]) == 0


def test_every_error_raises_the_interrupt(simulation, accelerator):
    """Also one that is found in the cycle in which the one before is cleared."""
    address = refused_command(accelerator, simulation)
    kept = 0
    for cycles in range(40, 75):
        for wait in (300, cycles):
            simulation.write_register(OFFSET["IRQ_STATUS"], REGISTERS["IRQ_STATUS"].mask)
            simulation.write_register(OFFSET["PUSH"], address)
            simulation.run(wait)
        simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(clear_error=1))
        simulation.run(300)
        interrupt = REGISTERS["IRQ_STATUS"].unpack(simulation.read_register(OFFSET["IRQ_STATUS"]))
        error = REGISTERS["ERROR"].unpack(simulation.read_register(OFFSET["ERROR"]))
        kept += error["code"] == ErrorCode.BAD_OPCODE
        assert interrupt["error"] or not error["code"], cycles
        simulation.write_register(OFFSET["CONTROL"], REGISTERS["CONTROL"].pack(clear_error=1))
    assert 0 < kept < 35


def test_after_a_command_that_took_too_long_the_next_is_right(simulation, accelerator, config):
    rng = np.random.default_rng(21)
    a, w = (accelerator.upload(regress.random_tensor(rng, (40, 40), 4, outlier_ratio=0.1)) for _ in "aw")
    accelerator.timeout_cycles = 300
    with pytest.raises(TimeoutError, match="did not end within 300 cycles"):
        accelerator.gemm(a, w)
    accelerator.timeout_cycles = 200_000
    regress.run_one(accelerator, 14)


def test_reset_in_the_middle_of_a_command(simulation, accelerator, config):
    rng = np.random.default_rng(8)
    a, w = (accelerator.upload(regress.random_tensor(rng, (40, 40), 8, outlier_ratio=0.1)) for _ in range(2))
    seen: dict[str, int] = {}
    push, accelerator._run = accelerator._run, noting(seen)
    accelerator.gemm(a, w)
    accelerator._run = push
    simulation.write_memory(accelerator._descriptor, pack(**seen))
    simulation.write_register(OFFSET["PUSH"], accelerator._descriptor)
    simulation.run(600)
    simulation.reset()
    fresh = LtoaqAccelerator(config, transport=simulation, timeout_cycles=200_000)
    regress.run_one(fresh, 13)


def test_counters_add_up(simulation, accelerator, config):
    rng = np.random.default_rng(1)
    a, w = (accelerator.upload(regress.random_tensor(rng, (32, 64), 4, outlier_ratio=0.0)) for _ in range(2))
    assert not any(accelerator.counters().values())
    accelerator.gemm(a, w)
    counters = accelerator.counters()
    assert counters["done"] == 1
    if not config.fused:
        passes = (32 // config.rows) * (32 // config.output_cols)
        assert counters["array_cycles"] == passes * 64 // config.word_elements(4)
    assert counters["array_cycles"] < counters["cycles"]


def test_unpack_is_the_inverse_of_pack():
    fields = {"opcode": 2, "m": 3, "n": 4, "alpha": 99, "out_k": 2}
    assert {name: value for name, value in unpack(pack(**fields)).items() if value} == fields
