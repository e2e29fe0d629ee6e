import numpy as np
import pytest
from nibblecore.sim.compiler.network import Add, AvgPool, BatchNorm, Conv2d, Dense, Dropout, MaxPool
from nibblecore.sim.compiler.reference import Reference

pytest.importorskip("torch", reason="PyTorch is not installed: make test-torch installs it")

import torch
from frontends.torches import Calls, agrees, settled
from nibblecore.sim.frontends.imported import Refused, Unsupported
from nibblecore.sim.frontends.pytorch import from_torch, to_torch
from torch import nn
from torch.nn import functional as F

IMAGE = (3, 8, 6)


def network():
    """Of all that is learned."""
    return nn.Sequential(
        nn.Conv2d(3, 8, (3, 2), stride=(2, 1), padding=(1, 0), groups=1),
        nn.BatchNorm2d(8, eps=1e-3, momentum=0.2),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding="same", groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(4 * 4 * 5, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Linear(6, 5, bias=False),
    )


def test_a_network():
    module = settled(network())
    model = agrees(module, IMAGE)
    assert model.graph.inputs == (8, 6, 3) and not model.notes
    assert model.graph.description == (
        "8×6×3, conv 8 of 3×2 by 2×1 padded by 1×0 with bias, batch norm, ReLU, conv 4 of 3×3 padded by 1 in 2 groups, "
        "dense 6 with bias, batch norm, ReLU, dense 5"
    )
    assert [node.name for node in model.graph.nodes] == ["0", "1", "2", "3", "5", "6", "7", "8"]
    norms = [node.layer for node in model.graph.nodes if isinstance(node.layer, BatchNorm)]
    assert norms == [BatchNorm(1e-3, 0.2), BatchNorm(1e-5, 0.1)]
    assert [each.shape for each in model.parameters] == [each.shape for each in model.graph.parameters]
    assert {each.dtype for each in model.parameters} == {np.dtype(np.float32)}
    assert [tensor.name for tensor in model.tensors][:5] == ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight"]


def test_weights_are_ordered_as_the_graph_says():
    module = settled(nn.Sequential(nn.Conv2d(3, 4, (2, 3)), nn.Flatten(), nn.Linear(4 * 7 * 4, 5)))
    conv, _, dense, _ = from_torch(module, torch.zeros(1, *IMAGE)).parameters
    assert (conv.reshape(4, 2, 3, 3)[1, 0, 2] == module[0].weight[1, :, 0, 2].detach().numpy()).all()
    assert (dense.reshape(5, 7, 4, 4)[3, 6, 1] == module[2].weight.reshape(5, 4, 7, 4)[3, :, 6, 1].detach().numpy()).all()


def written_view(m, x):
    y = m.conv(x)
    y.flatten(1).relu_()
    return m.dense(y.flatten(1))


def written_sum(m, x):
    y = m.conv(x)
    y.add_(m.conv2(x))
    return m.dense(F.relu(y).flatten(1))


FOLDED = {
    "flatten": lambda m, x: m.dense(torch.flatten(m.conv(x), 1)),
    "view with the batch": lambda m, x: m.dense(m.conv(x).view(x.size(0), -1)),
    "view with the values": lambda m, x: m.dense(m.conv(x).view(-1, 4 * 7 * 5)),
    "reshape in two steps": lambda m, x: m.dense(m.conv(x).flatten(2).reshape(x.shape[0], -1)),
    "squeezed": lambda m, x: m.tail(F.adaptive_avg_pool2d(m.conv(x), 1).squeeze(-1).squeeze(2)),
    "turned where nothing moves": lambda m, x: m.tail(F.adaptive_avg_pool2d(m.conv(x), 1).permute(0, 2, 3, 1).flatten(1)),
    "mean": lambda m, x: m.tail(m.conv(x).mean([2, 3])),
    "mean that keeps axes": lambda m, x: m.tail(m.conv(x).mean((-1, -2), keepdim=True).flatten(1)),
    "mean of flat pixels": lambda m, x: m.tail(m.conv(x).flatten(2).mean(2)),
    "identity": lambda m, x: m.dense(m.nothing(m.conv(x)).contiguous().flatten(1)),
    "clamp": lambda m, x: m.dense(m.conv(x).clamp(min=0).flatten(1)),
    "clamp_min": lambda m, x: m.dense(torch.clamp_min(m.conv(x), 0).flatten(1)),
    "ReLU of a row": lambda m, x: m.dense(F.relu(m.conv(x).flatten(1))),
    "product and sum": lambda m, x: m.conv(x).flatten(1) @ m.dense.weight.t() + m.dense.bias,
    "addmm": lambda m, x: torch.addmm(m.dense.bias, m.conv(x).flatten(1), m.dense.weight.transpose(0, 1)),
    "sum of a row and its like": lambda m, x: m.dense(m.conv(x).flatten(1) + F.relu(m.conv2(x)).flatten(1)),
    "twice": lambda m, x: m.dense((lambda y: y + y)(m.conv(x)).flatten(1)),
    "channels": lambda m, x: m.wide(torch.cat([m.conv(x), m.conv2(x)], dim=-3).flatten(1)),
    "rows of images": lambda m, x: m.wide(torch.cat([m.conv(x).flatten(1), m.conv2(x).flatten(1)], dim=1)),
    "max pool": lambda m, x: m.tail(F.max_pool2d(m.conv(x), 3, 2, 1).mean([2, 3])),
    "max pool whose ceil is its floor": lambda m, x: m.tail(F.max_pool2d(m.conv(x), 3, 2, ceil_mode=True).mean([2, 3])),
    "ceil of windows in the padding": lambda m, x: m.tail(
        F.max_pool2d(m.conv(x), (3, 2), (2, 3), (0, 1), ceil_mode=True).mean([2, 3])
    ),
    "mean pool with padding": lambda m, x: m.tail(F.avg_pool2d(m.conv(x), 3, 2, 1).mean([2, 3])),
    "mean pool without": lambda m, x: m.tail(F.avg_pool2d(m.conv(x), 3, 2, 1, count_include_pad=False).mean([2, 3])),
    "adaptive max": lambda m, x: m.tail(F.adaptive_max_pool2d(m.conv(x), 1).flatten(1)),
    "adaptive to the same": lambda m, x: m.dense(F.adaptive_avg_pool2d(m.conv(x), (7, None)).flatten(1)),
    "adaptive to a divisor": lambda m, x: m.few(F.adaptive_avg_pool2d(m.conv(x), (7, 1)).flatten(1)),
    "written in place": lambda m, x: (lambda y: m.dense((y.relu_() + y).flatten(1)))(m.conv(x)),
    "view of what is written": written_view,
    "sum in place": written_sum,
    "dropout that is switched off": lambda m, x: m.dense(F.dropout(m.conv(x), 0.3, training=False).flatten(1)),
}


@pytest.mark.parametrize("name", FOLDED)
def test_folded(name):
    modules = {
        "conv": nn.Conv2d(3, 4, 2),
        "conv2": nn.Conv2d(3, 4, 2),
        "nothing": nn.Identity(),
        "dense": nn.Linear(4 * 7 * 5, 6),
        "wide": nn.Linear(2 * 4 * 7 * 5, 6),
        "few": nn.Linear(4 * 7, 6),
        "tail": nn.Linear(4, 6),
    }
    agrees(settled(Calls(FOLDED[name], **modules)), IMAGE)


def test_a_row_that_becomes_an_image():
    module = settled(
        Calls(lambda m, x: m.dense(m.conv(x.view(-1, 2, 3, 4)).flatten(1)), conv=nn.Conv2d(2, 3, 2), dense=nn.Linear(18, 4))
    )
    assert agrees(module, (24,)).graph.inputs == (3, 4, 2)


def test_response_norm():
    module = settled(nn.Sequential(nn.Conv2d(3, 6, 3), nn.LocalResponseNorm(4, 0.5, 0.6, 2.0), nn.ReLU(), nn.LocalResponseNorm(3)))
    model = agrees(module, IMAGE)
    assert [node.name for node in model.graph.nodes] == ["0", "1", "2", "3"]


def test_softmax_at_the_end_is_the_losss():
    module = settled(Calls(lambda m, x: F.log_softmax(m.dense(x), dim=1), dense=nn.Linear(4, 3)))
    model = from_torch(module, torch.zeros(1, 4))
    assert model.graph.description == "4, dense 3 with bias"
    assert model.notes == ["the module: log_softmax: the loss has it: not in the graph, whose outputs are those before it"]


def test_dropout_is_a_layer_in_training():
    module = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    before = {name: each.clone() for name, each in module.state_dict().items()}
    model = from_torch(module.train(), torch.rand(2, 4))
    assert [type(node.layer) for node in model.graph.nodes] == [Dense, Dropout, BatchNorm, Dense]
    assert model.graph.nodes[1].layer == Dropout(0.3) and not model.notes
    assert all(torch.equal(each, module.state_dict()[name]) for name, each in before.items())
    tested = from_torch(module.eval(), torch.rand(2, 4))
    assert [type(node.layer) for node in tested.graph.nodes] == [Dense, BatchNorm, Dense]
    assert tested.notes == ["1: dropout: drops nothing in a test, rate 0.3: not in the graph"]


def test_names_are_the_modules():
    block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True))
    module = settled(Calls(lambda m, x: m.act(m.act(m.block(x)) + x).mean([2, 3]), block=block, act=nn.ReLU()))
    model = agrees(module, IMAGE)
    assert [node.name for node in model.graph.nodes] == ["block.0", "block.1", "act", "add", "act_1", "mean"]
    assert [type(node.layer) for node in model.graph.nodes][3:] == [Add, type(model.graph.nodes[2].layer), AvgPool]


