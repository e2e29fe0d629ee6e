"""What outliers cost: the share of its peak that an array reaches, measured on its Verilog.

``python -m nibblecore.sim.utilization [--rows R] [--cols C] [--depths 2 4] [--elements K] [--passes P] [--word-lanes 1]``

Runs back-to-back passes of random 4-bit codes through the emitted fused array under Verilator, checks every result, and prints

    utilization = (P − 1)·beats / (t_P − t_1),    t_n: the cycle in which the last result of pass n leaves,

products done over the products all PEs could have done, in steady state. Beside it stand the cycle-stepped model
(`nibblecore.sim.perf.fused_array`), the bound 1/(1 + q)² that no array of fused pairs can pass in the long run (q: the
probability that a word holds an outlier), and the figures of the design study for the same q.
"""

import argparse
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from nibblecore.hdl.emit import emit_verilog
from nibblecore.hdl.ltoaq.fused_array import FusedArray
from numpy.typing import NDArray

from . import verilator
from .golden.ltoaq.cluster import operand
from .golden.ltoaq.fused_array import beats as to_beats
from .golden.ltoaq.fused_array import fused_array
from .perf.fused_array import beat_cycles, result_times

__all__ = ["build", "main", "measure"]

_ROOT = Path(__file__).resolve().parent.parent
BUILD = (_ROOT if (_ROOT / "pyproject.toml").exists() else Path.cwd()) / "build" / "utilization"

_STUDY = {2: {0.01: 0.90, 0.03: 0.81, 0.05: 0.74, 0.10: 0.64}, 4: {0.01: 0.97, 0.03: 0.93, 0.05: 0.88, 0.10: 0.79}}
"""Design study, 32 × 32 clusters: by depth (4 with early forwarding, 2 without) and probability that a word holds an outlier."""

# The format the C++ main sets.
_T, _A_K, _W_K = 7, 1, 2


