"""The convolutional networks of the two papers, in PyTorch, as their own papers describe them.

Each function takes `classes`, the edge of the `image` and a `width` that all its channels are multiplied by, and returns a module with fresh
weights. Images of up to 64 pixels get the form for small images, where the network has one: a first layer that keeps their size.
"""

from collections.abc import Callable, Sequence
from typing import Any

from .imported import missing

try:
    import torch
    from torch import nn
except ModuleNotFoundError:
    raise missing("torch") from None

__all__ = ["MODELS", "alexnet", "googlenet", "inception_v3", "resnet18", "resnet50", "squeezenet", "vgg7", "vgg16"]

_SMALL = 64


def _by(width: float) -> Callable[[int], int]:
    """Channels of a network of that width: multiples of 4."""
    return lambda channels: max(4, 4 * round(channels * width / 4))


def alexnet(classes: int = 1000, image: int = 224, width: float = 1.0) -> nn.Module:
    """Krizhevsky 2012: five convolutions, three of them in two groups, and LRN behind the first two. `image` is 63 or more."""
    of = _by(width)
    edge = ((((image - 7) // 4 + 1 - 3) // 2 + 1 - 3) // 2 + 1 - 3) // 2 + 1
    return nn.Sequential(
        *_plain(3, of(96), 11, stride=4, padding=2),
        nn.LocalResponseNorm(5, k=2.0),
        nn.MaxPool2d(3, 2),
        *_plain(of(96), of(256), 5, padding=2, groups=2),
        nn.LocalResponseNorm(5, k=2.0),
        nn.MaxPool2d(3, 2),
        *_plain(of(256), of(384), 3, padding=1),
        *_plain(of(384), of(384), 3, padding=1, groups=2),
        *_plain(of(384), of(256), 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2),
        *_head(of(256) * edge**2, of(4096), classes),
    )


def vgg16(classes: int = 1000, image: int = 224, width: float = 1.0) -> nn.Module:
    """Simonyan 2014, D: thirteen convolutions of 3×3 and three dense layers. `image` is 32 or more."""
    layers, before = _stages(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), _by(width), norm=False)
    return nn.Sequential(*layers, *_head(before * (image // 32) ** 2, _by(width)(4096), classes))


def vgg7(classes: int = 10, image: int = 32, width: float = 1.0) -> nn.Module:
    """Six convolutions of 3×3 with batch norms and two dense layers, the usual network of papers on few bits. `image` is 8 or more."""
    of = _by(width)
    layers, before = _stages(((2, 128), (2, 256), (2, 512)), of, norm=True)
    dense = nn.Linear(before * (image // 8) ** 2, of(1024))
    return nn.Sequential(*layers, nn.Flatten(), dense, nn.ReLU(), nn.Linear(of(1024), classes))


def _plain(inputs: int, channels: int, kernel: int, **more: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, channels, kernel, **more), nn.ReLU()]


def _stages(stages: Sequence[tuple[int, int]], of: Callable[[int], int], *, norm: bool) -> tuple[list[nn.Module], int]:
    """Convolutions of 3×3, so many of so many channels, and a pooling behind each kind; and the channels of the last."""
    layers: list[nn.Module] = []
    before = 3
    for count, channels in stages:
        for _ in range(count):
            convolution = nn.Conv2d(before, of(channels), 3, padding=1, bias=not norm)
            layers += [convolution, *([nn.BatchNorm2d(of(channels))] if norm else []), nn.ReLU()]
            before = of(channels)
        layers.append(nn.MaxPool2d(2))
    return layers, before


def _head(inputs: int, hidden: int, classes: int) -> list[nn.Module]:
    return [
        nn.Flatten(),
        *(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()),
        nn.Linear(hidden, classes),
    ]


class _Residual(nn.Module):
    """ReLU of a sum: what some convolutions make of their input, and the input itself or a projection of it."""

    def __init__(self, branch: Sequence[nn.Module], shortcut: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branch, self.shortcut, self.relu = nn.Sequential(*branch), nn.Sequential(*shortcut), nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.relu(self.branch(x) + self.shortcut(x))


def _normed(inputs: int, channels: int, kernel: int | tuple[int, int], stride: int = 1, padding: Any = 0) -> list[nn.Module]:
    return [nn.Conv2d(inputs, channels, kernel, stride, padding, bias=False), nn.BatchNorm2d(channels)]


def _resnet(depths: Sequence[int], *, bottleneck: bool, classes: int, image: int, width: float) -> nn.Module:
    of = _by(width)
    small = image <= _SMALL
    layers = [*_normed(3, of(64), 3 if small else 7, 1 if small else 2, 1 if small else 3), nn.ReLU()]
    if not small:
        layers.append(nn.MaxPool2d(3, 2, 1))
    before = of(64)
    for stage, depth in enumerate(depths):
        inner = of(64 << stage)
        outer = 4 * inner if bottleneck else inner
        for number in range(depth):
            stride = 2 if stage and not number else 1
            if bottleneck:
                branch = [*_normed(before, inner, 1), nn.ReLU(), *_normed(inner, inner, 3, stride, 1), nn.ReLU()]
                branch += _normed(inner, outer, 1)
            else:
                branch = [*_normed(before, inner, 3, stride, 1), nn.ReLU(), *_normed(inner, inner, 3, 1, 1)]
            layers.append(_Residual(branch, _normed(before, outer, 1, stride) if stride > 1 or before != outer else []))
            before = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def resnet18(classes: int = 1000, image: int = 224, width: float = 1.0) -> nn.Module:
    """He 2015: eight blocks of two convolutions, with shortcuts."""
    return _resnet((2, 2, 2, 2), bottleneck=False, classes=classes, image=image, width=width)


def resnet50(classes: int = 1000, image: int = 224, width: float = 1.0) -> nn.Module:
    """He 2015: sixteen blocks of three convolutions; the second of a block has the stride."""
    return _resnet((3, 4, 6, 3), bottleneck=True, classes=classes, image=image, width=width)


class _Branches(nn.Module):
    """Channels of several branches behind each other."""

    def __init__(self, *branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

    def forward(self, x: Any) -> Any:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def squeezenet(classes: int = 1000, image: int = 224, width: float = 1.0) -> nn.Module:
    """Iandola 2016, 1.0: eight fire modules. Images have the sizes of its table 1: 111, 55, 27 and 13 of 224."""
    of = _by(width)

    def fire(inputs: int, squeezed: int, expanded: int) -> list[nn.Module]:
        both = _Branches(_plain(of(squeezed), of(expanded), 1), _plain(of(squeezed), of(expanded), 3, padding=1))
        return [*_plain(inputs, of(squeezed), 1), both]

    layers = [*_plain(3, of(96), 7, stride=2, padding=2), nn.MaxPool2d(3, 2)]
    before = of(96)
    for number, (squeezed, expanded) in enumerate(
        ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
    ):
        layers += fire(before, squeezed, expanded)
        before = 2 * of(expanded)
        if number in (2, 6):
            layers.append(nn.MaxPool2d(3, 2))
    return nn.Sequential(*layers, nn.Dropout(), *_plain(before, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _GoogLeNet(nn.Module):
    def __init__(self, classes: int, image: int, width: float, auxiliary: bool) -> None:
        super().__init__()
        of = _by(width)

        def inception(inputs: int, *sizes: int) -> _Branches:
            one, reduced3, three, reduced5, five, pooled = map(of, sizes)
            return _Branches(
                _plain(inputs, one, 1),
                [*_plain(inputs, reduced3, 1), *_plain(reduced3, three, 3, padding=1)],
                [*_plain(inputs, reduced5, 1), *_plain(reduced5, five, 5, padding=2)],
                [nn.MaxPool2d(3, 1, 1), *_plain(inputs, pooled, 1)],
            )

        def joined(*sizes: int) -> int:
            return sum(map(of, sizes))

        ends = [joined(192, 208, 48, 64), joined(112, 288, 64, 64), joined(256, 320, 128, 128)]
        self.stem = nn.Sequential(
            *_plain(3, of(64), 7, stride=2, padding=3),
            nn.MaxPool2d(3, 2, 1),
            nn.LocalResponseNorm(5),
            *_plain(of(64), of(64), 1),
            *_plain(of(64), of(192), 3, padding=1),
            nn.LocalResponseNorm(5),
            nn.MaxPool2d(3, 2, 1),
        )
        self.first = nn.Sequential(
            inception(of(192), 64, 96, 128, 16, 32, 32),
            inception(joined(64, 128, 32, 32), 128, 128, 192, 32, 96, 64),
            nn.MaxPool2d(3, 2, 1),
            inception(joined(128, 192, 96, 64), 192, 96, 208, 16, 48, 64),
        )
        self.second = nn.Sequential(
            inception(ends[0], 160, 112, 224, 24, 64, 64),
            inception(joined(160, 224, 64, 64), 128, 128, 256, 24, 64, 64),
            inception(joined(128, 256, 64, 64), 112, 144, 288, 32, 64, 64),
        )
        self.third = nn.Sequential(
            inception(ends[1], 256, 160, 320, 32, 128, 128),
            nn.MaxPool2d(3, 2, 1),
            inception(ends[2], 256, 160, 320, 32, 128, 128),
            inception(ends[2], 384, 192, 384, 48, 128, 128),
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(joined(384, 384, 128, 128), classes)
        )
        edge = ((image + 15) // 16 - 5) // 3 + 1
        self.auxiliary = nn.ModuleList(
            nn.Sequential(
                nn.AvgPool2d(5, 3),
                *_plain(end, of(128), 1),
                nn.Flatten(),
                *(nn.Linear(of(128) * edge**2, of(1024)), nn.ReLU(), nn.Dropout(0.7)),
                nn.Linear(of(1024), classes),
            )
            for end in (ends[:2] if auxiliary else ())
        )

    def forward(self, x: Any) -> Any:
        first = self.first(self.stem(x))
        second = self.second(first)
        outputs = self.head(self.third(second))
        if self.training and len(self.auxiliary):
            return outputs, *(head(y) for head, y in zip(self.auxiliary, (first, second), strict=True))
        return outputs


def googlenet(classes: int = 1000, image: int = 224, width: float = 1.0, auxiliary: bool = False) -> nn.Module:
    """Szegedy 2014: nine inception modules. With `auxiliary` it returns in training the outputs of the two heads beside its own, of images
    of 65 pixels or more."""
    return _GoogLeNet(classes, image, width, auxiliary)


def inception_v3(classes: int = 1000, image: int = 299, width: float = 1.0) -> nn.Module:
    """Szegedy 2015: eleven modules with factorized convolutions. `image` is 75 or more, or up to 64 in the form for small ones."""
    of = _by(width)

    def unit(inputs: int, channels: int, kernel: int | tuple[int, int], stride: int = 1, padding: Any = 0) -> list[nn.Module]:
        return [*_normed(inputs, channels, kernel, stride, padding), nn.ReLU()]

    def pooled(inputs: int, channels: int) -> list[nn.Module]:
        return [nn.AvgPool2d(3, 1, 1), *unit(inputs, channels, 1)]

    def a(inputs: int, pool: int) -> _Branches:
        return _Branches(
            unit(inputs, of(64), 1),
            [*unit(inputs, of(48), 1), *unit(of(48), of(64), 5, 1, 2)],
            [*unit(inputs, of(64), 1), *unit(of(64), of(96), 3, 1, 1), *unit(of(96), of(96), 3, 1, 1)],
            pooled(inputs, of(pool)),
        )

    def b(inputs: int, inner: int) -> _Branches:
        across, down, inner, outer = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0)), of(inner), of(192)
        double = [*unit(inputs, inner, 1), *unit(inner, inner, *down), *unit(inner, inner, *across)]
        double += [*unit(inner, inner, *down), *unit(inner, outer, *across)]
        return _Branches(
            unit(inputs, outer, 1),
            [*unit(inputs, inner, 1), *unit(inner, inner, *across), *unit(inner, outer, *down)],
            double,
            pooled(inputs, outer),
        )

    def c(inputs: int) -> _Branches:
        inner = of(384)

        def split() -> _Branches:
            return _Branches(unit(inner, inner, (1, 3), 1, (0, 1)), unit(inner, inner, (3, 1), 1, (1, 0)))

        return _Branches(
            unit(inputs, of(320), 1),
            [*unit(inputs, inner, 1), split()],
            [*unit(inputs, of(448), 1), *unit(of(448), inner, 3, 1, 1), split()],
            pooled(inputs, of(192)),
        )

    small = image <= _SMALL
    stem = [*unit(3, of(32), 3, 1 if small else 2, int(small)), *unit(of(32), of(32), 3, 1, int(small))]
    stem += [*unit(of(32), of(64), 3, 1, 1), *([] if small else [nn.MaxPool2d(3, 2)]), *unit(of(64), of(80), 1)]
    stem += [*unit(of(80), of(192), 3), *([] if small else [nn.MaxPool2d(3, 2)])]
    first, second = [of(64) + of(64) + of(96) + of(pool) for pool in (32, 64)]
    third = of(384) + of(96) + second
    last = of(320) + 4 * of(384) + of(192)
    return nn.Sequential(
        *stem,
        *(a(of(192), 32), a(first, 64), a(second, 64)),
        _Branches(
            unit(second, of(384), 3, 2),
            [*unit(second, of(64), 1), *unit(of(64), of(96), 3, 1, 1), *unit(of(96), of(96), 3, 2)],
            [nn.MaxPool2d(3, 2)],
        ),
        *(b(third, inner) if not number else b(4 * of(192), inner) for number, inner in enumerate((128, 160, 160, 192))),
        _Branches(
            [*unit(4 * of(192), of(192), 1), *unit(of(192), of(320), 3, 2)],
            [
                *(*unit(4 * of(192), of(192), 1), *unit(of(192), of(192), (1, 7), 1, (0, 3))),
                *(*unit(of(192), of(192), (7, 1), 1, (3, 0)), *unit(of(192), of(192), 3, 2)),
            ],
            [nn.MaxPool2d(3, 2)],
        ),
        c(of(320) + 5 * of(192)),
        c(last),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(last, classes)),
    )


MODELS: dict[str, Callable[..., nn.Module]] = {
    each.__name__: each for each in (alexnet, googlenet, inception_v3, resnet18, resnet50, squeezenet, vgg7, vgg16)
}
"""All of them, by name."""
