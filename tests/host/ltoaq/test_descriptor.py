"""Legal and illegal descriptors, one broken rule at a time."""

import re
from pathlib import Path

import pytest
from nibblecore.hdl.config import PRESETS, TINY
from nibblecore.hdl.ltoaq.command.descriptor import DESCRIPTOR_BYTES, FIELDS, Opcode, pack, unpack
from nibblecore.hdl.ltoaq.command.errors import ErrorCode
from nibblecore.sim.host.ltoaq.descriptor import check, check_address, regions, used_fields
from nibblecore.sim.host.ltoaq.tiling import Tiling, choose, fits, panel_words

WINDOW = 0x1000, 0xFFFF
QUANTIZER = {"alpha": 100, "multiplier": 200, "shift": 12}


def operand(name, address, rows=16, cols=16):
    return {
        f"{name}_eight_bit": 0,
        f"{name}_signed": 1,
        f"{name}_k": 1,
        f"{name}_threshold": 7,
        f"{name}_header": address,
        f"{name}_codes": address + 0x100,
        f"{name}_runs": address + 0x800,
        f"{name}_run_stride": 7,
    }


GEMM = {
    "opcode": Opcode.GEMM,
    "m": 16,
    "n": 16,
    "k": 16,
    **operand("a", 0x1000),
    **operand("w", 0x2000),
    "a_group": 2,
    "w_group": 2,
    "k_tiles": 2,
    "interrupt": 1,
}
RAW_GEMM = {**GEMM, "raw_output": 1, "raw0_address": 0x4000, "raw0_pitch": 64}
TENSOR_GEMM = {**GEMM, **operand("out", 0x3000), **QUANTIZER, "relu": 1}
QUANTIZE = {
    "opcode": Opcode.QUANTIZE,
    "m": 16,
    "n": 16,
    **operand("out", 0x3000),
    **QUANTIZER,
    "raw0_address": 0x4000,
    "raw0_pitch": 64,
}
GRADIENT = {
    "opcode": Opcode.THRESHOLD_GRAD,
    "m": 16,
    "n": 16,
    "out_signed": 1,
    "out_threshold": 7,
    "out_k": 2,
    "out_header": 0x3000,
    **QUANTIZER,
    "raw0_address": 0x4000,
    "raw0_pitch": 64,
    "raw1_address": 0x5000,
    "raw1_pitch": 72,
}
LEGAL = {"raw": RAW_GEMM, "tensor": TENSOR_GEMM, "quantize": QUANTIZE, "gradient": GRADIENT}


def code(fields, config=TINY, window=WINDOW):
    return check(pack(**fields), config, window)[0]


@pytest.mark.parametrize("name", LEGAL)
def test_legal(name):
    assert code(LEGAL[name]) == ErrorCode.NONE
    assert unpack(pack(**LEGAL[name])).items() >= LEGAL[name].items()
    assert set(LEGAL[name]) - {"a_transposed", "w_transposed"} <= used_fields(
        LEGAL[name]["opcode"], LEGAL[name].get("raw_output", 0)
    )


