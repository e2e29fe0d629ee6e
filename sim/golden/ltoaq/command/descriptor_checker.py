"""Golden twin of the descriptor's checks (docs/ltoaq.md, "Descriptor" and "Errors")."""

from typing import NamedTuple

from nibblecore.hdl.config import LtoaqConfig

from .errors import ErrorCode

__all__ = ["Region", "check", "clip", "conditions", "fields", "jobs", "panel_words", "regions"]

GEMM, QUANTIZE, THRESHOLD_GRAD = 1, 2, 3

_FORMAT = {"eight_bit": (0, 0, 1), "signed": (0, 1, 1), "k": (0, 2, 2), "threshold": (0, 8, 8)}
_TENSOR = {**_FORMAT, "header": (1, 0, 32), "codes": (2, 0, 32), "runs": (3, 0, 32), "run_stride": (4, 0, 32)}
_PLACES = {
    "opcode": (0, 0, 8),
    "a_transposed": (0, 8, 1),
    "w_transposed": (0, 9, 1),
    "raw_output": (0, 10, 1),
    "relu": (0, 11, 1),
    "interrupt": (0, 12, 1),
    "m": (1, 0, 32),
    "n": (2, 0, 32),
    "k": (3, 0, 32),
    **{
        f"{t}_{name}": (first + word, low, width)
        for t, first in (("a", 4), ("w", 9), ("out", 14))
        for name, (word, low, width) in _TENSOR.items()
    },
    "raw0_address": (19, 0, 32),
    "raw0_pitch": (20, 0, 32),
    "raw1_address": (21, 0, 32),
    "raw1_pitch": (22, 0, 32),
    "alpha": (23, 0, 32),
    "multiplier": (24, 0, 8),
    "shift": (24, 8, 6),
    "a_group": (25, 0, 8),
    "w_group": (25, 8, 8),
    "k_tiles": (26, 0, 16),
}
"""Word, lowest bit and width of every field."""


class Region(NamedTuple):
    """Bytes that a command may touch."""

    base: int
    size: int


def fields(descriptor: bytes) -> dict[str, int]:
    """Every field of the table."""
    words = [int.from_bytes(descriptor[4 * i : 4 * i + 4], "little") for i in range(32)]
    return {name: words[word] >> low & (1 << width) - 1 for name, (word, low, width) in _PLACES.items()}


def _used(f: dict[str, int]) -> set[str]:
    """Names of the fields that mean something to this command."""
    used = {"opcode", "interrupt", "m", "n"}
    quantizer = {"alpha", "multiplier", "shift", "relu"}
    out = {f"out_{name}" for name in _TENSOR}
    raw0 = {"raw0_address", "raw0_pitch"}
    if f["opcode"] == GEMM:
        used |= {"k", "a_transposed", "w_transposed", "raw_output", "a_group", "w_group", "k_tiles"}
        used |= {f"{t}_{name}" for t in "aw" for name in _TENSOR}
        used |= raw0 if f["raw_output"] else out | quantizer
    elif f["opcode"] == QUANTIZE:
        used |= out | raw0 | quantizer
    elif f["opcode"] == THRESHOLD_GRAD:
        used |= {f"out_{name}" for name in (*_FORMAT, "header")} | raw0 | {"raw1_address", "raw1_pitch"} | quantizer
    return used


