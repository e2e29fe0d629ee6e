"""Files of weights and moments: exact, and refused where they do not belong."""

import numpy as np
import pytest
from nibblecore.hdl.config import CAMBRICONQ
from nibblecore.sim.compiler.compiler import SGD, Adam, CompileError, Dense, Relu, Training
from nibblecore.sim.host.cambriconq.accelerator import CambriconqAccelerator
from nibblecore.sim.train.cambriconq.state import load, save
from nibblecore.sim.train.checkpoint import Checkpoint, CheckpointError

TINY, MEMORY = CAMBRICONQ["tiny"], 1 << 18


def training(hidden=16, bits=8, optimizer=Adam, rate=0.5):
    return Training(TINY, 20, [Dense(hidden), Relu(), Dense(4)], 8, 8, bits, optimizer(rate), MEMORY)


@pytest.fixture
def accelerator():
    return CambriconqAccelerator(TINY, transport="functional", memory_size=MEMORY)


def test_every_byte_comes_back(accelerator, tmp_path):
    t, rng = training(), np.random.default_rng(1)
    for places, shape in zip(t.weights, t.shapes, strict=True):
        for at in places:
            accelerator.write_memory(at, rng.standard_normal(shape).astype(np.float32).tobytes())
    before = accelerator.read_memory(0, MEMORY)
    save(tmp_path / "state.npz", t, accelerator, step=7, order=[3, 1])
    accelerator.write_memory(0, bytes(MEMORY))
    assert load(tmp_path / "state.npz", training(rate=0.1), accelerator) == (7, {"order": [3, 1]})
    assert accelerator.read_memory(0, MEMORY) == before
    assert Checkpoint.read(tmp_path / "state.npz").arrays.keys() == {f"{name} of layer {n}" for name in "wmv" for n in (0, 1)}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"hidden": 12}, "network is '20, dense 16, ReLU, dense 4', not '20, dense 12, ReLU, dense 4'"),
        ({"bits": 4}, "bits is 8, not 4"),
        ({"optimizer": SGD}, "optimizer is 'Adam', not 'SGD'"),
    ],
)
def test_another_training_is_refused(other, message, accelerator, tmp_path):
    save(tmp_path / "state.npz", training(), accelerator, step=1)
    accelerator.write_memory(0, b"\1" * MEMORY)
    with pytest.raises(CheckpointError, match=f"is of another training: {message}"):
        load(tmp_path / "state.npz", training(**other), accelerator)
    assert accelerator.read_memory(0, MEMORY) == b"\1" * MEMORY


def test_what_does_not_fit_is_refused(accelerator, tmp_path):
    t = training()
    file = tmp_path / "state.npz"
    Checkpoint({}, {}).write(file)
    with pytest.raises(CheckpointError, match="none of a Training"):
        load(file, t, accelerator)
    state = t.state(accelerator.read_memory)
    name = "m of layer 1"
    for changed, message in (
        ({key: array for key, array in state.items() if key != name}, f"the state has no {name}"),
        ({**state, name: state[name][1:]}, name),
        ({**state, name: state[name] + np.nan}, name),
    ):
        with pytest.raises(CompileError, match=message):
            t.restored(changed)