@pytest.mark.parametrize("name", LEGAL)
def test_every_unused_bit_is_refused(name):
    """Each bit of the 128 bytes that no used field covers."""
    fields = LEGAL[name]
    used = used_fields(fields["opcode"], fields.get("raw_output", 0))
    covered = sum(((1 << f.width) - 1) << 32 * f.word + f.low for f in FIELDS if f.name in used)
    legal = int.from_bytes(pack(**fields), "little")
    for bit in range(8 * DESCRIPTOR_BYTES):
        if not covered >> bit & 1:
            raw = (legal | 1 << bit).to_bytes(DESCRIPTOR_BYTES, "little")
            expected = ErrorCode.BAD_OPCODE if bit < 8 else ErrorCode.RESERVED_BITS
            if bit == next(f.low for f in FIELDS if f.name == "raw_output"):
                continue  # makes another legal kind of product, with fields of its own
            assert check(raw, TINY, WINDOW)[0] == expected, f"bit {bit}"


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("raw", {"opcode": 0}, ErrorCode.BAD_OPCODE),
        ("raw", {"opcode": 4}, ErrorCode.BAD_OPCODE),
        ("raw", {"relu": 1}, ErrorCode.RESERVED_BITS),
        ("quantize", {"raw_output": 1}, ErrorCode.RESERVED_BITS),
        ("raw", {"m": 0}, ErrorCode.ZERO_SIZE),
        ("raw", {"n": 65536}, ErrorCode.ZERO_SIZE),
        ("raw", {"k": 0}, ErrorCode.ZERO_SIZE),
        ("raw", {"a_run_stride": 0}, ErrorCode.ZERO_SIZE),
        ("tensor", {"out_run_stride": 65536}, ErrorCode.ZERO_SIZE),
        ("raw", {"a_header": 0x1010}, ErrorCode.MISALIGNED),
        ("raw", {"w_codes": 0x2104}, ErrorCode.MISALIGNED),
        ("raw", {"w_runs": 0x2801}, ErrorCode.MISALIGNED),
        ("raw", {"raw0_address": 0x4004}, ErrorCode.MISALIGNED),
        ("raw", {"raw0_pitch": 68}, ErrorCode.MISALIGNED),
        ("quantize", {"raw0_pitch": 56}, ErrorCode.MISALIGNED),
        ("gradient", {"raw1_pitch": 60}, ErrorCode.MISALIGNED),
        ("gradient", {"raw1_pitch": 56}, ErrorCode.MISALIGNED),
        ("raw", {"a_header": 0x0FE0}, ErrorCode.OUT_OF_WINDOW),
        ("raw", {"raw0_address": 0xFFF8}, ErrorCode.OUT_OF_WINDOW),
        ("raw", {"raw0_address": 0x10000 - 16 * 64 + 8}, ErrorCode.OUT_OF_WINDOW),
        ("tensor", {"out_run_stride": 65535}, ErrorCode.OUT_OF_WINDOW),
        ("gradient", {"out_header": 0x10000}, ErrorCode.OUT_OF_WINDOW),
        ("raw", {"a_threshold": 0}, ErrorCode.BAD_FORMAT),
        ("raw", {"a_threshold": 8}, ErrorCode.BAD_FORMAT),
        ("raw", {"w_eight_bit": 1}, ErrorCode.BAD_FORMAT),
        ("quantize", {"out_threshold": 8}, ErrorCode.BAD_FORMAT),
        ("quantize", {"alpha": 0}, ErrorCode.BAD_FORMAT),
        ("quantize", {"alpha": 2**31}, ErrorCode.BAD_FORMAT),
        ("tensor", {"multiplier": 0}, ErrorCode.BAD_FORMAT),
        ("gradient", {"shift": 40}, ErrorCode.BAD_FORMAT),
        ("raw", {"a_group": 0}, ErrorCode.BAD_TILING),
        ("raw", {"w_group": 0}, ErrorCode.BAD_TILING),
        ("raw", {"k_tiles": 0}, ErrorCode.BAD_TILING),
        ("raw", {"k_tiles": 3}, ErrorCode.BAD_TILING),
        ("raw", {"k_tiles": 1}, ErrorCode.BAD_TILING),
        ("raw", {"a_group": 17}, ErrorCode.BAD_TILING),
        ("raw", {"w_group": 17}, ErrorCode.BAD_TILING),
    ],
)
def test_one_broken_rule(name, change, expected):
    assert code({**LEGAL[name], **change}) == expected


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("raw", {"a_eight_bit": 1, "w_eight_bit": 1, "a_threshold": 127}),
        ("raw", {"a_signed": 0, "a_threshold": 15}),
        ("quantize", {"alpha": 2**31 - 1, "multiplier": 255, "shift": 39}),
        ("raw", {"a_group": 16, "w_group": 16}),
        ("raw", {"a_group": 1, "w_group": 1, "k_tiles": 1}),
        ("raw", {"raw0_address": 0x10000 - 16 * 64}),
        ("quantize", {"n": 15, "raw0_pitch": 64}),
    ],
)
def test_legal_limits(name, change):
    assert code({**LEGAL[name], **change}) == ErrorCode.NONE


