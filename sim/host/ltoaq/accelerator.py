"""The driver: tensors and matrix products on an LT-OAQ accelerator, over any transport."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from nibblecore.hdl.config import LtoaqConfig
from nibblecore.hdl.ltoaq.command.descriptor import DESCRIPTOR_BYTES, HEADER_BYTES, Opcode, pack
from nibblecore.hdl.ltoaq.command.errors import ErrorCode
from nibblecore.hdl.ltoaq.registers import ID, REGISTERS, config_words
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor, PackedTensor, tiles
from nibblecore.sim.golden.ltoaq.top import Statistics
from nibblecore.sim.host.accelerator import Accelerator, AcceleratorError
from nibblecore.sim.host.transport import Transport, perform, read_later
from numpy.typing import NDArray

from . import tiling
from .functional import FunctionalTransport

__all__ = ["AcceleratorError", "LtoaqAccelerator", "RawHandle", "TensorHandle"]

_RESERVED = -1
"""Generation of what `free` leaves alone."""
_POLLS = 100_000
"""Reads of STATUS until a bus counts as silent."""


@dataclass(frozen=True, eq=False)
class TensorHandle:
    """An OAQ tensor in the accelerator's memory.

    `statistics` is None for tensors that the host encoded, and `run_beats`, of the header, where the driver has not read it.
    """

    shape: tuple[int, int]
    bits: int
    signed: bool
    threshold: int
    k: int
    header: int
    codes: int
    runs: int
    run_stride: int
    generation: int
    statistics: Statistics | None = None
    overflow: bool = False
    run_beats: int | None = None


@dataclass(frozen=True, eq=False)
class RawHandle:
    """A matrix of 32-bit integers in the accelerator's memory. `overflow`: an accumulator wrapped while it was computed."""

    shape: tuple[int, int]
    address: int
    pitch: int
    generation: int
    overflow: bool = False

    @property
    def reserved(self) -> bool:
        """Whether it is valid for as long as the accelerator is."""
        return self.generation == _RESERVED


