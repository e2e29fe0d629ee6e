"""Random commands on the generated Verilog against the golden model, bit for bit.

    nibblecore regress --machine ltoaq --config tiny --count 1300 --seed 1

Each command gets its own seed, printed when it fails; ``--only SEED`` runs that one again.
"""

import sys
from dataclasses import dataclass

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.golden.ltoaq import top as golden
from nibblecore.sim.host.ltoaq.accelerator import LtoaqAccelerator
from nibblecore.sim.host.ltoaq.checked import CheckedAccelerator
from tqdm import tqdm

__all__ = ["random_tensor", "run_one"]

STALLS = (0.0, 0.0, 0.1, 0.5)


@dataclass(frozen=True)
class Outcome:
    """What one random command was, for the report."""

    what: str
    multiplications: int


def random_tensor(rng: np.random.Generator, shape: tuple[int, int], bits: int, *, outlier_ratio: float | None = None) -> OaqTensor:
    """A tensor of any sign, threshold, shift and codes that memory can hold."""
    signed = bool(rng.integers(2))
    q_max = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    threshold = int(q_max if rng.random() < 0.7 else rng.integers(1, q_max + 1))
    ratio = rng.choice([0.0, 0.01, 0.03, 0.1, 0.3, 0.5]) if outlier_ratio is None else outlier_ratio
    outlier = rng.random(shape) < ratio
    k = int(rng.integers(4))
    codes = rng.integers(0, 2**bits, shape).astype(np.uint8)
    return OaqTensor(codes, outlier, bits, signed, threshold, k)


def _random_quantizer(rng: np.random.Generator, spread: float) -> QuantizerParameters:
    bits = int(rng.choice([4, 8]))
    signed = bool(rng.integers(2))
    alpha = max(1.0, spread * rng.uniform(0.3, 3))
    return QuantizerParameters.for_range(alpha, alpha * rng.uniform(1.01, 9), 1.0, bits, signed, bool(rng.integers(2)))


def _sizes(rng: np.random.Generator, config: LtoaqConfig) -> tuple[int, int, int]:
    """Mostly small and odd, sometimes several tiles, sometimes whole tiles."""

    def one(most: int) -> int:
        kind = rng.integers(4)
        if kind == 0:
            return int(rng.integers(1, 4))
        if kind == 1:
            return config.tile * int(rng.integers(1, max(2, most // config.tile + 1)))
        return int(rng.integers(1, most + 1))

    most = 5 * config.tile if config.tile < 32 else 3 * config.tile
    return one(most), one(most), one(2 * most)


def run_one(accelerator: LtoaqAccelerator, seed: int) -> Outcome:
    """One random command. Raises `Mismatch` with the seed at the first difference."""
    rng = np.random.default_rng(seed)
    config, checked = accelerator.config, CheckedAccelerator(accelerator)
    checked.place = f"seed {seed}"
    checked.free()
    m, n, k = _sizes(rng, config)
    kind = rng.choice(["gemm", "gemm_tensor", "quantize", "gradient"], p=[0.45, 0.35, 0.12, 0.08])
    if kind in ("quantize", "gradient"):
        spread = float(2.0 ** rng.integers(2, 30))
        y = np.clip(rng.laplace(0, spread, (m, n)), -(2**31), 2**31 - 1).astype(np.int32)
        q = _random_quantizer(rng, spread)
        what = f"{kind} of {m}×{n} to {q}"
        if kind == "quantize":
            checked.quantize(what, checked.upload_raw(y), q)
        else:
            g = rng.integers(-(2**31), 2**31, (m, n)).astype(np.int32)
            checked.threshold_grad(what, checked.upload_raw(y), checked.upload_raw(g), q)
        return Outcome(what, 0)

    bits = int(rng.choice([4, 8]))
    turned_a, turned_w = bool(rng.integers(2)), bool(rng.integers(2))
    a = random_tensor(rng, (k, m) if turned_a else (m, k), bits)
    w = random_tensor(rng, (k, n) if turned_w else (n, k), bits)
    what = (
        f"{m}×{n}×{k} GEMM, {bits} bits, "
        f"A {'transposed' if turned_a else 'straight'} {a.signed=} {a.outlier.mean():.0%}, "
        f"W {'transposed' if turned_w else 'straight'} {w.signed=} {w.outlier.mean():.0%}"
    )
    left, right, turned = checked.upload(a), checked.upload(w), {"a_transposed": turned_a, "w_transposed": turned_w}
    if kind == "gemm":
        checked.gemm(what, left, right, **turned)
    else:
        product, _ = golden.gemm(a, w, config, turned_a, turned_w)
        q = _random_quantizer(rng, float(np.abs(product.astype(np.float64)).mean() + 1))
        checked.gemm(f"{what}, to {q}", left, right, **turned, quantizer=q)
    return Outcome(what, m * n * k)


def main(*, config: LtoaqConfig, count: int, seed: int, only: int | None, waves: bool) -> int:
    """``nibblecore regress --machine ltoaq``."""
    seeds = [only] if only is not None else range(seed, seed + count)
    gemms = cycles = 0
    for stall in sorted(set(STALLS)):
        mine = [seed for seed in seeds if STALLS[seed % len(STALLS)] == stall]
        if not mine:
            continue
        with LtoaqAccelerator(config, stall=stall, seed=mine[0], waves=waves) as accelerator:
            for seed in tqdm(mine, desc=f"stalls {stall:.0%}", unit="command", disable=None):
                try:
                    gemms += run_one(accelerator, seed).multiplications > 0
                except Exception as error:
                    print(
                        f"\nFAILED, seed {seed}, stalls {stall:.0%}: {error}\n"
                        f"repeat: nibblecore regress --machine ltoaq --config {config.name} --only {seed} --waves",
                        file=sys.stderr,
                    )
                    return 1
            cycles += accelerator.counters()["cycles"]
    print(f"{len(seeds):,} of {len(seeds):,} commands without a difference, seeds {seeds[0]}..{seeds[-1]}, config {config.name}")
    print(f"{gemms:,} products; {cycles:,} busy cycles")
    return 0