def build(rows: int, cols: int, depth: int) -> Path:
    """Path of a simulator of the fused array that takes its stimulus from a file; built once per design."""
    source = Path(__file__).parent / "perf" / "fused_array.cpp"
    verilog = emit_verilog(FusedArray(rows, cols, depth), "fused_array")
    # Flat, an array of 512 clusters becomes 200 MB of C++; with the cluster compiled on its own it takes minutes.
    hierarchy = f'`verilator_config\nhier_block -module "cluster_d{depth}"\n'
    options = ["--cc", "--exe", "--build", "-j", "1", "--hierarchical", *verilator.WARNINGS, "-CFLAGS", "-O1"]
    tag = hashlib.sha256("".join([verilog, hierarchy, *options, source.read_text()]).encode()).hexdigest()[:12]
    folder = BUILD / f"{rows}x{cols}_d{depth}_{tag}"
    program = folder / "Vfused_array"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        inputs = {"fused_array.v": verilog, "hierarchy.vlt": hierarchy}
        for name, text in inputs.items():
            (folder / name).write_text(text)
        options += ["-Mdir", str(folder), *(str(folder / name) for name in inputs)]
        command = [verilator.executable(), *options, str(source)]
        ran = subprocess.run(command, env=verilator.environment(), capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError(f"Verilator could not build the array:\n{(ran.stdout + ran.stderr)[-4000:]}")
    return program


def measure(
    rows: int, cols: int, depth: int, *, words: int, passes: int, ratio: float, seed: int = 0, word_lanes: int = 4
) -> tuple[float, float]:
    """Utilization of the emitted array and of the model, for `passes` passes of `words` words (even) of four 4-bit codes.

    Of each word the first `word_lanes` lanes are outliers with probability `ratio`, independently. Raises AssertionError if a
    result is wrong.
    """
    rng = np.random.default_rng(seed)
    clusters = cols // 2
    stimulus: list[list[int]] = [[] for _ in range(rows + clusters)]
    expected = []
    cycles = []
    for _ in range(passes):
        sides, hot = [], []
        for first, count, k in ((0, rows, _A_K), (rows, clusters, _W_K)):
            codes = rng.integers(0, 16, (count, words, 4))
            flags = (rng.random(codes.shape) < ratio) & (np.arange(4) < word_lanes)
            for i in range(count):
                stimulus[first + i] += to_beats(codes[i], flags[i], 4)
            sides.append(operand(codes, flags, 4, True, _T, k))
            hot.append(flags.any(axis=-1).reshape(count, -1, 2))
        expected.append(fused_array(*sides)[0])
        cycles.append(beat_cycles(*hot))
    model = result_times(np.concatenate(cycles, axis=-1), words // 2, depth)
    times, values = _simulate(build(rows, cols, depth), np.array(stimulus, np.uint64), rows, clusters, rows * passes)
    assert (values == np.concatenate(expected).T).all(), "the array's results are wrong"
    return _utilization(times, rows, words // 2), _utilization(model, rows, words // 2)


def _simulate(
    program: Path, stimulus: NDArray[np.uint64], rows: int, columns: int, results: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cycle and value of each result, shape (columns, results)."""
    source, target = program.parent / "stimulus.bin", program.parent / "results.bin"
    stimulus.tofile(source)
    beats = stimulus.shape[1]
    limit = 1000 + 20 * (beats + results)
    subprocess.run([str(program), str(source), str(target), *map(str, (columns, rows, beats, results, limit))], check=True)
    out = np.fromfile(target, np.uint64).reshape(columns, results, 2)
    return out[..., 0].astype(np.int64), (out[..., 1] & 0xFFFF_FFFF).astype(np.uint32).astype(np.int32).astype(np.int64)


def _utilization(times: NDArray[np.int64], rows: int, beats: int) -> float:
    ends = times.reshape(len(times), -1, rows).max(axis=(0, 2))
    return float((len(ends) - 1) * beats / (ends[-1] - ends[0]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m nibblecore.sim.utilization", description="Utilization of the fused array under outliers."
    )
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--cols", type=int, default=32, help="PEs a row; two to a cluster (default 32)")
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4], help="beats in a cluster's FIFOs")
    parser.add_argument("--elements", type=int, default=576, help="K, a multiple of 8 (default 576)")
    parser.add_argument("--passes", type=int, default=9)
    ratios = [0, 0.01, 0.03, 0.05, 0.1, 0.3]
    parser.add_argument("--ratios", type=float, nargs="+", default=ratios, help="outliers among the elements")
    parser.add_argument("--word-lanes", type=int, default=4, choices=(1, 4), help="1: only one lane of a word can be an outlier")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.elements % 8 or options.passes < 2:
        parser.error("--elements must be a multiple of 8 and --passes at least 2")
    print(
        f"{options.rows} × {options.cols} PEs, K = {options.elements}, {options.passes} passes of 4-bit codes; "
        f"outliers in {options.word_lanes} of 4 lanes of a word; every result checked"
    )
    print(f"{'depth':>5} {'p':>6} {'word p':>7} {'utilization':>12} {'model':>7} {'bound':>7} {'study':>7}")
    for depth in options.depths:
        started = time.monotonic()
        build(options.rows, options.cols, depth)
        print(f"      (depth {depth}: simulator ready after {time.monotonic() - started:.0f} s)", flush=True)
        for ratio in options.ratios:
            word = 1 - (1 - ratio) ** options.word_lanes
            measured, model = measure(
                options.rows,
                options.cols,
                depth,
                words=options.elements // 4,
                passes=options.passes,
                ratio=ratio,
                seed=options.seed,
                word_lanes=options.word_lanes,
            )
            study = _STUDY.get(depth, {}).get(round(word, 4))
            print(
                f"{depth:>5} {ratio:>6.3f} {word:>7.3f} {measured:>12.3f} {model:>7.3f} {1 / (1 + word) ** 2:>7.3f} "
                f"{f'{study:.2f}' if study else '–':>7}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
