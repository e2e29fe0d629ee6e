"""The networks of the papers are what their papers describe, and their graphs compute what they compute."""

import os

import pytest
from nibblecore.sim.compiler.network import LocalResponseNorm

pytest.importorskip("torch", reason="PyTorch is not installed: make test-torch installs it")

import torch
from frontends.torches import agrees, settled
from nibblecore.sim.frontends.imported import Unsupported
from nibblecore.sim.frontends.models import MODELS, alexnet, googlenet, resnet18, squeezenet
from nibblecore.sim.frontends.pytorch import from_torch, to_torch

WEIGHTS = {
    "alexnet": 60_965_224,
    "googlenet": 6_998_552,
    "inception_v3": 23_834_568,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "squeezenet": 1_248_424,
    "vgg7": 12_978_058,
    "vgg16": 138_357_544,
}
SIZES = {"alexnet": 67, "googlenet": 65, "inception_v3": 75, "resnet50": 65, "vgg16": 32, "vgg7": 32}
"""Of images that show all of a network; 224 is what is classified."""
EDGES = {"vgg7": 32, "inception_v3": 299}


def test_all_are_here():
    assert MODELS.keys() == WEIGHTS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_number_of_weights(name):
    """As published: of AlexNet and GoogLeNet by their authors' tables, of the others by torchvision's."""
    with torch.device("meta"):
        assert sum(each.numel() for each in MODELS[name]().parameters()) == WEIGHTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_a_narrow_one(name):
    """Of a tenth of the channels, on images that are no larger than the network needs."""
    size = SIZES.get(name, 80)
    module = settled(MODELS[name](10, size, 0.1))
    model = agrees(module, (3, size, size))
    assert sum(each.size for each in model.parameters) == sum(each.numel() for each in module.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "inception_v3", "vgg16", "googlenet"])
def test_small_images(name):
    model = agrees(settled(MODELS[name](10, 32, 0.1)), (3, 32, 32))
    edges = {node.name: node.shape[:2] for node in model.graph.nodes}
    assert (32, 32) in edges.values() or name == "googlenet"


@pytest.mark.skipif(os.environ.get("LONG") != "1", reason="the full sizes take minutes: LONG=1")
@pytest.mark.parametrize("name", MODELS)
def test_the_whole(name):
    """At its full size and width; weights return to the bit."""
    size = EDGES.get(name, 224)
    module = settled(MODELS[name]())
    model = agrees(module, (3, size, size), samples=1)
    assert sum(each.size for each in model.parameters) == WEIGHTS[name]
    before = {name: each.clone() for name, each in module.state_dict().items()}
    parameters, statistics = [-each for each in model.parameters], {n: (v, m) for n, (m, v) in model.statistics.items()}
    to_torch(module, model, parameters, statistics)
    to_torch(module, model, model.parameters, model.statistics)
    assert all(torch.equal(each, module.state_dict()[name]) for name, each in before.items())


@pytest.mark.parametrize(
    ("build", "sizes"),
    [
        (squeezenet, [111, 55, 27, 13]),
        (alexnet, [55, 27, 13, 6]),
        (googlenet, [112, 56, 28, 14, 7]),
        (resnet18, [112, 56, 28, 14, 7]),
    ],
)
def test_images_have_the_sizes_of_the_papers(build, sizes):
    graph = from_torch(build(10, 224, 0.05).eval(), torch.zeros(1, 3, 224, 224)).graph
    assert [each for each in dict.fromkeys(node.shape[0] for node in graph.nodes) if each > 1] == sizes


def test_the_first_networks_have_response_norms():
    for build in (alexnet, googlenet):
        graph = from_torch(build(10, 67, 0.05).eval(), torch.zeros(1, 3, 67, 67)).graph
        assert sum(isinstance(node.layer, LocalResponseNorm) for node in graph.nodes) == 2


def test_auxiliary_heads():
    """They are no part of what is tested, and the graph has no place for their losses."""
    module = settled(googlenet(10, 67, 0.05, auxiliary=True))
    x = torch.rand(2, 3, 67, 67)
    assert [each.shape for each in module.train()(x)] == [(2, 10)] * 3 and module.eval()(x).shape == (2, 10)
    model = agrees(module, (3, 67, 67))
    assert not any("auxiliary" in tensor.name for tensor in model.tensors)
    with pytest.raises(Unsupported, match="has 3 tensors; the graph has one output"):
        from_torch(module.train(), x)
