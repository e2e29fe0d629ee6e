"""One matrix product on the whole accelerator, from the descriptor's fetch to the last byte of the quantized result.

    python -m nibblecore.sim.measure.endtoend --config paper --size 256

The share of peak counts the products of the matrix against what the array could form in the busy cycles of the command.
"""

import argparse
import sys
import time

import numpy as np
from nibblecore.hdl.config import PRESETS, LtoaqConfig
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.golden.ltoaq import top as golden
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.checked import CheckedAccelerator

__all__ = ["measure", "peak"]


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m nibblecore.sim.measure.endtoend", description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=sorted(PRESETS), default="paper")
    parser.add_argument("--size", type=int, default=256, help="M = N = K (default 256)")
    parser.add_argument("--latency", type=int, default=20, help="cycles from a read address to its first beat (default 20)")
    parser.add_argument(
        "--ratios", type=float, nargs="+", default=[0, 0.01, 0.03, 0.05, 0.1, 0.3], help="outlier ratios of all tensors"
    )
    arguments = parser.parse_args()
    config = PRESETS[arguments.config]
    print(
        f"{config.name}: {arguments.size}×{arguments.size}×{arguments.size}, memory {config.bus_bytes} bytes a cycle each way, "
        f"latency {arguments.latency}\n"
    )
    print("| product | bits | outliers in | out | cycles | array busy | load stalls | output stalls | share of peak |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    products = [("forward", False, False), ("neuron gradient", False, True), ("weight gradient", True, True)]
    cycles = seconds = 0.0
    with LtoaqAccelerator(config, latency=arguments.latency) as accelerator:
        for name, turned_a, turned_w in products:
            for bits in (4, 8):
                for ratio in arguments.ratios if (name, bits) == ("forward", 4) else [0.03]:
                    c, spent, out = measure(accelerator, arguments.size, bits, ratio, a_transposed=turned_a, w_transposed=turned_w)
                    cycles, seconds = cycles + c["cycles"], seconds + spent
                    share = arguments.size**3 / (c["cycles"] * peak(config, bits))
                    print(
                        f"| {name} | {bits} | {ratio:.0%} | {out:.1%} | {c['cycles']} | {c['array_cycles']} | {c['load_stalls']} | "
                        f"{c['output_stalls']} | {share:.3f} |",
                        flush=True,
                    )
    print(f"\n{cycles:,.0f} cycles at {cycles / seconds:,.0f} a second; every result equals the golden model's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
