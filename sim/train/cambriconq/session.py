"""The digits on Cambricon-Q, a program a step: the host loads weights, images and programs, the machine does all else."""

import sys
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES
from nibblecore.hdl.config import CambriconqConfig, whole
from nibblecore.sim.compiler.compiler import CompileError, Program, Region, Training
from nibblecore.sim.compiler.estimate import listing
from nibblecore.sim.compiler.network import initial_parameters
from nibblecore.sim.compiler.program import parts
from nibblecore.sim.compiler.schedule import Scheduler
from nibblecore.sim.host.cambriconq.checked import CheckedAccelerator
from nibblecore.sim.progress import doing
from nibblecore.sim.refusal import Refusal
from nibblecore.sim.train import data
from nibblecore.sim.train.own import Own
from nibblecore.sim.train.shell import Diverged
from numpy.typing import NDArray

from .networks import NETWORKS, own_network

__all__ = ["MEMORY_BYTES", "Recipe", "Session", "print_listing"]

MEMORY_BYTES = 1 << 21
"""Memory of some 100 steps: a training has a few hundred."""

_ANY_MEMORY = 1 << 32
_SAMPLES_BYTES = 1 << 24
"""Of an own network all samples lie in memory up to so many bytes."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained and how.

    Parameters
    ----------
    network, optimizer : str
        Names in `NETWORKS` and `OPTIMIZERS`; of an own network any.
    bits : int
        Of every quantized number: 4, 8, 12 or 16.
    steps, batch : int or None
        How many, and images a step; None for the network's own numbers.
    seed : int
        Of the initial weights and the order of the images.
    lr : float or None
        Rate of the first step; None for the network's own.
    model, digest : str or None
        Of an `Own` network.

    Raises ValueError, with the field and the range, for anything else.
    """

    network: str = "mlp"
    optimizer: str = "sgd"
    bits: int = 8
    steps: int | None = None
    batch: int | None = None
    seed: int = 0
    lr: float | None = None
    model: str | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("seed", 0)):
            if (value := getattr(self, name)) is not None or name == "seed":
                object.__setattr__(self, name, whole(name, value, least))
        if self.model is None and self.network not in NETWORKS:
            raise ValueError(f"network must be one of {', '.join(NETWORKS)}, not {self.network!r}")