def test_the_lowest_code_is_reported():
    broken = {**RAW_GEMM, "m": 0, "a_header": 0x1010, "w_group": 0}
    assert code(broken) == ErrorCode.ZERO_SIZE
    assert code({**broken, "m": 16}) == ErrorCode.MISALIGNED
    assert code({**broken, "m": 16, "a_header": 0x1000}) == ErrorCode.BAD_TILING


def test_addresses_of_descriptors():
    assert check_address(0x1000, WINDOW)[0] == check_address(0x10000 - 128, WINDOW)[0] == ErrorCode.NONE
    assert check_address(0x1010, WINDOW)[0] == ErrorCode.MISALIGNED
    assert check_address(0x0FE0, WINDOW)[0] == check_address(0x10000 - 96, WINDOW)[0] == ErrorCode.OUT_OF_WINDOW


def test_transposition_swaps_the_sides_of_the_stored_matrix():
    """A stored 16×40 needs 2×5 tiles either way round."""
    for flags in ({}, {"a_transposed": 1}):
        sizes = {r.name: r.size for r in regions(unpack(pack(**{**RAW_GEMM, "k": 40, **flags})), TINY)}
        assert sizes["a codes"] == 10 * TINY.tile_beats(4) * 8
        assert sizes["raw0"] == 16 * 64


def test_pack_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="shift has 6 bits; 64"):
        pack(shift=64)
    with pytest.raises(KeyError):
        pack(nonsense=1)
    with pytest.raises(ValueError, match="128 bytes"):
        unpack(b"\0" * 127)


@pytest.mark.parametrize("config", PRESETS.values(), ids=lambda c: c.name)
@pytest.mark.parametrize("bits", [4, 8])
def test_the_chosen_tiling_fits_and_is_the_largest(config, bits):
    for m, n, k in ((1, 1, 1), (32, 64, 64), (300, 400, 500), (65535, 65535, 65535), (10, 10_000, 48)):
        cut = choose(config, m, n, k, bits)
        assert fits(config, cut, k, bits)
        half, k_tiles = config.bank_words // 2, -(-k // config.tile)
        if cut.k_tiles < k_tiles:
            assert not fits(config, Tiling(1, 1, cut.k_tiles + 1), k, bits) and (cut.a_group, cut.w_group) == (1, 1)
        elif cut.w_group < min(255, -(-n // config.tile)):
            assert (cut.w_group + 1) * panel_words(config, k_tiles, bits)[1] > half


def test_the_manual_names_the_fields_of_every_command():
    """Its table against the driver's own list."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "ltoaq.md").read_text()
    table = page.partition("What each command uses")[2].partition("A tensor takes")[0]
    commands = ((Opcode.GEMM, 0), (Opcode.GEMM, 1), (Opcode.QUANTIZE, 0), (Opcode.THRESHOLD_GRAD, 0))
    found: list[set[str]] = [set() for _ in commands]
    parts = {"`out` format": ("eight_bit", "signed", "k", "threshold", "header"), "`out` codes": ("codes", "runs", "run_stride")}
    tensor = [name for names in parts.values() for name in names]
    for line in table.splitlines():
        if not line.startswith("| `"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        start = next((start for start in parts if cells[0].startswith(start)), None)
        names = (
            [f"out_{name}" for name in parts[start]]
            if start
            else re.findall(r"`(\w+)`", cells[0].replace("tensors `a` and `w`", ""))
        )
        if "tensors" in cells[0]:
            names += [f"{which}_{name}" for which in "aw" for name in tensor]
        names = [each for name in names for each in ((f"{name}_address", f"{name}_pitch") if name in ("raw0", "raw1") else (name,))]
        for used, cell in zip(found, cells[1:], strict=True):
            used.update(names if cell == "yes" else ())
    assert [frozenset(used) for used in found] == [used_fields(*command) for command in commands]