def lines(module, shape, **more):
    with pytest.raises(Unsupported) as caught:
        from_torch(module.eval(), torch.zeros(2, *shape, **more))
    return caught.value


REFUSED = {
    "dilation": (nn.Conv2d(3, 4, 3, dilation=2), "dilation 2×2"),
    "other padding": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "is not one of the graph's layers"),
    "sides that differ": (nn.Conv2d(3, 4, 2, padding="same"), "more padding at one side than at the other"),
    "ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), "ceil_mode: windows of 3×3 reach out of an image of 8×6, 2×2 apart"),
    "pooling that is dilated": (nn.MaxPool2d(2, dilation=2), "dilation 2×2"),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), "divides by 3"),
    "adaptive": (nn.AdaptiveAvgPool2d(5), "images of 8×6 to 5×5, whose windows differ in size"),
    "places of the largest": (nn.MaxPool2d(2, return_indices=True), "has 2 tensors; the graph has one output"),
    "norm without weights": (nn.BatchNorm2d(3, affine=False), "has neither scale nor shift to learn"),
    "norm without statistics": (nn.BatchNorm2d(3, track_running_stats=False), "keeps no running statistics"),
    "norm without momentum": (nn.BatchNorm2d(3, momentum=None), "has no momentum: its running statistics are means of all steps"),
    "softmax of pixels": (nn.Softmax(dim=2), "of 3×3×8×6 numbers along axis 2, not of the classes"),
    "softmax within": (nn.Sequential(nn.Softmax(dim=1), nn.Conv2d(3, 4, 2)), "elsewhere than at the very end"),
    "linear of pixels": (nn.Linear(6, 2), "is given 3×3×8×6 numbers; the graph has products of a row for each sample"),
    "a number is added": (Calls(lambda m, x: x + 1.0), "adds a number that is computed or is none of the model's"),
    "a parameter is added": (
        Calls(lambda m, x: m.act(x) + m.norm.bias.view(1, 3, 1, 1), norm=nn.BatchNorm2d(3), act=nn.ReLU()),
        "adds numbers elsewhere than right behind a product without a bias",
    ),
    "weights that are computed": (
        Calls(lambda m, x: F.conv2d(x, m.conv.weight * 2), conv=nn.Conv2d(3, 3, 3)),
        "its weights are computed",
    ),
    "weights that are shared": (
        Calls(lambda m, x: m.conv(m.conv(x)), conv=nn.Conv2d(3, 3, 3)),
        "conv.weight is used a second time; the graph shares no weights",
    ),
    "numbers before a bias": (
        Calls(
            lambda m, x: (lambda y: torch.cat([y, y + m.norm.bias.view(3, 1, 1)], 1))(m.conv(x)),
            conv=nn.Conv2d(3, 3, 1, bias=False),
            norm=nn.BatchNorm2d(3),
        ),
        "is given numbers before the addition of a bias that the graph has in one layer",
    ),
    "images of two sizes": (
        Calls(lambda m, x: torch.cat([x.flatten(1), F.max_pool2d(x, 2).flatten(1)], 1)),
        "puts images of 8×6 and 4×3 behind each other as rows",
    ),
    "along rows": (
        Calls(lambda m, x: torch.cat([x, x], 2)),
        "puts 3×3×8×6 and 3×3×8×6 numbers behind each other along axis 2, not channels",
    ),
    "axes in another order": (
        Calls(lambda m, x: F.relu(x).permute(0, 2, 3, 1)),
        "puts the axes of 3×3×8×6 numbers in another order",
    ),
    "samples that mix": (Calls(lambda m, x: F.relu(x).reshape(-1, 6)), "from 3×3×8×6 to 72×6 numbers, which mixes samples"),
    "an image in another shape": (
        Calls(lambda m, x: F.max_pool2d(F.relu(x).reshape(-1, 3, 6, 8), 2)),
        "is given 3×3×6×8 numbers, not the image of 3×3×8×6",
    ),
    "pixels as outputs": (
        nn.Sequential(nn.ReLU(), nn.Flatten()),
        "an image of 3×3×8×6 as 3×144 numbers, whose order the graph has not",
    ),
    "the input": (nn.Identity(), "is what the model is given"),
    "broadcast": (Calls(lambda m, x: F.relu(x) + x.mean([2, 3], keepdim=True)), "adds 3×3×8×6 and 3×3×1×1 numbers"),
    "several outputs": (Calls(lambda m, x: (F.relu(x), x)), "has 2 tensors; the graph has one output"),
    "no output": (Calls(lambda m, x: m.conv.weight * 1, conv=nn.Conv2d(3, 3, 3)), "does not depend on what the module is given"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    module, reason = REFUSED[name]
    assert reason in [each.reason for each in lines(module, IMAGE).refused]


def test_weights_of_other_numbers_are_refused():
    module = nn.Linear(4, 3).double().eval()
    with torch.no_grad():
        module.weight[1, 2] = 1 / 3
    with pytest.raises(
        Unsupported, match=r"1 part of this model:\n  the module: linear: weight has numbers that FP32 does not hold"
    ):
        from_torch(module, torch.zeros(2, 4, dtype=torch.float64))
    with torch.no_grad():
        module.float().weight[1, 2] = float("nan")
    with pytest.raises(Unsupported, match="weight has numbers that FP32 does not hold, or that are not finite"):
        from_torch(module, torch.zeros(2, 4))
    half = nn.Linear(4, 3).to(torch.bfloat16).eval()
    model = from_torch(half, torch.zeros(2, 4, dtype=torch.bfloat16))
    assert (model.parameters[0] == half.weight.detach().float().numpy()).all()


def test_buffers_and_frozen_weights():
    module = Calls(lambda m, x: F.linear(x, m.held), held=None)
    del module.held
    module.register_buffer("held", torch.ones(3, 4))
    assert lines(module, (4,)).refused == (
        Refused("the module", "linear", "held is no parameter, and the graph learns all its weights"),
    )
    dense = nn.Linear(4, 3).eval()
    dense.weight.requires_grad_(False)
    assert from_torch(dense, torch.zeros(2, 4)).notes == [
        "the module: requires_grad is False of weight: the graph learns all its weights"
    ]


def test_a_frozen_norm_is_refused_in_training():
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    module[1].eval()
    with pytest.raises(Unsupported, match="1: batch_norm: is in eval"):
        from_torch(module, torch.zeros(2, 4))


def test_all_is_refused_in_one_list():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, dilation=2),
        nn.GELU(),
        nn.Sequential(nn.Conv2d(4, 4, 2), nn.SiLU()),
        nn.Conv2d(4, 4, 1, dilation=3),
        nn.MaxPool2d(1),
        nn.AvgPool2d(2, divisor_override=5),
    )
    error = lines(module, (3, 12, 12))
    assert error.refused == (
        Refused("0", "conv2d", "dilation 2×2"),
        Refused("1", "gelu", "is not one of the graph's layers"),
        Refused("2.1", "silu", "is not one of the graph's layers"),
        Refused("3", "conv2d", "dilation 3×3"),
        Refused("5", "avg_pool2d", "divides by 5"),
    )
    assert str(error).splitlines() == [
        "the graph of layers has no place for 5 parts of this model:",
        "  0: conv2d: dilation 2×2",
        "  1: gelu: is not one of the graph's layers",
        "  2.1: silu: is not one of the graph's layers",
        "  3: conv2d: dilation 3×3",
        "  5: avg_pool2d: divides by 5",
    ]


