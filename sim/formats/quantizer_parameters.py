"""What a tensor's quantizer is told, and how a host chooses it (docs/formats.md)."""

from dataclasses import dataclass
from math import floor, isfinite, log2

from nibblecore.hdl.config import PAPER, whole

__all__ = ["QuantizerParameters"]


def _see_finite(name: str, value: float, zero: bool = False) -> None:
    if not (isfinite(value) and (value > 0 or (zero and value == 0))):
        raise ValueError(f"{name} must be a finite number {'of at least' if zero else 'above'} 0, not {value}")


@dataclass(frozen=True, kw_only=True)
class QuantizerParameters:
    """What the quantizer needs to know of a tensor.

    Parameters
    ----------
    bits : int
        4 or 8.
    signed : bool
    alpha : int
        Threshold in units of the input, 1..2^31 − 1.
    multiplier, shift : int
        One step of the tensor is 2^shift / multiplier units of the input; 1..255 and 0..39.
    k : int
        Residual shift, 0..3.
    threshold : int
        T, the threshold in steps, 1..Qmax.
    relu : bool
        Negative inputs count as 0.
    unit : float
        Real value of 1 in the input, above 0; only `scale` depends on it.

    Raises ValueError, with the field and the range, for anything else.
    """

    bits: int
    signed: bool
    alpha: int
    multiplier: int
    shift: int
    k: int
    threshold: int
    relu: bool = False
    unit: float = 1.0

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {self.bits}")
        limits = {"alpha": (1, 2**31 - 1), "multiplier": (1, 255), "shift": (0, 39), "k": (0, 3), "threshold": (1, self.code_max)}
        for name, (low, high) in limits.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), low, high))
        _see_finite("unit", self.unit)

    @property
    def code_max(self) -> int:
        """Qmax, the largest normal code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def q_max(self) -> int:
        """Largest residual of an outlier, such that its value fits the array's operands."""
        return min(self.code_max, (PAPER.value_max(self.bits) - self.threshold) >> self.k)

    @property
    def scale(self) -> float:
        """Real value s of one step."""
        return 2.0**self.shift / self.multiplier * self.unit

    @classmethod
    def for_range(
        cls, alpha: float, x_max: float, unit: float, bits: int, signed: bool, relu: bool = False
    ) -> "QuantizerParameters":
        """Parameters for real threshold `alpha` and largest magnitude `x_max`, both positive, of inputs of real value `unit`·y.

        T is Qmax. The multiplier is at least 128, so that the step is met within 0.4 %; a threshold beyond the range of the input
        is brought into it. `k` is the least with which `x_max` does not saturate; if it does with every `k`, the least from which
        no larger one reaches further by a residual step of its own.
        """
        _see_finite("alpha", alpha)
        _see_finite("x_max", x_max, zero=True)
        _see_finite("unit", unit)
        threshold = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        step = min(max(alpha / unit, 1.0), 2.0**31 - 1) / threshold
        shift = max(0, floor(log2(step)) + 8)
        multiplier = round(2.0**shift / step)
        if multiplier > 255:
            shift, multiplier = (shift - 1, 128) if shift else (0, 255)
        integer_alpha = min(max(1, round(threshold * 2.0**shift / multiplier)), 2**31 - 1)
        choices = [
            cls(
                bits=bits,
                signed=signed,
                alpha=integer_alpha,
                multiplier=multiplier,
                shift=shift,
                k=k,
                threshold=threshold,
                relu=relu,
                unit=unit,
            )
            for k in range(4)
        ]
        best = choices[0]
        for choice in choices[1:]:
            if x_max / best.scale < best._reach:
                break
            if choice._reach >= best._reach + 2**choice.k:
                best = choice
        return best

    @property
    def _reach(self) -> float:
        """Least magnitude, in steps, that saturates."""
        return self.threshold + (self.q_max + 0.5) * 2**self.k
