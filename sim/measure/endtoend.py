"""Matrix products on the whole accelerator, each from its descriptor's fetch to the last byte of the quantized result.

    nibblecore endtoend --config paper --size 256

The share of peak counts the products of the matrix against what the array could form in the busy cycles of the command.
"""

import sys
import time

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.golden.ltoaq import top as golden
from nibblecore.sim.host.checked import Mismatch
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.checked import CheckedAccelerator
from nibblecore.sim.progress import doing

__all__ = ["main", "measure", "peak"]


def peak(config: LtoaqConfig, bits: int) -> int:
    """Products the array can form in a cycle."""
    return config.rows * config.cols * config.word_elements(bits)


def _tensor(rng: np.random.Generator, size: int, bits: int, ratio: float) -> OaqTensor:
    q_max = 2 ** (bits - 1) - 1
    outlier = rng.random((size, size)) < ratio
    normal = rng.integers(-q_max, q_max + 1, (size, size)) & (2**bits - 1)
    residual = rng.integers(0, q_max + 1, (size, size)) | (rng.integers(0, 2, (size, size)) << (bits - 1))
    return OaqTensor(np.where(outlier, residual, normal).astype(np.uint8), outlier, bits, True, q_max, 1)


def measure(
    accelerator: LtoaqAccelerator, size: int, bits: int, ratio: float, *, a_transposed: bool = False, w_transposed: bool = False
) -> tuple[dict[str, int], float, float]:
    """Counters of one product, the seconds it was simulated, and the outlier ratio of its result.

    Raises `Mismatch` if the result is not the golden model's.
    """
    config, checked = accelerator.config, CheckedAccelerator(accelerator)
    rng = np.random.default_rng(1)
    checked.free()
    a, w = _tensor(rng, size, bits, ratio), _tensor(rng, size, bits, ratio)
    product, _ = golden.gemm(a, w, config, a_transposed, w_transposed)
    magnitude = np.abs(product.astype(np.float64))
    alpha = float(np.quantile(magnitude, 1 - ratio)) if ratio else float(magnitude.max() + 1)
    q = QuantizerParameters.for_range(max(1.0, alpha), float(magnitude.max() + 2), 1.0, bits, True, False)
    left, right = checked.upload(a), checked.upload(w)
    before, began = checked.counters(), time.monotonic()
    out = checked.gemm("the product", left, right, a_transposed=a_transposed, w_transposed=w_transposed, quantizer=q)
    seconds = time.monotonic() - began
    counters = {name: count - before[name] for name, count in checked.counters().items()}
    assert out.statistics is not None
    return counters, seconds, out.statistics.outliers / size**2


def main(*, config: LtoaqConfig, size: int, latency: int, ratios: list[float]) -> int:
    """``nibblecore endtoend``."""
    gradients = [("neuron gradient", False, True), ("weight gradient", True, True)]
    products = [("forward", 4, ratio, False, False) for ratio in ratios] + [("forward", 8, 0.03, False, False)]
    products += [(name, bits, 0.03, turned_a, turned_w) for name, turned_a, turned_w in gradients for bits in (4, 8)]
    cycles = seconds = 0.0
    with LtoaqAccelerator(config, latency=latency) as accelerator:
        print(
            f"`{config.name}`: {size} × {size} × {size}, memory of {config.bus_bytes} bytes a cycle each way, latency {latency}; "
            "every result equals the golden model's.\n"
        )
        columns = [
            "product",
            "bits",
            "outliers in",
            "out",
            "cycles",
            "array busy",
            "waits for operands",
            "for the output",
            "share of peak",
        ]
        print(f"| {' | '.join(columns)} |")
        print("| --- " + "| ---: " * (len(columns) - 1) + "|")
        for name, bits, ratio, turned_a, turned_w in products:
            try:
                with doing(f"{name}, {bits} bits, {ratio:.0%} outliers"):
                    c, spent, out = measure(accelerator, size, bits, ratio, a_transposed=turned_a, w_transposed=turned_w)
            except Mismatch as mismatch:
                print(f"the accelerator differs from the golden model: {mismatch}", file=sys.stderr)
                return 1
            cycles, seconds = cycles + c["cycles"], seconds + spent
            counts = [f"{c[counter]:,}" for counter in ("cycles", "array_cycles", "load_stalls", "output_stalls")]
            share = size**3 / (c["cycles"] * peak(config, bits))
            print(f"| {name} | {bits} | {ratio:.0%} | {out:.1%} | {' | '.join(counts)} | {share:.3f} |", flush=True)
    print(f"{cycles:,.0f} cycles at {cycles / seconds:,.0f} a second", file=sys.stderr)
    return 0
