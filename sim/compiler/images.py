"""Code for layers of images: the windows of convolutions, pooling, and their gradients."""

from collections.abc import Callable
from dataclasses import replace
from math import prod

from nibblecore.hdl.cambriconq.program.isa import Opcode, Unary

from .layout import Rest, Tensor, Unit, Window
from .network import MaxPool
from .products import NBIN, SB, Products
from .program import View, parts

__all__ = ["Images"]

_LOWEST = -(2 - 2.0**-23) * 2.0**127


class Images(Products):
    """Adds what concerns images: in whole samples, or in rows of one where no whole sample fits."""

    def _image_pieces(self, count: int, rows: int, words: Callable[[int], int], what: str) -> list[tuple[int, int, int, int]]:
        """First sample, samples, first row and rows of pieces for which there is room: whole samples if possible, else rows of one.

        `words` says what some of the `rows` of a sample need.
        """
        room = self._room()
        if self._need(1, words(rows)) <= room:
            return [(first, samples, 0, rows) for first, samples in self._pieces(count, words(rows), what)]
        fitting = (high for share in (2, 1) for high in range(rows - 1, 0, -1) if self._need(1, words(high)) <= room // share)
        high = next(fitting, 0)
        if not high:
            # Says so.
            self._pieces(count, words(1), what)
        return [(first, 1, row, high_here) for first in range(count) for row, high_here in parts(rows, high)]

    def _held(self, tensor: Tensor, *, load: bool) -> Tensor:
        """A part of a tensor in NBout: where it is, or in scratch, with what memory holds if `load`."""
        if not tensor.memory:
            return tensor
        held = self._matrix(tensor.samples, tensor.size)
        if load:
            self.program.copy(held, tensor.matrix(0, tensor.samples))
        return replace(tensor, at=held.at, pitch=held.strides[0], memory=False)

    def _kept(self, tensor: Tensor, held: Tensor) -> None:
        """What was computed goes where it is at home."""
        if tensor.memory:
            self.program.copy(tensor.matrix(0, tensor.samples), held.matrix(0, held.samples))

    def _clear(self, tensor: Tensor, value: View | None = None) -> None:
        """All words become 0, or another value."""
        matrix = tensor.matrix(0, tensor.samples)
        self.program.copy(matrix, (value or self.zero).spread(matrix.sizes))

    def _clear_all(self, tensor: Tensor) -> None:
        """The same wherever it is at home."""
        for place in self._image_pieces(
            tensor.samples, tensor.shape[0], lambda rows: tensor.memory * _words(tensor, rows), "a row of an image"
        ):
            self._begin(self._need(place[1], tensor.memory * _words(tensor, place[3])))
            part = tensor.part(*place)
            held = self._held(part, load=False)
            self._clear(held)
            self._kept(part, held)

    def _padded(
        self, tensor: Tensor, rows: int, above: int, beside: int, *, load: bool = True, around: View | None = None
    ) -> Tensor:
        """So many rows of images with so many columns more at either side, and, if `load`, a tensor in them, below so many rows.

        What is `around` is 0 by default.
        """
        around = around or self.zero
        shape = rows, tensor.shape[1] + 2 * beside, tensor.shape[2]
        matrix = self._matrix(tensor.samples, prod(shape))
        padded = Tensor(matrix.at, shape, tensor.samples, matrix.strides[0], False)
        height, width, _ = tensor.shape
        if not load or not height:
            self._clear(padded, around)
            return padded
        wide = padded.images().part(1, above, height)
        for edge in (
            padded.images().part(1, 0, above),
            padded.images().part(1, above + height, rows - above - height),
            wide.part(2, 0, beside),
            wide.part(2, beside + width, beside),
        ):
            if prod(edge.sizes):
                self.program.copy(edge, around.spread(edge.sizes))
        self.program.copy(wide.part(2, beside, width), tensor.images())
        return padded

    def _windows(self, layer: Window, x: Tensor, at: int, count: int, columns: Tensor) -> None:
        """The windows of images, a row of a matrix each.

        Where a pixel is a whole number of beats its copies go straight to memory, a beat a cycle. Others are put side by side in NBout before
        they go there, word by word.
        """
        beside = columns.memory and x.shape[2] % self.config.beat_words != 0

        def words(rows: int) -> int:
            source = _padded_words(layer, x, _under(layer, rows)) if layer.padded else x.memory * _words(x, _under(layer, rows))
            return source + beside * _words(columns, rows)

        for first, samples, row, rows in self._image_pieces(count, columns.shape[0], words, "a row of windows"):
            self._begin(self._need(samples, words(rows)))
            start, real, above = _pixels_under(layer, x, row, rows)
            pixels = x.part(at + first, samples, start, real)
            source = (
                self._padded(pixels, _under(layer, rows), above, layer.padding[1])
                if layer.padded
                else self._held(pixels, load=True)
            )
            target = columns.part(first, samples, row, rows)
            dest = self._held(target, load=False) if beside else target
            self.program.copy(_pixel_windows(dest, layer), _image_windows(source, dest, layer))
            if beside:
                self._kept(target, dest)

    def _gradient_by_taps(self, unit: Unit, layer: Window, dx: Tensor, rest: Rest) -> None:
        """Neuron gradient of a convolution with stride 1: a product for every pixel of the kernel, added up where it belongs.

        The error, with as many columns of zeros beside it as the kernel reaches out, and the gradient have rows of the same length. So for a
        pixel of the kernel all pixels of the gradient lie equally far from those of the error that count for them, and rows of a
        product may go on from one row of the image to the next; what falls between two rows is dropped.
        """
        error, program = unit.error, self.program
        config, slot = self.config, self.layout.bits // 4
        (high, wide), (padding, beside) = layer.size, layer.padding
        (height, width, values), channels = dx.shape, error.shape[2]
        across = width + wide - 1
        weights = self._weight(unit).turned
        length = self._length(height * across, values, channels)
        vectors = -(-min(length, channels) // config.cols)

        def words(rows: int) -> int:
            return self._taps_words(unit, layer, dx, rest, rows)

        pieces = self._image_pieces(self.layout.batch, height, words, "the gradient of a row of an image")
        fits = channels <= length and weights.sizes[0] * vectors * slot <= config.sb_lines
        times = 1 if fits else sum(samples for _, samples, _, _ in pieces)
        operand = self._once(f"error through weights {unit.weight}: w", weights, length, times)
        w_line = self._fetch(SB, operand, slot) if fits else 0
        for first, samples, row, rows in pieces:
            under = rows + high - 1
            for sample in range(first, first + samples):
                self._begin(self._need(1, words(rows)))
                start = row + padding - high + 1
                begin, end = (min(max(place, 0), error.shape[0]) for place in (start, start + under))
                source = self._padded(error.part(sample, 1, begin, end - begin), under, begin - start, wide - 1 - beside)
                pixels = View.matrix(source.at, under * across, channels, channels)
                gradient = self._matrix(rows * across, values)
                for k, k_count in parts(channels, length):
                    line = self._fetch(NBIN, pixels.part(1, k, k_count), slot)
                    row_lines = -(-k_count // config.cols) * slot
                    for tap in range(high * wide):
                        tap_line = w_line + tap * values * row_lines
                        if not fits:
                            tap_line = self._fetch(SB, operand.part(0, tap * values, values).part(1, k, k_count), slot)
                        back = (high - 1 - tap // wide) * across + wide - 1 - tap % wide
                        dest = gradient.part(0, 0, rows * across - wide + 1)
                        self._multiply(dest, line + back * row_lines, tap_line, row_lines, accumulate=tap + k > 0)
                place = sample, 1, row, rows
                within = gradient.split(0, 1, rows, across).part(2, 0, width)
                self._completed(within, rest, _images_at(*place))
                program.copy(dx.part(*place).images(), within)

    def _unwindow(self, unit: Unit, layer: Window, dx: Tensor, rest: Rest) -> None:
        """Neuron gradient of a convolution: that of its windows, added up pixel by pixel."""
        assert unit.columns is not None
        if self._taps_pay(layer, *dx.shape[1:]) and self._taps_fit(unit, layer, dx, rest):
            self._gradient_by_taps(unit, layer, dx, rest)
            return
        windows, padding = unit.columns, layer.padding
        height, width, values = windows.shape
        lanes = self.config.nbout_lanes
        wide = width * -(-values // lanes) * lanes

        def padded_rows(rows: int) -> int:
            return _under(layer, rows) if rows < height else dx.shape[0] + 2 * padding[0]

        def words(rows: int) -> int:
            padded = _padded_words(layer, dx, padded_rows(rows)) if layer.padded else 0
            held = dx.memory and not layer.padded
            image = _words(dx, min(padded_rows(rows), dx.shape[0]))
            return rows * wide + (held + rest.words * (rows == height)) * image + padded

        pieces = self._image_pieces(self.layout.batch, height, words, "the gradient of a row of windows")
        whole = all(rows == height for _, _, _, rows in pieces)
        if not whole:
            self._clear_all(dx)
        weights = self._weight(unit).turned
        most = max(samples * rows * width for _, samples, _, rows in pieces)
        length = self._length(most, values, weights.sizes[1])
        operand = self._once(f"error through weights {unit.weight}: w", weights, length, len(pieces))
        # The last rows first: so a pixel's parts come in the order of kernel rows, whatever the pieces.
        for first, samples, row, rows in sorted(pieces, key=lambda piece: (piece[0], -piece[2])):
            start, real, above = (0, dx.shape[0], padding[0]) if whole else _pixels_under(layer, dx, row, rows)
            if not real:
                continue
            self._begin(self._need(samples, words(rows)))
            gradient = self._matrix(samples * rows * width, values)
            error = unit.error.part(first, samples, row, rows)
            self._product(gradient, error.pixels(0, samples), operand, length)
            place = first, samples, start, real
            target = dx.part(*place)
            if layer.padded:
                image = self._padded(target, padded_rows(rows), above, padding[1], load=not whole)
                within = _within(layer, image, above, real)
            else:
                image = self._held(target, load=not whole)
                within = image.images()
                if whole:
                    self._clear(image)
            self._add_windows(gradient.split(0, samples, rows, width), image, replace(windows, shape=(rows, width, values)), layer)
            if whole:
                self._completed(within, rest, _images_at(*place))
            if within != target.images():
                self.program.copy(target.images(), within)
        if not whole:
            self._complete_all(dx, rest)

    def _taps_fit(self, unit: Unit, layer: Window, dx: Tensor, rest: Rest) -> bool:
        """Whether there is room for `_gradient_by_taps`, at least a row of a sample at a time, and it can be done at all."""
        config, (_, width, values), channels = self.config, dx.shape, unit.error.shape[2]
        if (
            layer.stride != (1, 1)
            or any(padding >= size for padding, size in zip(layer.padding, layer.size, strict=True))
            or self._need(1, self._taps_words(unit, layer, dx, rest, 1)) > self._room()
        ):
            return False
        length = self._length(width + layer.size[1] - 1, values, channels)
        return values * -(-min(length, channels) // config.cols) * self.layout.bits // 4 <= config.sb_lines

    def _taps_pay(self, layer: Window, width: int, values: int) -> bool:
        """Whether `_gradient_by_taps` takes less time than to add windows up, a word a cycle."""
        taps = prod(layer.size)
        by_taps = 4 * taps * -(-values // self.config.rows) * (width + layer.size[1] - 1) / width
        return by_taps < 4 * taps * values / self.config.rows + taps * values

    def _taps_words(self, unit: Unit, layer: Window, dx: Tensor, rest: Rest, rows: int) -> int:
        """Of NBout, that some rows of a sample's gradient need; more than there are where NBin does not hold what is under them."""
        (_, width, values), channels = dx.shape, unit.error.shape[2]
        config, slot, lanes = self.config, self.layout.bits // 4, self.config.nbout_lanes
        under, across = rows + layer.size[0] - 1, width + layer.size[1] - 1
        length = self._length(rows * across, values, channels)
        if under * across * -(-min(length, channels) // config.cols) * slot > config.nbin_lines:
            return self._room() + 1
        return across * (under * channels + rows * -(-values // lanes) * lanes) + rest.words * rows * width * values

    def _complete_all(self, target: Tensor, rest: Rest) -> None:
        """What a gradient lacks, after all of it was put where it is at home."""
        if not rest.words:
            return

        def words(rows: int) -> int:
            return (target.memory + rest.words) * _words(target, rows)

        for place in self._image_pieces(target.samples, target.shape[0], words, "a row of an image"):
            self._begin(self._need(place[1], words(place[3])))
            part = target.part(*place)
            held = self._held(part, load=True)
            self._completed(held.matrix(0, held.samples), rest, _rows_at(*place))
            self._kept(part, held)

    def _add_windows(self, gradient: View, image: Tensor, windows: Tensor, layer: Window) -> None:
        (high, wide), channels = layer.size, image.shape[2]
        parted = gradient.split(3, high, wide, channels)
        target = _image_windows(image, windows, layer).split(4, wide, channels)
        for i in range(high):
            for j in range(wide):
                pixel, part = target.part(3, i, 1).part(4, j, 1), parted.part(3, i, 1).part(4, j, 1)
                self.program.combine(Opcode.VADD, pixel, pixel, part)

    def _pool(self, unit: Unit, layer: Window, x: Tensor, at: int, count: int) -> None:
        y, largest = unit.output, isinstance(unit.layer, MaxPool)

        def words(rows: int) -> int:
            source = _padded_words(layer, x, _under(layer, rows)) if layer.padded else x.memory * _words(x, _under(layer, rows))
            return source + y.memory * _words(y, rows)

        lowest = self._lowest() if largest and layer.padded else None
        for first, samples, row, rows in self._image_pieces(count, y.shape[0], words, "a row of a pooled image"):
            self._begin(self._need(samples, words(rows)))
            target = y.part(first, samples, row, rows)
            held = self._held(target, load=False)
            dest = held.images()
            pixels = _pooled_pixels(self._looked_at(layer, x, at + first, samples, row, rows, lowest), held, layer)
            if largest:
                self._chain(Opcode.VMAX, dest, pixels)
            else:
                self._chain(Opcode.VADD, dest, pixels)
                self.program.scale(dest, dest, 1 / prod(layer.size))
            if unit.relu:
                self.program.function(Unary.RELU, dest, dest)
            self._kept(target, held)

    def _looked_at(
        self, layer: Window, x: Tensor, first: int, samples: int, row: int, rows: int, around: View | None = None
    ) -> Tensor:
        """The pixels under some rows of windows, with padding, in NBout."""
        start, real, above = _pixels_under(layer, x, row, rows)
        pixels = x.part(first, samples, start, real)
        if layer.padded:
            return self._padded(pixels, _under(layer, rows), above, layer.padding[1], around=around)
        return self._held(pixels, load=True)

    def _lowest(self) -> View:
        """A word below which no number is."""
        lowest = self.layout.work(0, 1)
        self.program.combine(Opcode.VSTEP, lowest, self.zero, self.zero)
        self.program.scale(lowest, lowest, _LOWEST)
        return lowest

    def _chain(self, opcode: Opcode, dest: View, operands: list[View]) -> None:
        total = operands[0]
        for operand in operands[1:]:
            self.program.combine(opcode, dest, total, operand)
            total = dest
        if len(operands) == 1:
            self.program.copy(dest, total)

    def _unpool(self, unit: Unit, layer: Window, x: Tensor, dx: Tensor, rest: Rest) -> None:
        """Neuron gradient of pooling. Where a ReLU follows, what it cut off has no gradient, so its output stands for the maximum."""
        if layer.overlapping:
            self._unpool_overlapping(unit, layer, x, dx, rest)
            return
        y, dy = unit.output, unit.error
        largest = isinstance(unit.layer, MaxPool)
        height, size = y.shape[0], layer.size
        left_over = any(pooled * over < pixels for pooled, over, pixels in zip(y.shape[:2], size, x.shape[:2], strict=True))

        def over(row: int, rows: int) -> int:
            """Rows of the image that belong to rows of the pooled one: to the last also those that are left out."""
            return x.shape[0] - row * size[0] if row + rows == height else rows * size[0]

        def words(rows: int) -> int:
            pooled, pixels = _words(y, rows), _words(x, over(height - rows, rows))
            return (dy.memory + largest * (2 + y.memory)) * pooled + (dx.memory + rest.words + largest * x.memory) * pixels

        for first, samples, row, rows in self._image_pieces(
            self.layout.batch, height, words, "the gradient of a row of a pooled image"
        ):
            self._begin(self._need(samples, words(rows)))
            place = first, samples, row * size[0], over(row, rows)
            held = self._held(dx.part(*place), load=False)
            if left_over:
                self._clear(held)
            error = self._held(dy.part(first, samples, row, rows), load=True)
            gradients = _pooled_pixels(held, error, layer)
            if largest:
                pixels = _pooled_pixels(self._held(x.part(*place), load=True), error, layer)
                self._to_largest(
                    gradients, pixels, self._held(y.part(first, samples, row, rows), load=True).images(), error.images()
                )
            else:
                self.program.scale(gradients[0], error.images(), 1 / prod(size))
                for gradient in gradients[1:]:
                    self.program.copy(gradient, gradients[0])
            self._completed(held.matrix(0, samples), rest, _rows_at(*place))
            self._kept(dx.part(*place), held)

    def _unpool_overlapping(self, unit: Unit, layer: Window, x: Tensor, dx: Tensor, rest: Rest) -> None:
        """The same where a pixel is in several windows: what each has for it is added up."""
        y, dy = unit.output, unit.error
        largest = isinstance(unit.layer, MaxPool)
        height = y.shape[0]

        def padded_rows(rows: int) -> int:
            return _under(layer, rows) if rows < height else max(dx.shape[0] + 2 * layer.padding[0], _under(layer, rows))

        def words(rows: int) -> int:
            images = _padded_words(layer, x, padded_rows(rows)) + largest * _padded_words(layer, x, _under(layer, rows))
            return (
                images
                + (dy.memory + 1 + largest * (2 + y.memory)) * _words(y, rows)
                + rest.words * (rows == height) * _words(dx, dx.shape[0])
            )

        pieces = self._image_pieces(self.layout.batch, height, words, "the gradient of a row of a pooled image")
        whole = all(rows == height for _, _, _, rows in pieces)
        if not whole:
            self._clear_all(dx)
        lowest = self._lowest() if largest else None
        for first, samples, row, rows in pieces:
            self._begin(self._need(samples, words(rows)))
            start, real, above = (0, dx.shape[0], layer.padding[0]) if whole else _pixels_under(layer, dx, row, rows)
            place = first, samples, start, real
            target = dx.part(*place)
            image = self._padded(target, padded_rows(rows), above, layer.padding[1], load=not whole)
            error = self._held(dy.part(first, samples, row, rows), load=True)
            gradients = _pooled_pixels(image, error, layer)
            part = self._matrix(samples, error.size).split(1, *error.shape)
            if largest:
                source = self._padded(
                    x.part(first, samples, *_pixels_under(layer, x, row, rows)[:2]),
                    _under(layer, rows),
                    _pixels_under(layer, x, row, rows)[2],
                    layer.padding[1],
                    around=lowest,
                )
                largest_pixels = self._held(y.part(first, samples, row, rows), load=True).images()
                self._to_largest(gradients, _pooled_pixels(source, error, layer), largest_pixels, error.images(), part)
            else:
                self.program.scale(part, error.images(), 1 / prod(layer.size))
                for gradient in gradients:
                    self.program.combine(Opcode.VADD, gradient, gradient, part)
            within = _within(layer, image, above, real)
            if whole:
                self._completed(within, rest, _images_at(*place))
            self.program.copy(target.images(), within)
        if not whole:
            self._complete_all(dx, rest)

    def _to_largest(self, gradients: list[View], pixels: list[View], largest: View, error: View, part: View | None = None) -> None:
        """The error goes to the first pixel that is the largest; what is left of it, all or nothing, on to the next.

        With room for a `part` it is added to what is there.
        """
        samples, size = error.sizes[0], prod(error.sizes[1:])
        rest, hit = (self._matrix(samples, size).split(1, *error.sizes[1:]) for _ in range(2))
        left = error
        for gradient, pixel in zip(gradients[:-1], pixels[:-1], strict=True):
            found = gradient if part is None else part
            self.program.combine(Opcode.VSTEP, hit, pixel, largest)
            self.program.combine(Opcode.VMUL, found, hit, left)
            if part is not None:
                self.program.combine(Opcode.VADD, gradient, gradient, part)
            self.program.combine(Opcode.VSUB, rest, left, found)
            left = rest
        if part is None:
            self.program.copy(gradients[-1], left)
        else:
            self.program.combine(Opcode.VADD, gradients[-1], gradients[-1], left)


def _images_at(first: int, samples: int, row: int, rows: int) -> Callable[[Tensor], View]:
    """Some rows of some samples of a tensor."""
    return lambda tensor: tensor.part(first, samples, row, rows).images()


def _rows_at(first: int, samples: int, row: int, rows: int) -> Callable[[Tensor], View]:
    """The same, a row for each sample."""
    return lambda tensor: tensor.part(first, samples, row, rows).matrix(0, samples)


def _words(tensor: Tensor, rows: int) -> int:
    """Of some rows of an image."""
    return rows * tensor.shape[1] * tensor.shape[2]


def _padded_words(layer: Window, tensor: Tensor, rows: int) -> int:
    """Of some rows of a padded image."""
    return rows * (tensor.shape[1] + 2 * layer.padding[1]) * tensor.shape[2]


def _under(layer: Window, rows: int) -> int:
    """Rows of a padded image that lie under some rows of windows."""
    return (rows - 1) * layer.stride[0] + layer.size[0]


def _pixels_under(layer: Window, image: Tensor, row: int, rows: int) -> tuple[int, int, int]:
    """Of the rows under some rows of windows those that are the image's: the first, how many, and how many of padding are above."""
    top, height = row * layer.stride[0] - layer.padding[0], image.shape[0]
    first, end = (min(max(place, 0), height) for place in (top, top + _under(layer, rows)))
    return first, end - first, first - top


def _within(layer: Window, padded: Tensor, above: int, rows: int) -> View:
    """Rows of a padded image without the padding at their sides."""
    return padded.images().part(1, above, rows).part(2, layer.padding[1], padded.shape[1] - 2 * layer.padding[1])


def _pixel_windows(columns: Tensor, layer: Window) -> View:
    """Sample, row, column, kernel row, and kernel column with channel, of a matrix of windows."""
    return columns.images().split(3, layer.size[0], columns.shape[2] // layer.size[0])


def _image_windows(image: Tensor, columns: Tensor, layer: Window) -> View:
    """The same of the images: a pixel is in several windows."""
    view = image.images()
    sample, row, column, channel = view.strides
    return View(
        view.at,
        (image.samples, *columns.shape[:2], layer.size[0], layer.size[1] * image.shape[2]),
        (sample, layer.stride[0] * row, layer.stride[1] * column, row, channel),
    )


def _pooled_pixels(image: Tensor, pooled: Tensor, layer: Window) -> list[View]:
    """For every place in a pooling window the pixels at it, as images of the pooled size."""
    view = image.images()
    sample, row, column, channel = view.strides
    (high, wide), (down, right) = layer.size, layer.stride
    sizes, strides = (image.samples, *pooled.shape), (sample, down * row, right * column, channel)
    return [View(view.at + i * row + j * column, sizes, strides) for i in range(high) for j in range(wide)]
