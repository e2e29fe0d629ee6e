"""What a network costs, by the compiler's estimate."""

import json

import pytest
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim import cli
from nibblecore.sim.compiler.compiler import SGD, AvgPool, Conv2d, Dense, Layer, Relu, Training
from nibblecore.sim.compiler.estimate import listing
from nibblecore.sim.train import data
from nibblecore.sim.train.cambriconq import estimate
from nibblecore.sim.train.cambriconq.session import Recipe, Session


def test_it_is_the_listing_s_of_the_same_step(capsys):
    assert cli.main(["estimate", "NET=mlp", "CONFIG=tiny", "JSON=1"]) == 0
    found = json.loads(capsys.readouterr().out)
    config = CAMBRICONQ["tiny"]
    text = listing(Session(Recipe(network="mlp"), config, data.load()).program(0), config)
    assert f"# {found['instructions']} instructions, about {found['cycles']:,} cycles" in text
    for name in ("FW", "NG", "WG", "WU", "Q"):
        assert f"{found['phases'][name]:9,} counted" in next(line for line in text.splitlines() if line.startswith(f"# {name} "))
    # Two products with all of a layer's weights for the first, three for the second.
    assert found["macs"] == 32 * (2 * 64 * 64 + 3 * 64 * 10)
    assert found["utilization"] == pytest.approx(found["macs"] / (8 * 16 / 4) / found["cycles"])


def test_multiplications_are_those_of_the_products():
    layers: list[Layer] = [Conv2d(4, 3, stride=2, padding=1), Relu(), AvgPool(3), Dense(7)]
    training = Training(CAMBRICONQ["tiny"], (6, 5, 3), layers, 2, 2, 8, SGD(1), 1 << 20)
    # 3 × 3 places of 4 kernels of 27, twice; 7 outputs of 4 values, thrice.
    assert estimate.multiplications(training) == 2 * (2 * 9 * 4 * 27 + 3 * 7 * 4)


def test_plain18_has_resnet18_s_convolutions():
    layers = estimate.plain18(32)
    convolutions = [layer for layer in layers if isinstance(layer, Conv2d)]
    assert len(convolutions) == 17 and sum(layer.stride == 2 for layer in convolutions) == 3
    shape, weights = [], 3
    for layer in convolutions:
        shape.append(9 * weights * layer.channels)
        weights = layer.channels
    assert sum(shape) + 5120 == 10_992_320  # 11,173,962 of ResNet-18 for ten classes, less norms, shortcuts and the bias


def test_a_table_with_every_phase_and_lane(capsys):
    assert cli.main(["estimate", "NET=plain18", "IMAGE=8", "BATCH=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| plain18 on cambriconq_paper, 8 bits, 1 images of 8 × 8 | | |"
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == [
        "cycles",
        "multiplications",
        "instructions",
        "FW",
        "NG",
        "WG",
        "WU",
        "Q",
        "lane LOAD",
        "lane STORE",
        "lane COMPUTE",
    ]


@pytest.mark.parametrize(
    "words, said",
    [
        (["IMAGE=12"], "IMAGE=12: plain18 halves its images three times: take a multiple of 8, not 12"),
        (["NET=mlp", "IMAGE=8"], "IMAGE=8: mlp reads the digits, 8 × 8; plain18 takes images of other sizes"),
        (["CONFIG=tiny", "BATCH=1", "NET=plain18"], "NET=plain18: plain18 does not fit cambriconq_tiny: NBout is too small: "),
    ],
)
def test_what_cannot_be_is_said_in_a_line(words, said, capsys):
    assert cli.main(["estimate", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
