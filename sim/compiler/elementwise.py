"""Code for what is done with each value by itself: sums, batch norm, biases, and their gradients."""

from collections.abc import Callable, Iterator, Sequence

from nibblecore.hdl.cambriconq.program.isa import Opcode, Unary

from .images import Images
from .layout import Edge, Rest, Statistics, Tensor, Unit
from .network import BatchNorm
from .program import ROWS_AND_COLUMNS, CompileError, Phase, View, parts

__all__ = ["Elementwise"]

_SCALE, _SHIFT, _MEAN, _INVERSE = range(4)


class Elementwise(Images):
    """Adds what concerns pixels, a row of channels each, as many at a time as there is room for."""

    def _pixel_pieces(self, pixels: int, held: int, channels: int, what: str) -> Iterator[tuple[int, int]]:
        """First and number of pixels of parts, with `space` for as many matrices of them as are `held`; two parts fit, unless one is all."""
        lanes, room = self.config.nbout_lanes, self._room()
        words, beside = held * -(-channels // lanes) * lanes, 8 * lanes
        most = min((room - beside) // words if words else pixels, ROWS_AND_COLUMNS)
        if most < 1:
            raise CompileError(f"NBout is too small: {what} needs {words + beside} words to compute in, {room} are free")
        if most < pixels and words:
            most = min(max((room // 2 - beside) // words, 1), most)
        for first, count in parts(pixels, most):
            self._begin(count * words + beside)
            yield first, count

    def _there(self, pixels: View) -> View:
        """Where they are, or a copy in NBout."""
        if not pixels.memory:
            return pixels
        held = self._scratch(pixels)
        self.program.copy(held, pixels)
        return held

    def _scratch(self, like: View) -> View:
        rows, cols = like.sizes
        return View.matrix(self.space.take(rows * cols, self.config.nbout_lanes), rows, cols, cols)

    def _put(self, dest: View, found: View) -> None:
        if dest != found:
            self.program.copy(dest, found)

    def _parameter(self, unit: Unit, kind: str) -> View:
        """A vector in memory."""
        number = unit.parameters[kind]
        return View.matrix(self.layout.weights[number][0], *self.layout.shapes[number], self.layout.shapes[number][1], True)

    def _finish(self, unit: Unit) -> Callable[[View, int, int], None] | None:
        """What is done with the outputs of a product."""
        bias = unit.bias
        if bias is None and not unit.relu:
            return None

        def finish(tile: View, row: int, col: int) -> None:
            if bias is not None:
                self.program.combine(Opcode.VADD, tile, tile, _down(bias.part(1, col, tile.sizes[1]), tile.sizes[0]))
            if unit.relu:
                self.program.function(Unary.RELU, tile, tile)

        return finish

    # Sums and channels ------------------------------------------------------------------------------------------------------

    def _sum(self, unit: Unit, sources: Sequence[View]) -> None:
        """y = the sum of all sources, or a copy of one."""
        y = unit.output.pixels(0, self.layout.batch).part(0, 0, sources[0].sizes[0])
        rows, channels = y.sizes
        held = y.memory + sum(source.memory for source in sources)
        for first, count in self._pixel_pieces(rows, held, channels, "a pixel of a sum"):
            dest = y.part(0, first, count)
            total = self._scratch(dest) if y.memory else dest
            left = self._there(sources[0].part(0, first, count))
            for source in sources[1:]:
                self.program.combine(Opcode.VADD, total, left, self._there(source.part(0, first, count)))
                left = total
            if unit.relu:
                self.program.function(Unary.RELU, total, left)
            elif left != total:
                self.program.copy(total, left)
            self._put(dest, total)

    def _pass(self, unit: Unit, edge: Edge) -> None:
        """The gradient of a sum is that of each source."""
        error = unit.error.pixels(0, self.layout.batch)
        self._copy_completed(edge.target.pixels(0, self.layout.batch), error, edge.rest)

    def _copy_completed(self, target: View, gradient: View, rest: Rest) -> None:
        rows, channels = target.sizes
        for first, count in self._pixel_pieces(rows, target.memory + rest.words, channels, "a pixel of a gradient"):
            dest = target.part(0, first, count)
            held = self._scratch(dest) if target.memory else dest
            self.program.copy(held, gradient.part(0, first, count))
            self._completed(held, rest, self._at(first, count))
            self._put(dest, held)

    def _at(self, first: int, count: int) -> Callable[[Tensor], View]:
        return lambda tensor: tensor.pixels(0, self.layout.batch).part(0, first, count)

    def _join(self, unit: Unit, sources: Sequence[View]) -> None:
        """Channels behind each other."""
        y = unit.output.pixels(0, self.layout.batch).part(0, 0, sources[0].sizes[0])
        channel = 0
        for source in sources:
            rows, channels = source.sizes
            target = y.part(1, channel, channels)
            channel += channels
            aside = target.memory and (source.memory or unit.relu)
            for first, count in self._pixel_pieces(rows, aside, channels, "a pixel of joined channels"):
                dest, given = target.part(0, first, count), source.part(0, first, count)
                held = self._scratch(given) if aside else dest
                if unit.relu:
                    self.program.copy(held, given)
                    self.program.function(Unary.RELU, held, held)
                else:
                    self.program.copy(held, given)
                self._put(dest, held)

    def _part(self, unit: Unit) -> None:
        """The gradient of channels goes to whose they are."""
        error, channel = unit.error.pixels(0, self.layout.batch), 0
        for source, edge in zip(unit.sources, unit.edges, strict=True):
            shape = self.layout.source.shape if source is None else self.layout.units[source].output.shape
            if edge is not None:
                gradient = error.part(1, channel, shape[2])
                self._copy_completed(edge.target.pixels(0, self.layout.batch), gradient, edge.rest)
            channel += shape[2]

    def _learn_bias(self, unit: Unit) -> None:
        error = unit.error.pixels(0, self.layout.batch)
        total, part = (self.layout.work(number, error.sizes[1]) for number in range(2))
        for first, count in self._pixel_pieces(error.sizes[0], error.memory, error.sizes[1], "a pixel of the gradient of a bias"):
            self._add_up(total, part, self._there(error.part(0, first, count)), begun=first > 0)
        self._update(unit.parameters["bias"], total)

    def _add_up(self, total: View, part: View, pixels: View, *, begun: bool) -> None:
        """The sum of pixels, to what there is if it was `begun`."""
        self.program.reduce(Opcode.HADD, (part if begun else total).turned, pixels.turned)
        if begun:
            self.program.combine(Opcode.VADD, total, total, part)

    # Batch norm -------------------------------------------------------------------------------------------------------------

    def _begin_norm(self, unit: Unit, statistics: Statistics, *, learning: bool) -> None:
        self.program.copy(statistics.vector(_SCALE), self._parameter(unit, "scale"))
        self.program.copy(statistics.vector(_SHIFT), self._parameter(unit, "shift"))
        if not learning:
            assert isinstance(unit.layer, BatchNorm)
            mean, variance = self._running(statistics)
            self.program.copy(statistics.vector(_MEAN), mean)
            held = self.layout.work(0, statistics.channels)
            self.program.copy(held, variance)
            self._invert(unit.layer, statistics, held)

    def _running(self, statistics: Statistics) -> tuple[View, View]:
        both = View.matrix(statistics.running, 2, statistics.channels, statistics.channels, True)
        return both.part(0, 0, 1), both.part(0, 1, 1)

    def _invert(self, layer: BatchNorm, statistics: Statistics, variance: View) -> None:
        """1/σ of the variance, which is overwritten."""
        epsilon = self.layout.work(1, 1)
        # 1, whatever the word held.
        self.program.combine(Opcode.VSTEP, epsilon, self.zero, self.zero)
        self.program.scale(epsilon, epsilon, layer.epsilon)
        self.program.combine(Opcode.VADD, variance, variance, epsilon.spread(variance.sizes))
        self.program.function(Unary.RSQRT, statistics.vector(_INVERSE), variance)

    def _normalize(self, unit: Unit, layer: BatchNorm, x: View, *, learning: bool) -> None:
        """y = x · (scale/σ) + (shift − mean · scale/σ)."""
        assert unit.statistics is not None
        statistics, program = unit.statistics, self.program
        if learning:
            self._measure(layer, statistics, x)
        factor, offset = (self.layout.work(number, statistics.channels) for number in range(2))
        program.combine(Opcode.VMUL, factor, statistics.vector(_SCALE), statistics.vector(_INVERSE))
        program.combine(Opcode.VMUL, offset, statistics.vector(_MEAN), factor)
        program.combine(Opcode.VSUB, offset, statistics.vector(_SHIFT), offset)
        y = unit.output.pixels(0, self.layout.batch).part(0, 0, x.sizes[0])
        for first, count in self._pixel_pieces(x.sizes[0], x.memory or y.memory, x.sizes[1], "a pixel of a batch norm"):
            dest, given = y.part(0, first, count), x.part(0, first, count)
            held = self._there(given)
            total = dest if not y.memory else held if x.memory else self._scratch(dest)
            program.combine(Opcode.VMUL, total, held, _down(factor, count))
            program.combine(Opcode.VADD, total, total, _down(offset, count))
            if unit.relu:
                program.function(Unary.RELU, total, total)
            self._put(dest, total)

    def _measure(self, layer: BatchNorm, statistics: Statistics, x: View) -> None:
        """Mean and 1/σ of the batch; the running ones move towards them.

        σ² from differences to the mean, not from squares: where the mean is far from 0 those leave nothing.
        """
        program, (count, channels) = self.program, x.sizes
        total, part = (self.layout.work(number, channels) for number in range(2))
        mean = statistics.vector(_MEAN)
        for squared in (False, True):
            for first, some in self._pixel_pieces(count, x.memory or squared, channels, "a pixel of a batch norm"):
                pixels = self._there(x.part(0, first, some))
                if squared:
                    far = pixels if x.memory else self._scratch(pixels)
                    program.combine(Opcode.VSUB, far, pixels, _down(mean, some))
                    program.combine(Opcode.VMUL, far, far, far)
                    pixels = far
                self._add_up(total, part, pixels, begun=first > 0)
            program.scale(total if squared else mean, total, 1 / count)
        unbiased = count / (count - 1) if count > 1 else 1.0
        for running, found, factor in zip(self._running(statistics), (mean, total), (1.0, unbiased), strict=True):
            held, moved = (self.layout.work(number, channels) for number in (1, 2))
            program.copy(held, running)
            program.scale(held, held, 1 - layer.momentum)
            program.scale(moved, found, layer.momentum * factor)
            program.combine(Opcode.VADD, held, held, moved)
            program.copy(running, held)
        self._invert(layer, statistics, total)

    def _unnormalize(self, unit: Unit, x: View) -> None:
        """Gradients of scale and shift, and of the inputs: factor · error + slope · x + offset.

        With S = Σ error and T = Σ error · (x − mean) over the M pixels: factor = scale/σ, slope = −factor · T/(σ² · M), and
        offset = −factor · S/M − slope · mean.
        """
        assert unit.statistics is not None
        statistics, program = unit.statistics, self.program
        error, (count, channels) = unit.error.pixels(0, self.layout.batch), x.sizes
        sums, products, factor, slope, offset = (self.layout.work(number, channels) for number in range(5))
        mean, inverse = statistics.vector(_MEAN), statistics.vector(_INVERSE)
        what = "a pixel of the gradient of a batch norm"
        for first, some in self._pixel_pieces(count, error.memory + 1, channels, what):
            held, far = self._there(error.part(0, first, some)), self._scratch(x.part(0, first, some))
            self._add_up(sums, factor, held, begun=first > 0)
            given = x.part(0, first, some)
            if x.memory:
                program.copy(far, given)
                given = far
            program.combine(Opcode.VSUB, far, given, _down(mean, some))
            program.combine(Opcode.VMUL, far, far, held)
            self._add_up(products, factor, far, begun=first > 0)
        program.combine(Opcode.VMUL, products, products, inverse)
        self.program.stage, stage = Phase.WG, self.program.stage
        self._update(unit.parameters["scale"], products)
        self._update(unit.parameters["shift"], sums)
        self.program.stage = stage
        (edge,) = unit.edges
        if edge is None:
            return
        program.combine(Opcode.VMUL, factor, statistics.vector(_SCALE), inverse)
        program.combine(Opcode.VMUL, slope, products, inverse)
        program.combine(Opcode.VMUL, slope, slope, factor)
        program.scale(slope, slope, -1 / count)
        program.combine(Opcode.VMUL, offset, sums, factor)
        program.scale(offset, offset, -1 / count)
        program.combine(Opcode.VMUL, sums, slope, mean)
        program.combine(Opcode.VSUB, offset, offset, sums)
        dx = edge.target.pixels(0, self.layout.batch)
        for first, some in self._pixel_pieces(count, 1 + dx.memory + edge.rest.words, channels, what):
            target, given = dx.part(0, first, some), x.part(0, first, some)
            total = self._scratch(target) if dx.memory else target
            side = self._scratch(target)
            if x.memory:
                program.copy(side, given)
                given = side
            program.combine(Opcode.VMUL, side, given, _down(slope, some))
            program.combine(Opcode.VADD, side, side, _down(offset, some))
            back = error.part(0, first, some)
            if error.memory:
                program.copy(total, back)
                back = total
            program.combine(Opcode.VMUL, total, back, _down(factor, some))
            program.combine(Opcode.VADD, total, total, side)
            self._completed(total, edge.rest, self._at(first, some))
            self._put(target, total)


def _down(vector: View, rows: int) -> View:
    """The same for every pixel."""
    return View(vector.at, (rows, vector.sizes[1]), (0, vector.strides[1]))