class LtoaqAccelerator(Accelerator[LtoaqConfig]):
    """One accelerator and its memory.

    Memory is handed out from the bottom and taken back all at once by `free` and `reset`; handles from before are refused, but for those of
    `reserve_raw`. Commands run one at a time, each to its end; one that is abandoned raises `AcceleratorError`.

    Parameters and the members that every driver has: `nibblecore.sim.host.accelerator.Accelerator`. Counters are ``done`` and
    ``abandoned``, commands, ``cycles``, ``array_cycles``, ``load_stalls`` and ``output_stalls``.
    """

    REGISTERS = REGISTERS
    NUMBER = ID
    COUNTERS = ("DONE", "ABANDONED", "CYCLES", "ARRAY_CYCLES", "LOAD_STALLS", "OUTPUT_STALLS")

    _generation = 0
    _base = 0

    @staticmethod
    def _functional(config: LtoaqConfig, memory_size: int) -> Transport:
        return FunctionalTransport(config, memory_size)

    @staticmethod
    def _config_words(config: LtoaqConfig) -> tuple[int, ...]:
        return config_words(config)

    def _prepare(self) -> None:
        self._write("WINDOW_BASE", 0)
        self._write("WINDOW_LAST", self.memory_size - 1)
        self._write("CONTROL", REGISTERS["CONTROL"].pack(clear_error=1))
        self._write("IRQ_STATUS", REGISTERS["IRQ_STATUS"].mask)
        self._write("IRQ_ENABLE", REGISTERS["IRQ_ENABLE"].mask)
        self.free()

    def _stop(self) -> None:
        if REGISTERS["STATUS"].unpack(self._read("STATUS"))["busy"]:
            self._drop("what another driver left")

    def _drop(self, what: str) -> None:
        self._write("CONTROL", REGISTERS["CONTROL"].pack(soft_reset=1))
        if not any(not REGISTERS["STATUS"].unpack(self._read("STATUS"))["busy"] for _ in range(_POLLS)):
            raise TimeoutError(f"{what} was given up, but the bus does not answer; the accelerator needs a reset")

    def free(self) -> None:
        """Take back all memory that is not reserved; every other handle given out so far becomes invalid."""
        self._generation += 1
        self._top = self._base
        self._descriptor = self.allocate(DESCRIPTOR_BYTES)
        self._scratch_header = self.allocate(HEADER_BYTES)

    def allocate(self, size: int) -> int:
        """Address of `size` fresh bytes, aligned for any use. Raises MemoryError if there are not so many left."""
        address = self._top
        step = max(HEADER_BYTES, self.config.bus_bytes)
        top = address + -(-size // step) * step
        if top > self.memory_size:
            left = self.memory_size - address
            raise MemoryError(f"{size} bytes wanted, {left} of {self.memory_size} left; free() or take a larger memory_size")
        self._top = top
        return address

    def upload(self, tensor: OaqTensor) -> TensorHandle:
        """Store a tensor encoded by the host."""
        packed = tensor.pack(self.config)
        placed = self._place(tensor.shape, tensor.bits, tensor.signed, tensor.threshold, tensor.k, packed.run_beats)
        handle = replace(placed, run_beats=packed.run_beats)
        self.write_memory(handle.codes, packed.codes)
        self.write_memory(handle.runs, packed.runs)
        self.write_memory(handle.header, struct.pack("<8I", packed.run_beats, *[0] * 7))
        return handle

    def upload_raw(self, matrix: NDArray[np.int32]) -> RawHandle:
        """Store a matrix of 32-bit integers."""
        if matrix.ndim != 2 or matrix.dtype != np.int32:
            raise ValueError(f"a raw matrix must be a 2-D int32 array, not {matrix.ndim}-D {matrix.dtype}")
        handle = self._place_raw((matrix.shape[0], matrix.shape[1]))
        self.store_raw(handle, matrix)
        return handle

    def reserve_raw(self, shape: tuple[int, int]) -> RawHandle:
        """Room for a matrix that `free` and `reset` leave alone; to be filled by `store_raw`. Frees all else."""
        self._top = self._base
        try:
            handle = self._place_raw(shape)
            self._base = self._top
        finally:
            self.free()
        return replace(handle, generation=_RESERVED)

    def store_raw(self, handle: RawHandle, matrix: NDArray[np.int32]) -> None:
        """Put other integers where a matrix lies."""
        self._check_generation(handle)
        if matrix.shape != handle.shape or matrix.dtype != np.int32:
            raise ValueError(f"{_describe(handle)} cannot hold a {matrix.shape} array of {matrix.dtype}")
        rows, cols = handle.shape
        padded = np.zeros((rows, handle.pitch // 4), "<i4")
        padded[:, :cols] = matrix
        self.write_memory(handle.address, padded.tobytes())

    def download_later(self, handle: RawHandle) -> Callable[[], NDArray[np.int32]]:
        """`download` of a matrix that need not be there at once: what is returned returns it; it must not be freed or changed before."""
        self._check_generation(handle)
        rows, cols = handle.shape
        taken = read_later(self.transport, handle.address, rows * handle.pitch)
        return lambda: np.frombuffer(taken(), "<i4").reshape(rows, handle.pitch // 4)[:, :cols].astype(np.int32)

    @overload
    def download(self, handle: TensorHandle) -> OaqTensor: ...
    @overload
    def download(self, handle: RawHandle) -> NDArray[np.int32]: ...
    def download(self, handle: TensorHandle | RawHandle) -> OaqTensor | NDArray[np.int32]:
        """What lies behind a handle. Raises ValueError if a tensor in memory is malformed."""
        self._check_generation(handle)
        if isinstance(handle, RawHandle):
            return self.download_later(handle)()
        count = _tile_count(handle.shape, self.config)
        known = handle.run_beats
        if known is None:
            known = int.from_bytes(self.read_memory(handle.header, 4), "little")
        stride, size = (beats * self.config.bus_bytes for beats in (handle.run_stride, min(known, handle.run_stride)))
        codes, header, *runs = perform(
            self.transport,
            ("read_memory", handle.codes, count * self.config.tile_beats(handle.bits) * self.config.bus_bytes),
            ("read_memory", handle.header, 4),
            # Most of the room for a tile's run lengths is empty.
            *(("read_memory", handle.runs + tile * stride, size) for tile in range(count)),
        )
        if (run_beats := int.from_bytes(header, "little")) != known or known > handle.run_stride:
            raise ValueError(
                f"the header says {run_beats} beats of run lengths; it said {known}, and there is room for {handle.run_stride}"
            )
        packed = PackedTensor(codes, b"".join(runs), run_beats)
        return OaqTensor.unpack(
            self.config,
            handle.shape,
            packed,
            run_beats,
            bits=handle.bits,
            signed=handle.signed,
            threshold=handle.threshold,
            k=handle.k,
        )

    @overload
    def gemm(self, a: TensorHandle, w: TensorHandle, *, a_transposed: bool = ..., w_transposed: bool = ...) -> RawHandle: ...
    @overload
    def gemm(
        self,
        a: TensorHandle,
        w: TensorHandle,
        *,
        a_transposed: bool = ...,
        w_transposed: bool = ...,
        quantizer: QuantizerParameters,
    ) -> TensorHandle: ...
    def gemm(
        self,
        a: TensorHandle,
        w: TensorHandle,
        *,
        a_transposed: bool = False,
        w_transposed: bool = False,
        quantizer: QuantizerParameters | None = None,
    ) -> TensorHandle | RawHandle:
        """C = A·Wᵀ, as 32-bit integers or, with `quantizer`, as an OAQ tensor.

        A is stored M×K, or K×M when `a_transposed`; W is stored N×K, or K×N when `w_transposed`.
        """
        m, k = a.shape[::-1] if a_transposed else a.shape
        n, w_k = w.shape[::-1] if w_transposed else w.shape
        if k != w_k or a.bits != w.bits:
            raise ValueError(
                f"cannot multiply {_describe(a)} with {_describe(w)} (a_transposed={a_transposed}, w_transposed={w_transposed})"
            )
        cut = tiling.choose(self.config, m, n, k, a.bits)
        fields = {
            "opcode": Opcode.GEMM,
            "a_transposed": a_transposed,
            "w_transposed": w_transposed,
            "m": m,
            "n": n,
            "k": k,
            **cut._asdict(),
            **self._operand("a", a),
            **self._operand("w", w),
        }
        what = f"GEMM of {_describe(a)} and {_describe(w)}"
        if quantizer is None:
            raw = self._place_raw((m, n))
            overflow, _ = self._run({**fields, "raw_output": 1, "raw0_address": raw.address, "raw0_pitch": raw.pitch}, what)
            return replace(raw, overflow=overflow)
        return self._run_to_tensor(fields, (m, n), quantizer, what)

    def quantize(self, raw: RawHandle, quantizer: QuantizerParameters) -> TensorHandle:
        """The OAQ tensor of a 32-bit matrix; the handle carries the statistics."""
        rows, cols = raw.shape
        fields = {"opcode": Opcode.QUANTIZE, "m": rows, "n": cols, **self._matrix("raw0", raw)}
        return self._run_to_tensor(fields, raw.shape, quantizer, f"QUANTIZE of {_describe(raw)} to {quantizer.bits} bits")

    def threshold_grad(self, raw: RawHandle, gradient: RawHandle, quantizer: QuantizerParameters) -> int:
        """The signed 64-bit sum of the threshold's gradient; times (unit of `gradient`) / (256·Qmax) it is ∂L/∂α."""
        if raw.shape != gradient.shape:
            raise ValueError(f"{_describe(raw)} and its gradient, {_describe(gradient)}, differ in shape")
        fields = {
            "opcode": Opcode.THRESHOLD_GRAD,
            "m": raw.shape[0],
            "n": raw.shape[1],
            "out_header": self._scratch_header,
            **self._matrix("raw0", raw),
            **self._matrix("raw1", gradient),
            **_quantizer_fields(quantizer),
        }
        _, found = self._run(fields, f"THRESHOLD_GRAD of {_describe(raw)}", self._scratch_header + 16, 8)
        (total,) = struct.unpack("<q", found)
        return total

    def _check_generation(self, handle: TensorHandle | RawHandle) -> None:
        if handle.generation not in (self._generation, _RESERVED):
            raise ValueError(f"{_describe(handle)} was freed")

    def _place(self, shape: tuple[int, int], bits: int, signed: bool, threshold: int, k: int, run_stride: int) -> TensorHandle:
        count = _tile_count(shape, self.config)
        header = self.allocate(HEADER_BYTES)
        codes = self.allocate(count * self.config.tile_beats(bits) * self.config.bus_bytes)
        runs = self.allocate(count * run_stride * self.config.bus_bytes)
        return TensorHandle(shape, bits, signed, threshold, k, header, codes, runs, run_stride, self._generation)

    def _place_raw(self, shape: tuple[int, int]) -> RawHandle:
        pitch = -(-4 * shape[1] // self.config.bus_bytes) * self.config.bus_bytes
        return RawHandle(shape, self.allocate(shape[0] * pitch), pitch, self._generation)

    def _operand(self, name: str, t: TensorHandle) -> dict[str, int]:
        self._check_generation(t)
        return {
            f"{name}_eight_bit": t.bits == 8,
            f"{name}_signed": t.signed,
            f"{name}_k": t.k,
            f"{name}_threshold": t.threshold,
            f"{name}_header": t.header,
            f"{name}_codes": t.codes,
            f"{name}_runs": t.runs,
            f"{name}_run_stride": t.run_stride,
        }

    def _matrix(self, name: str, raw: RawHandle) -> dict[str, int]:
        self._check_generation(raw)
        return {f"{name}_address": raw.address, f"{name}_pitch": raw.pitch}

    def _run_to_tensor(
        self, fields: Mapping[str, int], shape: tuple[int, int], quantizer: QuantizerParameters, what: str
    ) -> TensorHandle:
        # Room for a tile of nothing but outliers, so that no output can outgrow it.
        q = quantizer
        out = self._place(shape, q.bits, q.signed, q.threshold, q.k, self.config.max_run_beats)
        _, found = self._run({**fields, **self._operand("out", out), **_quantizer_fields(q)}, what, out.header, HEADER_BYTES)
        header = struct.unpack("<8I", found)
        return replace(out, run_beats=header[0], statistics=Statistics(*header[1:4]), overflow=bool(header[6] & 1))

    def _run(self, fields: Mapping[str, int], what: str, address: int = 0, size: int = 0) -> tuple[bool, bytes]:
        """Run one command to its end; returns whether an accumulator overflowed, and some bytes of memory as they are then."""
        calls = [
            ("write_memory", self._descriptor, pack(**fields, interrupt=1)),
            *self._writes(IRQ_STATUS=REGISTERS["IRQ_STATUS"].mask, PUSH=self._descriptor),
            ("wait", self.timeout_cycles),
            *self._reads("STATUS", *self.COUNTERS),
            ("read_memory", address, size),
        ]
        try:
            *_, found = answers = perform(self.transport, *calls)
        except TimeoutError as error:
            status = REGISTERS["STATUS"].unpack(self._read("STATUS"))
            self._abandon(what)
            raise TimeoutError(f"{what} did not end within {self.timeout_cycles} cycles; STATUS {status}") from error
        word, *counts = answers[-2 - len(self.COUNTERS) : -1]
        status = REGISTERS["STATUS"].unpack(word)
        if status["error"]:
            code = ErrorCode(REGISTERS["ERROR"].unpack(self._read("ERROR"))["code"])
            self._abandon(what)
            raise AcceleratorError(code, what)
        if status["overflow"]:
            self._write("CONTROL", REGISTERS["CONTROL"].pack(clear_error=1))
        self._count(self._named(counts))
        return bool(status["overflow"]), found

    def _abandon(self, what: str) -> None:
        """Have the command at work dropped, if there is one; raises TimeoutError if it does not let go of the bus."""
        self._drop(what)
        # Only now: the command may have ended by itself meanwhile.
        self._write("CONTROL", REGISTERS["CONTROL"].pack(clear_error=1))
        self._write("IRQ_STATUS", REGISTERS["IRQ_STATUS"].mask)
        self._count()


def _tile_count(shape: tuple[int, int], config: LtoaqConfig) -> int:
    rows, cols = tiles(shape, config)
    return rows * cols


def _quantizer_fields(q: QuantizerParameters) -> dict[str, int]:
    return {
        "out_eight_bit": q.bits == 8,
        "out_signed": q.signed,
        "out_k": q.k,
        "out_threshold": q.threshold,
        "relu": q.relu,
        "alpha": q.alpha,
        "multiplier": q.multiplier,
        "shift": q.shift,
    }


def _describe(handle: TensorHandle | RawHandle) -> str:
    rows, cols = handle.shape
    if isinstance(handle, RawHandle):
        return f"a {rows}×{cols} 32-bit matrix at {handle.address:#x}"
    sign = "signed" if handle.signed else "unsigned"
    return f"a {rows}×{cols} tensor of {handle.bits}-bit {sign} codes at {handle.codes:#x}"
