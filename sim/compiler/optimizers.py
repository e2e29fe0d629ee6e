"""Optimizers as torch.optim defines them, as settings of the one beside the memory (docs/cambriconq.md, Optimizer).

Names, parameters and defaults are PyTorch's; a parameter that the hardware cannot have is not there. Where PyTorch adds `eps` to the root of
the second moment, the hardware adds a constant to the moment: its square, which comes to the same for large and for small moments.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from math import inf
from typing import ClassVar

from nibblecore.hdl.cambriconq.program.isa import Constant
from nibblecore.hdl.config import whole
from nibblecore.sim.inputs import number

from .program import CompileError, float_bits

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "Pass", "RMSprop"]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One WGSTORE of the gradients: the constants of equation (1), which left alone change nothing.

    Members
    -------
    c1, c2, c3, c4, c5, epsilon : float
    use_m : bool
        t1 is m, not g.
    use_rsqrt : bool
        t2 is rsqrt(v + ε), not 1.
    exchanged : bool
        What the equation calls w are the first moments, and what it calls m the weights.
    """

    c1: float = 1.0
    c2: float = 0.0
    c3: float = 1.0
    c4: float = 0.0
    c5: float = 0.0
    epsilon: float = 0.0
    use_m: bool = False
    use_rsqrt: bool = False
    exchanged: bool = False

    @property
    def constants(self) -> dict[Constant, int]:
        """What CROSET sets."""
        names = (Constant.C1, Constant.C2, Constant.C3, Constant.C4, Constant.C5, Constant.EPSILON)
        values = {name: float_bits(getattr(self, name.name.lower())) for name in names}
        return {**values, Constant.OPTIMIZER: self.use_m | self.use_rsqrt << 1}


