"""The algorithms that the pages of torch.optim write down, in double precision."""

import numpy as np
from nibblecore.sim.compiler.compiler import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from numpy.typing import NDArray

__all__ = ["State", "step"]


class State:
    """Weights, and what an optimizer keeps of each."""

    def __init__(self, w: NDArray[np.floating]) -> None:
        self.w = w.astype(np.float64)
        self.buffer, self.average, self.square = (np.zeros_like(self.w) for _ in range(3))


def step(state: State, optimizer: Optimizer, number: int, g: NDArray[np.float64], lr: float) -> None:
    """Step 1, 2, … with the parameters of `optimizer` but for the rate."""
    o, s = optimizer, state
    if isinstance(o, SGD):
        g = g + o.weight_decay * s.w
        if o.momentum:
            s.buffer = o.momentum * s.buffer + (1 - o.dampening) * g if number > 1 else g
            g = g + o.momentum * s.buffer if o.nesterov else s.buffer
        s.w = s.w - lr * g
    elif isinstance(o, Adagrad):
        s.square = s.square + g**2
        s.w = s.w - lr / (1 + (number - 1) * o.lr_decay) * g / (np.sqrt(s.square) + o.eps)
    elif isinstance(o, RMSprop):
        s.square = o.alpha * s.square + (1 - o.alpha) * g**2
        s.buffer = o.momentum * s.buffer + g / (np.sqrt(s.square) + o.eps)
        s.w = s.w - lr * s.buffer
    elif isinstance(o, Adam):
        if isinstance(o, AdamW):
            s.w = s.w - lr * o.weight_decay * s.w
        beta1, beta2 = o.betas
        s.average = beta1 * s.average + (1 - beta1) * g
        s.square = beta2 * s.square + (1 - beta2) * g**2
        average, square = s.average / (1 - beta1**number), s.square / (1 - beta2**number)
        s.w = s.w - lr * average / (np.sqrt(square) + o.eps)
    else:
        raise TypeError(f"torch.optim has no {type(o).__name__}")
