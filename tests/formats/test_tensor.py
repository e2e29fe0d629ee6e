"""The OAQ tensor's layout in memory, against docs/formats.md element by element."""

import numpy as np
import pytest
from nibblecore.hdl.config import FPGA, PAPER, TINY
from nibblecore.sim.formats.tensor import OaqTensor, PackedTensor, tiles

CONFIGS = [TINY, FPGA, PAPER]
SHAPES = [(1, 1), (8, 8), (21, 37), (33, 64)]


def tensor(shape, bits, ratio=0.1, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << bits, shape, dtype=np.uint8)
    return OaqTensor(codes, rng.random(shape) < ratio, bits, True, 5, 1)


def unpack(t, config, packed, run_stride):
    return OaqTensor.unpack(config, t.shape, packed, run_stride, bits=t.bits, signed=t.signed, threshold=t.threshold, k=t.k)


def place(row, col, cols, config, bits):
    """Bit address of an element's code, and its position in the order of its tile."""
    s, b = config.tile, config.block
    tile = (row // s) * -(-cols // s) + col // s
    row, col = row % s, col % s
    block = (row // b) * (s // b) + col // b
    row, col = row % b, col % b
    if bits == 4:
        beat, lane = block, row * b + col
    else:
        beat, lane = 2 * block + col // (b // 2), row * (b // 2) + col % (b // 2)
    lanes = config.bus_bits // bits
    return (tile * config.tile_beats(bits) + beat) * config.bus_bits + lane * bits, beat * lanes + lane


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_lie_where_the_format_says(config, bits):
    t = tensor((config.tile + 3, 2 * config.tile - 1), bits)
    word = int.from_bytes(t.pack(config).codes, "little")
    for (row, col), code in np.ndenumerate(t.codes):
        address, _ = place(row, col, t.shape[1], config, bits)
        assert word >> address & (1 << bits) - 1 == code
        word ^= int(code) << address
    assert word == 0, "padding must be zero"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("bits", [4, 8])
def test_runs_count_in_the_order_of_the_codes(config, bits):
    """A single outlier: its tile's segment is its position, in escapes of 2^r − 1 and a rest."""
    shape = (2 * config.tile, 2 * config.tile)
    for row, col in ((0, 0), (1, 2), (config.tile + 3, config.tile - 1), (shape[0] - 1, shape[1] - 1)):
        t = tensor(shape, bits, ratio=0)
        t.outlier[row, col] = True
        packed = t.pack(config)
        tile = (row // config.tile) * 2 + col // config.tile
        escape = 2**config.run_bits - 1
        _, position = place(row, col, shape[1], config, bits)
        codes = [escape] * (position // escape) + [position % escape]
        stride = packed.run_beats * config.bus_bytes
        for i in range(4):
            segment = int.from_bytes(packed.runs[i * stride : (i + 1) * stride], "little")
            expected = [len(codes), 0, *codes] if i == tile else [0]
            for slot, code in enumerate(expected):
                beat, lane = divmod(slot, config.run_slots)
                assert segment >> beat * config.bus_bits + lane * config.run_bits & escape == code


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratio", [0, 0.1, 1])
def test_unpacking_inverts_packing(config, bits, shape, ratio):
    t = tensor(shape, bits, ratio)
    tight = t.pack(config)
    wide = t.pack(config, config.max_run_beats)
    assert tight.codes == wide.codes and tight.run_beats == wide.run_beats <= config.max_run_beats
    assert len(wide.runs) == np.prod(tiles(shape, config)) * config.max_run_beats * config.bus_bytes
    for packed, stride in ((tight, tight.run_beats), (wide, config.max_run_beats)):
        assert unpack(t, config, packed, stride).first_difference(t) is None


def test_what_cannot_be_is_refused():
    t = tensor((8, 8), 4, ratio=1)
    packed = t.pack(TINY)
    with pytest.raises(ValueError, match="run_stride"):
        t.pack(TINY, packed.run_beats - 1)
    with pytest.raises(ValueError):
        unpack(t, TINY, packed._replace(run_beats=packed.run_beats - 1), packed.run_beats)
    small = tensor((7, 8), 4, ratio=0)
    full = PackedTensor(b"\x11" * 32, small.pack(TINY).runs, 1)
    with pytest.raises(ValueError, match="padding of a 7×8 tensor holds codes"):
        unpack(small, TINY, full, 1)
    for changes, message in (
        ({"bits": 5}, "bits"),
        ({"threshold": 8}, "1..7"),
        ({"threshold": 0}, "1..7"),
        ({"k": 4}, "k must"),
        ({"codes": np.full((8, 8), 16, np.uint8)}, "does not fit"),
        ({"codes": np.zeros((8, 7), np.uint8)}, "one shape"),
    ):
        with pytest.raises(ValueError, match=message):
            t.replace(**changes)


def test_first_difference():
    t = tensor((5, 6), 8)
    other = t.replace(codes=t.codes.copy(), outlier=t.outlier.copy())
    assert t.first_difference(other) is None
    other.outlier[3, 2] ^= True
    other.codes[4, 0] ^= 1
    assert t.first_difference(other) == (3, 2)