class Patches(nn.Module):
    """A small vision transformer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def test_what_is_no_convolutional_network_is_told():
    transformer = nn.Sequential(nn.Embedding(20, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    found = lines(transformer, (6,), dtype=torch.int64).refused
    assert (
        Refused("input", "input", "numbers of torch.int64; the graph is given real ones") in found or found[0].place == "the module"
    )
    assert {"embedding", "layer_norm", "scaled_dot_product_attention"} <= {each.operator for each in found}
    assert any(each.place.startswith("1.self_attn") for each in found)

    found = lines(Patches(), (3, 8, 8)).refused
    assert {"transpose", "layer_norm", "scaled_dot_product_attention"} <= {each.operator for each in found}
    assert {each.place for each in found} >= {"encoder.layers.0.norm1", "encoder.layers.1.norm2"}

    lstm = Calls(lambda m, x: m.head(m.lstm(x)[0][:, -1]), lstm=nn.LSTM(4, 8, batch_first=True), head=nn.Linear(8, 3))
    found = lines(lstm, (6, 4)).refused
    assert Refused("lstm", "lstm", "is not one of the graph's layers") in found
    assert Refused("the module", "input", "of 3×6×4, which is neither a row of values nor an image for each sample") in found


def test_what_cannot_be_exported():
    module = Calls(lambda m, x: x if x.sum() > 0 else -x)
    (only,) = lines(module, (4,)).refused
    assert only.operator == "torch.export" and only.place == "the module"
    with pytest.raises(TypeError, match=r"module must be a torch.nn.Module, not function"):
        from_torch(lambda x: x, torch.zeros(1, 4))
    with pytest.raises(TypeError, match="the example must be a tensor or an array"):
        from_torch(nn.Linear(4, 3), [[0.0, 0.0, 0.0, 0.0]])
    assert from_torch(nn.Linear(4, 3), np.zeros((1, 4), np.float32)).graph.description == "4, dense 3 with bias"


def test_a_module_may_insist_on_its_number_of_samples():
    module = Calls(lambda m, x: m.dense(x.view(2, 12)), dense=nn.Linear(12, 3)).eval()
    assert from_torch(module, torch.zeros(2, 3, 2, 2)).graph.description == "2×2×3, dense 3 with bias"


def test_trained_weights_return_to_the_bit():
    module, other = settled(network(), 1), settled(network(), 2)
    here, there = (from_torch(each, torch.zeros(1, *IMAGE)) for each in (module, other))
    assert not any(np.array_equal(a, b) for a, b in zip(here.parameters, there.parameters, strict=True))
    to_torch(module, here, there.parameters, there.statistics)
    counts = {name for name in module.state_dict() if "tracked" in name}
    for name, each in module.state_dict().items():
        assert torch.equal(each, other.state_dict()[name]), name
    assert len(counts) == 2
    again = from_torch(module, torch.zeros(1, *IMAGE))
    for a, b in zip(again.parameters, there.parameters, strict=True):
        assert a.tobytes() == b.tobytes()
    for name, both in there.statistics.items():
        assert all(a.tobytes() == b.tobytes() for a, b in zip(again.statistics[name], both, strict=True))


def test_what_was_learned_in_double_precision_returns():
    """A step of gradient descent by the reference is the step by torch."""
    module = settled(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 5)))
    model, x = from_torch(module, torch.zeros(1, *IMAGE)), torch.rand(4, *IMAGE)
    reference = Reference(model.graph, model.parameters)
    y = reference.forward(model.samples(x.numpy()))
    gradients, _ = reference.backward(np.ones_like(y) / 7)
    to_torch(module, model, [p - 0.1 * g for p, g in zip(model.parameters, gradients, strict=True)])
    other = settled(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 5)))
    (other.double()(x.double()).sum() / 7).backward()
    for found, each in zip(module.parameters(), other.parameters(), strict=True):
        assert (found.double() - (each - 0.1 * each.grad)).abs().max() < 1e-6 and each.grad.abs().max() > 1e-3


def test_wrong_weights_leave_the_module_as_it_is():
    module = settled(network())
    model, before = from_torch(module, torch.zeros(1, *IMAGE)), {n: t.clone() for n, t in module.state_dict().items()}
    with pytest.raises(ValueError, match="parameters must be the 10 of the graph, not 9"):
        to_torch(module, model, model.parameters[1:])
    with pytest.raises(ValueError, match=r"0.weight comes from \(8, 18\) numbers, not from \(18, 8\)"):
        to_torch(module, model, [model.parameters[0].T, *model.parameters[1:]])
    with pytest.raises(ValueError, match="there is no batch norm 'x'"):
        to_torch(module, model, model.parameters, {"x": model.statistics["1"]})
    with pytest.raises(ValueError, match=r"the module has no 0.weight of 8×3×3×2 numbers"):
        to_torch(nn.Linear(2, 2), model, model.parameters)
    assert all(torch.equal(each, module.state_dict()[name]) for name, each in before.items())


def test_samples_of_another_shape():
    model = from_torch(settled(nn.Conv2d(3, 4, 3)), torch.zeros(1, *IMAGE))
    with pytest.raises(ValueError, match="samples must be 3×8×6, channels, rows and columns, not 8×6×3"):
        model.samples(np.zeros((2, 8, 6, 3)))
    row = from_torch(settled(nn.Linear(4, 3)), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="samples must be 4 values each, not 5"):
        row.samples(np.zeros((2, 5)))


def test_layers_are_the_modules():
    module = settled(nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.MaxPool2d(2), nn.AvgPool2d(2, 1, 1, count_include_pad=False)))
    layers = [node.layer for node in agrees(module, IMAGE).graph.nodes]
    assert layers == [Conv2d(4, 3, padding=1, bias=True), MaxPool(2, 2), AvgPool(2, 1, 1, padding_counts=False)]