def _tiles(config: LtoaqConfig, size: int) -> int:
    return -(-size // config.tile)


def regions(f: dict[str, int], config: LtoaqConfig) -> dict[str, Region]:
    """What the command may touch, by the name of the field that holds the address."""
    used, bus = _used(f), config.bus_bytes
    m, n, k = (_tiles(config, f[size]) for size in ("m", "n", "k"))
    found = {}
    for tensor, tiles in (("a", m * k), ("w", n * k), ("out", m * n)):
        if f"{tensor}_codes" in used:
            beats = config.tile_beats(8 if f[f"{tensor}_eight_bit"] else 4)
            found[f"{tensor}_codes"] = Region(f[f"{tensor}_codes"], tiles * beats * bus)
            found[f"{tensor}_runs"] = Region(f[f"{tensor}_runs"], tiles * f[f"{tensor}_run_stride"] * bus)
        if f"{tensor}_header" in used:
            found[f"{tensor}_header"] = Region(f[f"{tensor}_header"], 32)
    for raw in ("raw0", "raw1"):
        if f"{raw}_address" in used:
            line = -(-4 * f["n"] // bus) * bus
            found[f"{raw}_address"] = Region(f[f"{raw}_address"], (f["m"] - 1) * f[f"{raw}_pitch"] + line)
    return found


def panel_words(config: LtoaqConfig, k_tiles: int, eight_bit: bool, banks: int) -> int:
    """Words that a panel takes in each of `banks` banks."""
    return config.tile // banks * k_tiles * (config.tile // config.block) * (2 if eight_bit else 1)


def _q_max(f: dict[str, int], tensor: str) -> int:
    return 2 ** ((8 if f[f"{tensor}_eight_bit"] else 4) - f[f"{tensor}_signed"]) - 1


def conditions(descriptor: bytes, config: LtoaqConfig, window_base: int, window_last: int) -> dict[str, tuple[ErrorCode, bool]]:
    """Each condition that commands of this kind are under, by name: the code it is refused with, and whether the descriptor meets it."""
    f = fields(descriptor)
    used = _used(f)
    found: dict[str, tuple[ErrorCode, bool]] = {}

    def require(code: ErrorCode, name: str, met: bool) -> None:
        found[name] = code, met

    require(ErrorCode.BAD_OPCODE, "opcode", f["opcode"] in (GEMM, QUANTIZE, THRESHOLD_GRAD))
    covered = sum(((1 << width) - 1) << 32 * word + low for word, low, width in _PLACES.values())
    require(ErrorCode.RESERVED_BITS, "reserved", int.from_bytes(descriptor, "little") & ~covered == 0)
    for name in _PLACES.keys() - used:
        require(ErrorCode.RESERVED_BITS, f"{name} unused", f[name] == 0)
    for name in {"m", "n", "k", "a_run_stride", "w_run_stride", "out_run_stride"} & used:
        require(ErrorCode.ZERO_SIZE, f"{name} zero", f[name] > 0)
        require(ErrorCode.ZERO_SIZE, f"{name} wide", f[name] <= 65535)
    for name in used:
        if name.endswith(("_header", "_codes", "_runs", "_address", "_pitch")):
            grain = 32 if name.endswith("_header") else config.bus_bytes
            require(ErrorCode.MISALIGNED, f"{name} askew", f[name] % grain == 0)
        if name.endswith("_pitch"):
            require(ErrorCode.MISALIGNED, f"{name} short", f[name] >= 4 * f["n"])
    for name, region in regions(f, config).items():
        require(ErrorCode.OUT_OF_WINDOW, f"{name} below", region.base >= window_base)
        require(ErrorCode.OUT_OF_WINDOW, f"{name} beyond", region.base + region.size - 1 <= window_last)
    for tensor in ("a", "w", "out"):
        if f"{tensor}_threshold" in used:
            require(ErrorCode.BAD_FORMAT, f"{tensor}_threshold zero", f[f"{tensor}_threshold"] > 0)
            require(ErrorCode.BAD_FORMAT, f"{tensor}_threshold high", f[f"{tensor}_threshold"] <= _q_max(f, tensor))
    if "alpha" in used:
        require(ErrorCode.BAD_FORMAT, "alpha zero", f["alpha"] > 0)
        require(ErrorCode.BAD_FORMAT, "alpha high", f["alpha"] < 2**31)
        require(ErrorCode.BAD_FORMAT, "multiplier zero", f["multiplier"] > 0)
        require(ErrorCode.BAD_FORMAT, "shift high", f["shift"] <= 39)
    if f["opcode"] == GEMM:
        require(ErrorCode.BAD_FORMAT, "widths differ", f["a_eight_bit"] == f["w_eight_bit"])
        all_tiles, half = _tiles(config, f["k"]), config.bank_words // 2
        require(ErrorCode.BAD_TILING, "k_tiles zero", f["k_tiles"] > 0)
        require(ErrorCode.BAD_TILING, "k_tiles high", f["k_tiles"] <= all_tiles)
        for tensor, banks in (("a", config.rows), ("w", config.output_cols)):
            group = f[f"{tensor}_group"]
            words = group * panel_words(config, f["k_tiles"], bool(f["a_eight_bit"]), banks)
            require(ErrorCode.BAD_TILING, f"{tensor}_group zero", group > 0)
            require(ErrorCode.BAD_TILING, f"{tensor}_group of a part", group <= 1 or f["k_tiles"] >= all_tiles)
            require(ErrorCode.BAD_TILING, f"{tensor}_group high", words <= half)
    return found


def check(descriptor: bytes, config: LtoaqConfig, window_base: int, window_last: int) -> ErrorCode:
    """The lowest code that applies to a descriptor."""
    found = conditions(descriptor, config, window_base, window_last)
    return min((code for code, met in found.values() if not met), default=ErrorCode.NONE)


def clip(f: dict[str, int], config: LtoaqConfig) -> int:
    """Largest residual of the output tensor (docs/formats.md, q_max)."""
    room = config.value_max(8 if f["out_eight_bit"] else 4) - f["out_threshold"]
    return min(_q_max(f, "out"), room >> f["out_k"])


def jobs(f: dict[str, int], config: LtoaqConfig) -> dict[str, dict[str, int]]:
    """What the units are told of a legal command; only what the command uses.

    Steps follow from the row-major grid of tiles: an operand M×K stored as it is has K tiles in a row, stored transposed M.
    """
    bus = config.bus_bytes
    m, n, k = (_tiles(config, f[size]) for size in ("m", "n", "k"))
    found: dict[str, dict[str, int]] = {"shape": {"m": f["m"], "n": f["n"], "m_tiles": m, "n_tiles": n}}
    if f["opcode"] == GEMM:
        found["gemm"] = {
            "eight_bit": f["a_eight_bit"],
            "m_tiles": m,
            "n_tiles": n,
            "k": f["k"],
            "k_tiles": k,
            "a_group": f["a_group"],
            "w_group": f["w_group"],
            "chunk_tiles": f["k_tiles"],
            "chunked": int(f["k_tiles"] != k),
        }
        for tensor, panels in (("a", m), ("w", n)):
            turned = f[f"{tensor}_transposed"]
            in_a_row = panels if turned else k
            steps = {}
            for region, tile in (
                ("codes", config.tile_beats(8 if f["a_eight_bit"] else 4) * bus),
                ("runs", f[f"{tensor}_run_stride"] * bus),
            ):
                along, across = tile, in_a_row * tile
                steps[f"{region}_k_step"], steps[f"{region}_panel_step"] = (across, along) if turned else (along, across)
            found[tensor] = {"transposed": turned, "codes": f[f"{tensor}_codes"], "runs": f[f"{tensor}_runs"], **steps}
    used = _used(f)
    if "out_codes" in used:
        tile, segment = config.tile_beats(8 if f["out_eight_bit"] else 4) * bus, f["out_run_stride"] * bus
        found["target"] = {
            "codes": f["out_codes"],
            "runs": f["out_runs"],
            "run_stride": f["out_run_stride"],
            "codes_row_step": n * tile,
            "runs_tile_step": segment,
            "runs_row_step": n * segment,
        }
    for raw in ("raw0", "raw1"):
        if f"{raw}_address" in used:
            found[raw] = {"address": f[f"{raw}_address"], "pitch": f[f"{raw}_pitch"]}
    return found
