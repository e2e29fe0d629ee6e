"""Golden twin of the optimizer: equation (1) of the paper in FP32, each operation rounded once, in the order of docs/cambriconq.md."""

from dataclasses import dataclass, field

import numpy as np
from nibblecore.sim.golden.arith.fp32 import from_bits, to_bits
from nibblecore.sim.golden.arith.fp32_rsqrt import fp32_rsqrt
from numpy.typing import NDArray

__all__ = ["Optimizer"]

Floats = NDArray[np.float32]


@dataclass
class Optimizer:
    """Constants c1..c5 and ε as bit patterns' values, and the two selectors.

    Parameters
    ----------
    constants : float32, six
        c1..c5, ε.
    use_m : bool
        t1 is m, not g.
    use_rsqrt : bool
        t2 is rsqrt(v + ε), not 1.
    """

    constants: Floats = field(default_factory=lambda: np.zeros(6, np.float32))
    use_m: bool = False
    use_rsqrt: bool = False

    def set(self, register: int, value: int) -> None:
        """CROSET: registers 0..5 are c1..c5 and ε, 6 the selectors."""
        if register == 6:
            self.use_m, self.use_rsqrt = bool(value & 1), bool(value & 2)
        else:
            self.constants[register] = np.array([value], np.uint32).view(np.float32)[0]

    def update(self, w: Floats, m: Floats, v: Floats, g: Floats) -> tuple[Floats, Floats, Floats]:
        """The new w, m and v. Every NaN among them is the quiet one."""
        c1, c2, c3, c4, c5, epsilon = self.constants
        with np.errstate(all="ignore"):
            m = c1 * m + c2 * g
            v = c3 * v + c4 * (g * g)
            t1 = m if self.use_m else g
            t2 = from_bits(fp32_rsqrt(to_bits(v + epsilon))) if self.use_rsqrt else np.float32(1)
            w = w - (c5 * t1) * t2
        return from_bits(to_bits(w)), from_bits(to_bits(m)), from_bits(to_bits(v))