@dataclass(frozen=True)
class Optimizer(ABC):
    """What the host computes of an optimizer. Raises CompileError, with the parameter and its range, for one that is out of it.

    Parameters
    ----------
    lr : float
        Learning rate, above 0.
    """

    RANGES: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Of the other parameters: the least value, and what they must be below."""

    lr: float

    def __post_init__(self) -> None:
        self._see("lr", number(self._named("lr"), self.lr, excluded=True, error=CompileError))
        for name, (least, below) in self.RANGES.items():
            self._see(name, number(self._named(name), getattr(self, name), least, below, error=CompileError))

    def _named(self, parameter: str) -> str:
        return f"{type(self).__name__}: {parameter}"

    def _see(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def passes(self, step: int, scale: float = 1.0) -> tuple[Pass, ...]:
        """What has to be done, in this order, in step 1, 2, …, with `lr` · `scale`.

        Raises CompileError unless the step is a whole number from 1 on, `scale` and the rate with it are finite and not negative, and
        `weight_decay` leaves something of the weights.
        """
        step = whole("the number of a step", step, 1, error=CompileError)
        scale = number("scale", scale, error=CompileError)
        return self._passes(step, number("lr times scale", self.lr * scale, error=CompileError))

    @abstractmethod
    def _passes(self, step: int, rate: float) -> tuple[Pass, ...]: ...

    def _kept(self, rate: float, weight_decay: float) -> float:
        """What a step leaves of a weight without a gradient."""
        kept = 1 - rate * weight_decay
        if kept <= 0:
            raise CompileError(
                f"{self._named('weight_decay')} of {weight_decay:g} with a rate of {rate:g} leaves nothing of the weights"
            )
        return kept


@dataclass(frozen=True)
class SGD(Optimizer):
    """torch.optim.SGD. With `momentum` and `weight_decay` it takes two passes, with `nesterov` one more."""

    RANGES: ClassVar = {"momentum": (0, 1), "dampening": (0, 1), "weight_decay": (0, inf)}

    lr: float = 1e-3
    _: KW_ONLY
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (not self.momentum or self.dampening):
            raise CompileError("SGD: nesterov takes a momentum, and no dampening")

    def _passes(self, step: int, rate: float) -> tuple[Pass, ...]:
        kept = self._kept(rate, self.weight_decay)
        plain = Pass(c1=kept, c2=-rate, exchanged=True) if self.weight_decay else Pass(c5=rate)
        if not self.momentum:
            return (plain,)
        # The first gradient enters the momentum whole.
        gain = 1 - self.dampening if step > 1 else 1.0
        moving = Pass(c1=self.momentum, c2=gain, c5=rate, use_m=True)
        if self.nesterov:
            # w·kept − rate·g comes last, and takes the momentum's part with it.
            moving = Pass(c1=self.momentum, c2=gain, c5=rate * self.momentum / kept, use_m=True)
        decay = Pass(c5=-gain * self.weight_decay / self.momentum, use_m=True, exchanged=True)
        return (decay,) * bool(self.weight_decay) + (moving,) + (plain,) * self.nesterov


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """torch.optim.Adagrad without `weight_decay`; `eps` is inside the root. Accumulators begin as what memory holds as v."""

    RANGES: ClassVar = {"lr_decay": (0, inf), "eps": (0, inf)}

    lr: float = 1e-2
    _: KW_ONLY
    lr_decay: float = 0.0
    eps: float = 1e-10

    def _passes(self, step: int, rate: float) -> tuple[Pass, ...]:
        return (Pass(c4=1.0, c5=rate / (1 + (step - 1) * self.lr_decay), epsilon=self.eps**2, use_rsqrt=True),)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """torch.optim.RMSprop without `weight_decay` and `centered`; `eps` is inside the root. With `momentum` it takes two passes."""

    RANGES: ClassVar = {"alpha": (0, 1), "eps": (0, inf), "momentum": (0, 1)}

    lr: float = 1e-2
    _: KW_ONLY
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def _passes(self, step: int, rate: float) -> tuple[Pass, ...]:
        c3, c4, epsilon = self.alpha, 1 - self.alpha, self.eps**2
        if not self.momentum:
            return (Pass(c3=c3, c4=c4, c5=rate, epsilon=epsilon, use_rsqrt=True),)
        # Memory holds the momentum as it enters the next step.
        entering = Pass(c3=c3, c4=c4, c5=-1.0, epsilon=epsilon, use_rsqrt=True, exchanged=True)
        return entering, Pass(c1=self.momentum, c5=rate / self.momentum, use_m=True)


@dataclass(frozen=True)
class Adam(Optimizer):
    """torch.optim.Adam without `weight_decay` and `amsgrad`; `eps` is inside the root."""

    RANGES: ClassVar = {"eps": (0, inf)}

    lr: float = 1e-3
    _: KW_ONLY
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            first, second = self.betas
        except (TypeError, ValueError):
            raise CompileError(f"{self._named('betas')} must be two numbers, not {self.betas!r}") from None
        given = {"betas[0]": first, "betas[1]": second}
        self._see("betas", tuple(number(self._named(name), beta, 0, 1, error=CompileError) for name, beta in given.items()))

    def _passes(self, step: int, rate: float) -> tuple[Pass, ...]:
        (beta1, beta2), (correction1, correction2) = self.betas, (1 - beta**step for beta in self.betas)
        return (
            Pass(
                c1=beta1,
                c2=1 - beta1,
                c3=beta2,
                c4=1 - beta2,
                c5=rate * correction2**0.5 / correction1,
                epsilon=self.eps**2 * correction2,
                use_m=True,
                use_rsqrt=True,
            ),
        )


@dataclass(frozen=True)
class AdamW(Adam):
    """torch.optim.AdamW without `amsgrad`; `eps` is inside the root. Two passes: weights decay by `lr` · `weight_decay`, then Adam."""

    RANGES: ClassVar = Adam.RANGES | {"weight_decay": (0, inf)}

    weight_decay: float = field(default=1e-2, kw_only=True)

    def _passes(self, step: int, rate: float) -> tuple[Pass, ...]:
        decay = Pass(c1=self._kept(rate, self.weight_decay), exchanged=True)
        return (decay,) * bool(self.weight_decay) + super()._passes(step, rate)
