"""What outliers cost: the share of its peak that an array reaches, measured on its Verilog.

``nibblecore utilization`` runs back-to-back passes of random 4-bit codes through the emitted fused array under Verilator, checks every
result, and prints

    utilization = (P − 1)·beats / (t_P − t_1),    t_n: the cycle in which the last result of pass n leaves,

products done over the products all PEs could have done, in steady state. Beside it stand the cycle-stepped model
(`nibblecore.sim.perf.fused_array`), the bound 1/(1 + q)² that no array of fused pairs can pass in the long run (q: the
probability that a word holds an outlier), and the figures of the design study for the same q. The wide scheme beside it, and what
either takes in area: `nibblecore.sim.measure.compare`.
"""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.emit.emit import emit_verilog
from nibblecore.hdl.ltoaq.array.wide_engine import WideEngine
from nibblecore.hdl.ltoaq.command.job import pass_layout
from nibblecore.hdl.ltoaq.fused.fused_array import FusedArray
from nibblecore.sim import verilator
from nibblecore.sim.golden.ltoaq.array.wide_array import wide_product
from nibblecore.sim.golden.ltoaq.fused.cluster import operand
from nibblecore.sim.golden.ltoaq.fused.fused_array import beats as to_beats
from nibblecore.sim.golden.ltoaq.fused.fused_array import fused_array
from nibblecore.sim.golden.ltoaq.operands.operand_decoder import decode_operand
from nibblecore.sim.golden.ltoaq.operands.residual_clip import clip_residuals
from nibblecore.sim.kept import cached, kept
from nibblecore.sim.perf.fused_array import beat_cycles, result_times
from nibblecore.sim.progress import building, doing
from numpy.typing import NDArray

__all__ = ["build_fused", "build_wide", "main", "measure_fused", "measure_wide", "model_fused", "wide_config"]

_STUDY = {2: {0.01: 0.90, 0.03: 0.81, 0.05: 0.74, 0.10: 0.64}, 4: {0.01: 0.97, 0.03: 0.93, 0.05: 0.88, 0.10: 0.79}}
"""Design study, 32 × 32 clusters: by depth (4 with early forwarding, 2 without) and probability that a word holds an outlier."""

# The formats of the operands; the fused array's C++ main sets them as well.
_T, _A_K, _W_K = 7, 1, 2


def build_fused(rows: int, cols: int, depth: int) -> Path:
    """Path of a simulator of the fused array that takes its stimulus from a file; built once per design."""
    verilator.executable()  # what is missing is said before the work, not after it
    verilog = emit_verilog(FusedArray(rows, cols, depth), "fused_array")
    return _build("fused_array", verilog, f"{rows}x{cols}_d{depth}", f"cluster_d{depth}")


