"""Descriptors as the driver writes them and as they must be: used fields, memory regions, checks.

The layout is hdl/ltoaq/command/descriptor.py; this module is the reference for what a legal descriptor is.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.descriptor import DESCRIPTOR_BYTES, DESCRIPTOR_WORDS, HEADER_BYTES, Opcode, pack, unpack
from nibblecore.hdl.ltoaq.command.errors import ErrorCode

from . import tiling

__all__ = ["Region", "check", "check_address", "q_max", "regions", "used_fields"]

_COMMON = ("opcode", "interrupt", "m", "n")
_TENSOR = ("eight_bit", "signed", "k", "threshold", "header", "codes", "runs", "run_stride")
_QUANTIZER = ("relu", "alpha", "multiplier", "shift")
_SIZE_MAX = 65535


class Region(NamedTuple):
    """Bytes that a command reads or writes, and what their address must be a multiple of."""

    name: str
    address: int
    size: int
    alignment: int


def _tensor(name: str, parts: tuple[str, ...] = _TENSOR) -> tuple[str, ...]:
    return tuple(f"{name}_{part}" for part in parts)


def used_fields(opcode: int, raw_output: int) -> frozenset[str]:
    """The fields that a command of `opcode` reads; all others, and the reserved bits, must be 0."""
    quantized = (*_tensor("out"), *_QUANTIZER)
    raw0, raw1 = ("raw0_address", "raw0_pitch"), ("raw1_address", "raw1_pitch")
    if opcode == Opcode.GEMM:
        operands = (
            "a_transposed",
            "w_transposed",
            "raw_output",
            "k",
            *_tensor("a"),
            *_tensor("w"),
            "a_group",
            "w_group",
            "k_tiles",
        )
        return frozenset((*_COMMON, *operands, *(raw0 if raw_output else quantized)))
    if opcode == Opcode.QUANTIZE:
        return frozenset((*_COMMON, *quantized, *raw0))
    if opcode == Opcode.THRESHOLD_GRAD:
        return frozenset((*_COMMON, *_tensor("out", _TENSOR[:5]), *_QUANTIZER, *raw0, *raw1))
    raise ValueError(f"unknown opcode {opcode}")


def q_max(eight_bit: int, signed: int) -> int:
    """The largest normal code."""
    return 2 ** ((8 if eight_bit else 4) - signed) - 1


def _shapes(d: Mapping[str, int]) -> Iterator[tuple[str, int, int]]:
    """Name, rows and columns, as stored, of the tensors with codes in memory."""
    if d["opcode"] == Opcode.GEMM:
        yield ("a", d["k"], d["m"]) if d["a_transposed"] else ("a", d["m"], d["k"])
        yield ("w", d["k"], d["n"]) if d["w_transposed"] else ("w", d["n"], d["k"])
    if d["opcode"] == Opcode.QUANTIZE or (d["opcode"] == Opcode.GEMM and not d["raw_output"]):
        yield "out", d["m"], d["n"]


def regions(d: Mapping[str, int], config: LtoaqConfig) -> Iterator[Region]:
    """Everything in memory that a descriptor names. Raw matrices end with the bus beat of their last element."""
    beat = config.bus_bytes
    for name, rows, cols in _shapes(d):
        tiles = -(-rows // config.tile) * -(-cols // config.tile)
        bits = 8 if d[f"{name}_eight_bit"] else 4
        yield Region(f"{name} header", d[f"{name}_header"], HEADER_BYTES, HEADER_BYTES)
        yield Region(f"{name} codes", d[f"{name}_codes"], tiles * config.tile_beats(bits) * beat, beat)
        yield Region(f"{name} runs", d[f"{name}_runs"], tiles * d[f"{name}_run_stride"] * beat, beat)
    if d["opcode"] == Opcode.THRESHOLD_GRAD:
        yield Region("out header", d["out_header"], HEADER_BYTES, HEADER_BYTES)
    for name in ("raw0", "raw1"):
        if f"{name}_address" in used_fields(d["opcode"], d["raw_output"]):
            row = -(-4 * d["n"] // beat) * beat
            yield Region(name, d[f"{name}_address"], (d["m"] - 1) * d[f"{name}_pitch"] + row, beat)


def check(raw: bytes, config: LtoaqConfig, window: tuple[int, int]) -> tuple[ErrorCode, str]:
    """The error with the lowest code in a descriptor, or NONE, and what is wrong in words.

    `window` is the first and the last byte the accelerator may touch.
    """
    d = unpack(raw)
    if d["opcode"] not in list(Opcode):
        return ErrorCode.BAD_OPCODE, f"opcode {d['opcode']}"
    used = used_fields(d["opcode"], d["raw_output"])
    if raw != pack(**{name: d[name] for name in used}):
        words = memoryview(raw).cast("I"), memoryview(pack(**{name: d[name] for name in used})).cast("I")
        word = next(i for i in range(DESCRIPTOR_WORDS) if words[0][i] != words[1][i])
        return ErrorCode.RESERVED_BITS, f"word {word} is {words[0][word]:#010x}, of which {words[1][word]:#010x} is used"
    for name in ("m", "n", "k", "a_run_stride", "w_run_stride", "out_run_stride"):
        if name in used and not 1 <= d[name] <= _SIZE_MAX:
            return ErrorCode.ZERO_SIZE, f"{name} is {d[name]}"
    for region in regions(d, config):
        if region.address % region.alignment:
            return ErrorCode.MISALIGNED, f"{region.name} at {region.address:#x} is not a multiple of {region.alignment}"
    for name in ("raw0_pitch", "raw1_pitch"):
        if name in used and (d[name] % config.bus_bytes or d[name] < 4 * d["n"]):
            return ErrorCode.MISALIGNED, f"{name} is {d[name]} for rows of {4 * d['n']} bytes"
    for region in regions(d, config):
        if region.address < window[0] or region.address + region.size - 1 > window[1]:
            return ErrorCode.OUT_OF_WINDOW, f"{region.name}, {region.size} bytes at {region.address:#x}, leaves the window"
    return _check_numbers(d, used, config)


def _check_numbers(d: Mapping[str, int], used: frozenset[str], config: LtoaqConfig) -> tuple[ErrorCode, str]:
    for name in ("a", "w", "out"):
        limit = q_max(d[f"{name}_eight_bit"], d[f"{name}_signed"])
        if f"{name}_threshold" in used and not 1 <= d[f"{name}_threshold"] <= limit:
            return ErrorCode.BAD_FORMAT, f"threshold of {name} is {d[f'{name}_threshold']}, legal are 1..{limit}"
    if d["a_eight_bit"] != d["w_eight_bit"]:
        return ErrorCode.BAD_FORMAT, "a and w have different widths"
    for name, least, most in (("alpha", 1, 2**31 - 1), ("multiplier", 1, 255), ("shift", 0, 39)):
        if name in used and not least <= d[name] <= most:
            return ErrorCode.BAD_FORMAT, f"{name} is {d[name]}, legal are {least}..{most}"
    if d["opcode"] == Opcode.GEMM:
        cut = tiling.Tiling(d["a_group"], d["w_group"], d["k_tiles"])
        if not tiling.fits(config, cut, d["k"], 8 if d["a_eight_bit"] else 4):
            return ErrorCode.BAD_TILING, f"{cut} does not fit {config.bank_words} words a bank or K = {d['k']}"
    return ErrorCode.NONE, ""


def check_address(address: int, window: tuple[int, int]) -> tuple[ErrorCode, str]:
    """The same for the address that is pushed."""
    if address % HEADER_BYTES:
        return ErrorCode.MISALIGNED, f"descriptor at {address:#x} is not a multiple of {HEADER_BYTES}"
    if address < window[0] or address + DESCRIPTOR_BYTES - 1 > window[1]:
        return ErrorCode.OUT_OF_WINDOW, f"descriptor at {address:#x} leaves the window"
    return ErrorCode.NONE, ""
