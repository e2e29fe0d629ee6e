"""What the tests of imported models share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from nibblecore.sim.compiler.reference import Reference
from nibblecore.sim.frontends.imported import Imported
from nibblecore.sim.frontends.pytorch import from_torch
from torch import nn

torch.set_num_threads(1)


def settled(module: Any, seed: int = 0) -> Any:
    """A module in `eval()` with weights and statistics that tell one from the other."""
    torch.manual_seed(seed)
    for name, each in [*module.named_parameters(), *module.named_buffers()]:
        if each.dtype.is_floating_point:
            drawn = torch.rand(each.shape) - (0.5 if each.ndim > 1 or "bias" in name or "mean" in name else -0.5)
            each.data.copy_(drawn / max(1, each[0].numel()) ** 0.5 if each.ndim else drawn)
    return module.eval()


def outputs(model: Imported, samples: Any) -> Any:
    """A row for each sample, in the order of a framework."""
    found = Reference(model.graph, model.parameters, model.statistics).forward(model.samples(samples))
    return found.transpose(0, 3, 1, 2).reshape(len(samples), -1)


def agrees(module: Any, shape: Sequence[int], samples: int = 2) -> Imported:
    """The graph of a module, whose outputs are the module's in double precision to 1e-5."""
    x = torch.rand(samples, *shape) * 2 - 1
    model = from_torch(module, x)
    with torch.no_grad():
        wanted = module.double()(x.double()).reshape(samples, -1).numpy()
    module.float()
    assert np.abs(wanted).max() > 1e-3 and np.abs(outputs(model, x.numpy()) - wanted).max() < 1e-5
    return model


class Calls(nn.Module):
    """A module that calls a function of itself and its input; it holds the modules that it is given by name."""

    def __init__(self, function: Any, **modules: Any) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self._function = function

    def forward(self, x: Any) -> Any:
        return self._function(self, x)