class Session:
    """The digits or own samples, the network of a recipe and its programs on one accelerator.

    Pixels of the digits are −1..1, which uses both halves of a signed code. Images are in a random order, those of the test at the end; a
    batch is a run of neighbours, and each epoch begins a few images further on. The rate falls linearly to 0, but for AdaGrad, which lowers
    it by itself.

    Where memory has room for all images they are written once. Elsewhere it has room for some batches, and what a program works on is
    written before it: a step's batch, of a test as many images at once as there is room for. The numbers are the same.

    A program stays in memory, and of the next one only the instructions are written in which it differs: of steps the rate's.

    Members
    -------
    order : numpy array
        Of the images to train on.
    held : int
        Images that memory has room for: all, or of as many batches as it can.
    memory_bytes : int
        As given; without, for an own network as many as it needs, a power of two.

    Raises CompileError if the network or a batch does not fit, and `Refusal` if it has no optimizer of that name.
    """

    def __init__(
        self,
        recipe: Recipe,
        config: CambriconqConfig,
        digits: data.Digits,
        memory_bytes: int | None = MEMORY_BYTES,
        *,
        own: Own | None = None,
    ) -> None:
        self.recipe, self._digits, self._own = recipe, digits, own
        self.train_images, self.test_images = len(digits.train_labels), len(digits.test_labels)
        self.order = np.random.default_rng([recipe.seed, 1]).permutation(self.train_images)
        network = own_network(own.graph, self.train_images) if own else NETWORKS[recipe.network]
        inputs, self._classes = (own.graph.inputs, own.classes) if own else (data.SHAPE, data.CLASSES)
        if recipe.optimizer not in network.optimizers:
            raise Refusal("opt", f"network {recipe.network} has none of that name; it has {', '.join(network.optimizers)}")
        self.batch = whole("batch", recipe.batch or network.batch, 1, self.train_images)
        self.steps = recipe.steps or (network.narrow_steps if recipe.bits == 4 else network.steps)
        optimizer, images = network.optimizers[recipe.optimizer], self.train_images + self.test_images
        if recipe.lr is not None:
            optimizer = replace(optimizer, lr=recipe.lr)
        sample = 4 * (digits.train_images.shape[1] + self._classes)

        def laid_out(held: int, memory_bytes: int) -> Training:
            return Training(config, inputs, network.layers, self.batch, held, recipe.bits, optimizer, memory_bytes)

        def needed(held: int, tested: int) -> int:
            """Bytes of memory, for so many images and programs on them."""
            training = laid_out(held, _ANY_MEMORY)
            programs = training.step(1, 0), training.test(0, tested)
            return training.program_at + INSTRUCTION_BYTES * max(len(program.instructions) for program in programs)

        if memory_bytes is None:
            least = needed(self.batch, self.batch)
            wanted = least + images * sample if images * sample <= _SAMPLES_BYTES else least
            memory_bytes = max(MEMORY_BYTES, 1 << (wanted - 1).bit_length())
        self.memory_bytes, self.held = memory_bytes, images
        if images * sample > memory_bytes or needed(images, self.test_images) > memory_bytes:
            batches = range(1, min(images, memory_bytes // sample) // self.batch + 1)
            self.held = self.batch * bisect_right(
                batches, memory_bytes, key=lambda count: needed(count * self.batch, count * self.batch)
            )
        if not self.held:
            least = needed(self.batch, self.batch)
            raise CompileError(
                f"memory is too small: {least} needed, {memory_bytes} there, {least - memory_bytes} bytes short of a batch of {self.batch}"
            )
        self.training = laid_out(self.held, memory_bytes)
        self._scheduler = Scheduler(config)

    @property
    def parameters(self) -> int:
        return sum(rows * cols for rows, cols in self.training.shapes)

    @property
    def holds_all(self) -> bool:
        """Whether memory has room for all images."""
        return self.held == self.train_images + self.test_images

    @property
    def regions(self) -> tuple[Region, ...]:
        return self.training.regions

    def load(self, accelerator: CheckedAccelerator) -> None:
        """Clears memory, writes images and labels as far as there is room, and initial weights, and sets the machine up."""
        self._program = b""
        t, d, own, rng = self.training, self._digits, self._own, np.random.default_rng([self.recipe.seed, 0])
        accelerator.write_memory(0, bytes(accelerator.memory_size))
        weights = own.parameters if own is not None and own.parameters else initial_parameters(t.graph, rng)
        images = np.concatenate([d.train_images[self.order], d.test_images]).astype(np.float32)
        labels = np.eye(self._classes, dtype=np.float32)[np.concatenate([d.train_labels[self.order], d.test_labels])]
        if own is None:
            images = images / np.float32(data.PIXEL_MAX / 2) - 1
        self._samples = images, labels
        for at, values in t.initial(images[: self.held], labels[: self.held], weights, own.statistics if own else None):
            accelerator.write_memory(at, values)
        self._run(accelerator, t.setup())

    def restore(self, accelerator: CheckedAccelerator, arrays: Mapping[str, NDArray[Any]]) -> None:
        """As `load`, with the order of the images from `arrays`, and weights and moments as `Training.state` gave them."""
        self.order = arrays["order"]
        self.load(accelerator)
        for at, values in self.training.restored(arrays):
            accelerator.write_memory(at, values)

    def first(self, step: int) -> int:
        """First image of the batch of step 0, 1, …"""
        return step * self.batch % (self.train_images - self.batch + 1)

    def program(self, step: int) -> Program:
        """Of step 0, 1, …"""
        falling = self.recipe.optimizer != "adagrad"
        first = self.first(step) if self.holds_all else 0
        return self._scheduler.scheduled(self.training.step(step + 1, first, 1 - step / self.steps if falling else 1.0))

    def weights(self, accelerator: CheckedAccelerator) -> list[NDArray[np.float32]]:
        """Of each layer that has any, as memory holds them."""
        t = self.training
        return [
            np.frombuffer(accelerator.read_memory(at, 4 * rows * cols), "<f4").reshape(rows, cols)
            for (at, _, _), (rows, cols) in zip(t.weights, t.shapes, strict=True)
        ]

    def step(self, accelerator: CheckedAccelerator, step: int) -> tuple[float, float]:
        """Loss and share of correct answers before step 0, 1, …. Raises `Diverged` if a NaN or an infinity was quantized."""
        if not self.holds_all:
            self._bring(accelerator, self.first(step), self.batch)
        return self._run(accelerator, self.program(step))

    def accuracy(self, accelerator: CheckedAccelerator, first: int, count: int) -> float:
        """On some images: 0.. are those to train on, `train_images`.. those to test."""
        if self.holds_all:
            return self._test(accelerator, first, count)
        right = 0
        for begin, size in parts(count, self.held):
            self._bring(accelerator, first + begin, size)
            right += round(self._test(accelerator, 0, size) * size)
        # As the machine computes the share.
        return float(np.float32(right) * np.float32(1 / count))

    def _test(self, accelerator: CheckedAccelerator, first: int, count: int) -> float:
        return self._run(accelerator, self._scheduler.scheduled(self.training.test(first, count)))[1]

    def _bring(self, accelerator: CheckedAccelerator, first: int, count: int) -> None:
        """Some images and their labels, to where the first of them lie in memory."""
        for at, samples in zip((self.training.data, self.training.labels), self._samples, strict=True):
            accelerator.write_memory(at, samples[first : first + count].astype("<f4").tobytes())

    def _run(self, accelerator: CheckedAccelerator, program: Program) -> tuple[float, float]:
        t, binary = self.training, program.binary()
        if len(binary) > t.program_room:
            raise CompileError(f"a program of {len(binary)} bytes does not fit the {t.program_room} bytes left of memory")
        for at, instructions in _differing(self._program, binary):
            accelerator.write_memory(t.program_at + at, instructions)
        self._program = binary + self._program[len(binary) :]
        accelerator.run(t.program_at)
        flags = accelerator.flags()
        if met := [name for name, flag in (("NaN", "nan"), ("an infinity", "infinity")) if flags[flag]]:
            raise Diverged(accelerator.place, f"the machine quantized {' and '.join(met)}")
        loss, right = np.frombuffer(accelerator.read_memory(t.results, 8), "<f4")
        return float(loss), float(right)


def _differing(before: bytes, after: bytes) -> Iterator[tuple[int, bytes]]:
    """Runs of instructions of `after` that are not the same at the same place of `before`, and the byte where each begins."""
    places = range(0, len(after), INSTRUCTION_BYTES)
    differs = [before[at : at + INSTRUCTION_BYTES] != after[at : at + INSTRUCTION_BYTES] for at in places]
    for differing, pairs in groupby(zip(differs, places, strict=True), key=itemgetter(0)):
        if differing:
            run = [at for _, at in pairs]
            yield run[0], after[run[0] : run[-1] + INSTRUCTION_BYTES]


def print_listing(*, config: CambriconqConfig, bits: int, net: str, opt: str) -> int:
    """``nibblecore listing``."""
    try:
        with doing("compiling and ordering a step"):
            text = listing(Session(Recipe(network=net, optimizer=opt, bits=bits), config, data.load()).program(0), config)
        print(text, end="")
    except CompileError as error:
        print(f"the network does not fit: {error}", file=sys.stderr)
        return 2
    return 0