def wide_config(rows: int, cols: int, *, lanes: int = 4, elements: int, passes: int) -> LtoaqConfig:
    """A wide machine whose operand banks hold `passes` passes of `elements` codes."""
    bus_bytes = 8 if min(rows, cols) < 8 else 32
    tile = max(rows, cols, 8)
    block = 4 if bus_bytes == 8 else 8
    bank_words = max(passes * -(-elements // block), 4 * tile // block * tile // min(rows, cols))
    return LtoaqConfig(
        name="array",
        rows=rows,
        cols=cols,
        tile=tile,
        bus_bytes=bus_bytes,
        lanes=lanes,
        bank_words=1 << (bank_words - 1).bit_length(),
    )


def build_wide(config: LtoaqConfig) -> Path:
    """Likewise of the wide engine: array, feeders and the issue of passes, between ideal buffers."""
    verilator.executable()
    verilog = emit_verilog(WideEngine(config), "wide_engine")
    column = next(line.split("(")[0].split()[1] for line in verilog.splitlines() if line.startswith("module wide_column"))
    return _build("wide_engine", verilog, f"{config.rows}x{config.cols}_wide{config.lanes}", column)


def _build(name: str, verilog: str, label: str, repeated: str) -> Path:
    """Simulator of `verilog` with the C++ main of that `name`; module `repeated` is compiled once, on its own."""
    folder_of_mains = Path(__file__).parents[1] / "perf"
    source = folder_of_mains / f"{name}.cpp"
    # Flat, an array of 512 clusters becomes 200 MB of C++; with the cluster compiled on its own it takes minutes. The shell that
    # Verilator then puts round each of them computes all of its outputs from all of its inputs, which makes loops; the lint of the
    # same Verilog as a whole knows of none.
    hierarchy = f'`verilator_config\nhier_block -module "{repeated}"\nlint_off -rule UNOPTFLAT\n'
    options = ["--cc", "--exe", "--build", "-j", "1", "--hierarchical", *verilator.WARNINGS]
    options += ["-CFLAGS", "-O1 -I.."]
    sources = [source, folder_of_mains / "ports.h"]
    texts = [verilog, hierarchy, *options, *(file.read_text() for file in sources)]
    folder = cached("utilization", f"{label}-{hashlib.sha256(''.join(texts).encode()).hexdigest()[:12]}")

    def make(result: Path) -> None:
        verilator.require_compiler()
        (result / f"{name}.v").write_text(verilog)
        (result / "hierarchy.vlt").write_text(hierarchy)
        places = ["-Mdir", "objects", "-o", f"../V{name}"]
        inputs = [f"{name}.v", "hierarchy.vlt", source.name]
        command = [verilator.executable(), *options, *places, "--top-module", name, *inputs]
        parts = [*result.iterdir(), *sources]
        with building(f"the simulation of {name} {label}"), verilator.workshop(result.parent, parts) as folder:
            ran = subprocess.run(command, env=verilator.environment(), capture_output=True, text=True, cwd=folder)
            if ran.returncode:
                raise RuntimeError(f"Verilator could not build {name}:\n{(ran.stdout + ran.stderr)[-4000:]}")
            shutil.move(folder / f"V{name}", result)

    return kept(folder, make) / f"V{name}"


def _random_codes(
    rng: np.random.Generator, rows: int, words: int, ratio: float, word_lanes: int = 4
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    codes = rng.integers(0, 16, (rows, words, 4))
    return codes, (rng.random(codes.shape) < ratio) & (np.arange(4) < word_lanes)


def measure_wide(config: LtoaqConfig, *, elements: int, passes: int, ratio: float, seed: int = 0) -> float:
    """Utilization of the emitted wide engine for `passes` passes of `elements` 4-bit codes a row, `ratio` of them outliers.

    `elements` is a multiple of the array's word and of the block. Raises AssertionError if a result is wrong or the engine
    spent another number of cycles with words than there are words.
    """
    rng = np.random.default_rng(seed)
    rows, cols, block = config.rows, config.cols, config.block
    address_bits = (config.bank_words - 1).bit_length()
    layout = pass_layout(address_bits)
    words = elements // config.lanes
    banks: list[NDArray[np.uint64]] = []
    commands, expected = [], []
    for number in range(passes):
        values = []
        for count, k in ((rows, _A_K), (cols, _W_K)):
            codes, flags = _random_codes(rng, count, elements // 4, ratio)
            codes = clip_residuals(codes, flags, 4, True, _T, k, config.value_max(4))
            values.append(decode_operand(codes.reshape(count, -1), flags.reshape(count, -1), 4, True, _T, k, config.value_max(4)))
            shifts = np.arange(block, dtype=np.uint64)
            packed = (codes.reshape(count, -1, block).astype(np.uint64) << 4 * shifts).sum(-1, dtype=np.uint64)
            banks.append(
                packed | (flags.reshape(count, -1, block).astype(np.uint64) << 4 * block + shifts).sum(-1, dtype=np.uint64)
            )
        expected.append(wide_product(*values, eight_bit=False, lanes=config.lanes)[0])
        at = number * elements // block
        commands.append(layout.const({"a_address": at, "w_address": at, "words": words, "last": 1}).as_value().value)
    formats = [1 | k << 1 | _T << 3 for k in (_A_K, _W_K)]
    memories = [np.concatenate(banks[side::2], axis=1) for side in (0, 1)]
    stimulus = np.concatenate([np.array(formats + commands, np.uint64), *(memory.reshape(-1) for memory in memories)])
    word_bits, depth = 5 * block, memories[0].shape[1]
    sizes = (cols, rows, word_bits, address_bits, depth, passes, rows * passes, 1000 + 20 * passes * words)
    times, values_out, rest = _simulate(build_wide(config), stimulus, sizes, cols, rows * passes)
    assert (values_out == np.concatenate(expected).T).all(), "the array's results are wrong"
    assert rest.tolist() == [passes * words], f"words entered in {rest.tolist()} cycles, not in {passes * words}"
    return _utilization(times, rows, words)


def measure_fused(
    rows: int, cols: int, depth: int, *, words: int, passes: int, ratio: float, seed: int = 0, word_lanes: int = 4
) -> tuple[float, float]:
    """Utilization of the emitted fused array and of the model, for `passes` passes of `words` words (even) of four 4-bit codes.

    Of each word the first `word_lanes` lanes are outliers with probability `ratio`, independently. Raises AssertionError if a
    result is wrong.
    """
    clusters = cols // 2
    stimulus: list[list[int]] = [[] for _ in range(rows + clusters)]
    expected, hot = [], []
    for sides in _fused_passes(rows, clusters, words, passes, ratio, seed, word_lanes):
        for first, (codes, flags, _) in zip((0, rows), sides, strict=True):
            for i in range(len(codes)):
                stimulus[first + i] += to_beats(codes[i], flags[i], 4)
        expected.append(fused_array(*(operand(codes, flags, 4, True, _T, k) for codes, flags, k in sides))[0])
        hot.append([_hot_beats(flags) for _, flags, _ in sides])
    results = rows * passes
    beats = np.array(stimulus, np.uint64)
    sizes = (clusters, rows, beats.shape[1], results, 1000 + 20 * (beats.shape[1] + results))
    times, values, _ = _simulate(build_fused(rows, cols, depth), beats, sizes, clusters, results)
    assert (values == np.concatenate(expected).T).all(), "the array's results are wrong"
    model = result_times(np.concatenate([beat_cycles(*sides) for sides in hot], axis=-1), words // 2, depth)
    return _utilization(times, rows, words // 2), _utilization(model, rows, words // 2)


def model_fused(rows: int, cols: int, depth: int, *, words: int, passes: int, ratio: float, seed: int = 0) -> float:
    """The model's figure alone."""
    cycles = [
        beat_cycles(*(_hot_beats(flags) for _, flags, _ in sides))
        for sides in _fused_passes(rows, cols // 2, words, passes, ratio, seed, 4)
    ]
    return _utilization(result_times(np.concatenate(cycles, axis=-1), words // 2, depth), rows, words // 2)


_Side = tuple[NDArray[np.int64], NDArray[np.bool_], int]


def _fused_passes(
    rows: int, clusters: int, words: int, passes: int, ratio: float, seed: int, word_lanes: int
) -> Iterator[list[_Side]]:
    """Codes, flags and k of A and W, pass by pass."""
    rng = np.random.default_rng(seed)
    for _ in range(passes):
        yield [(*_random_codes(rng, count, words, ratio, word_lanes), k) for count, k in ((rows, _A_K), (clusters, _W_K))]


def _hot_beats(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which words hold outliers, two to a beat."""
    return np.asarray(flags.any(axis=-1).reshape(len(flags), -1, 2))


def _simulate(
    program: Path, stimulus: NDArray[np.uint64], sizes: tuple[int, ...], columns: int, results: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cycle and value of each result, shape (columns, results), and what the program writes after them."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "stimulus.bin"), Path(folder, "results.bin")
        stimulus.tofile(source)
        subprocess.run([str(program), str(source), str(target), *map(str, sizes)], check=True)
        written = np.fromfile(target, np.uint64)
    out, rest = written[: 2 * columns * results].reshape(columns, results, 2), written[2 * columns * results :]
    values = (out[..., 1] & 0xFFFF_FFFF).astype(np.uint32).astype(np.int32).astype(np.int64)
    return out[..., 0].astype(np.int64), values, rest.astype(np.int64)


def _utilization(times: NDArray[np.int64], rows: int, beats: int) -> float:
    ends = times.reshape(len(times), -1, rows).max(axis=(0, 2))
    return float((len(ends) - 1) * beats / (ends[-1] - ends[0]))


def main(
    *, rows: int, cols: int, depths: list[int], elements: int, passes: int, ratios: list[float], word_lanes: int, seed: int
) -> int:
    """``nibblecore utilization``."""
    for depth in depths:
        build_fused(rows, cols, depth)
    found = []
    for depth in depths:
        for ratio in ratios:
            with doing(f"depth {depth}, {100 * ratio:g} % outliers"):
                shares = measure_fused(
                    rows, cols, depth, words=elements // 4, passes=passes, ratio=ratio, seed=seed, word_lanes=word_lanes
                )
            word = 1 - (1 - ratio) ** word_lanes
            found.append((depth, ratio, word, *shares, 1 / (1 + word) ** 2, _STUDY.get(depth, {}).get(round(word, 4))))
    columns = ["depth of FIFOs", "outliers", "words with one", "utilization", "model", "bound"]
    if studied := any(study for *_, study in found):
        columns.append("design study")
    print(
        f"Fused array of {rows} × {cols} PEs, K = {elements}, {passes} passes of 4-bit codes back to back; "
        f"outliers in {word_lanes} of 4 lanes of a word; every result checked.\n"
    )
    print(f"| {' | '.join(columns)} |")
    print("| ---: " * len(columns) + "|")
    for depth, ratio, word, measured, model, bound, study in found:
        cells = [f"{depth}", f"{100 * ratio:g} %", f"{100 * word:.1f} %", *(f"{share:.3f}" for share in (measured, model, bound))]
        print(f"| {' | '.join(cells + [f'{study:.2f}' if study else ''] * studied)} |")
    return 0
