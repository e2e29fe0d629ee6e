"""LT-OAQ with the golden model beside it: every result is compared bit for bit."""

from collections.abc import Callable
from typing import Any, overload

import numpy as np
from nibblecore.sim.formats.quantizer_parameters import QuantizerParameters
from nibblecore.sim.formats.tensor import OaqTensor
from nibblecore.sim.golden.ltoaq import top as golden
from nibblecore.sim.host.checked import Checked, Mismatch
from numpy.typing import NDArray

from .accelerator import LtoaqAccelerator, RawHandle, TensorHandle

__all__ = ["CheckedAccelerator"]

_OUTLIER = 256


class CheckedAccelerator(Checked[LtoaqAccelerator]):
    """Runs commands on an accelerator and, with `check`, the same on the golden model, from the same inputs.

    Raises `Mismatch` at the first difference. `operation`, the first argument of every command, names it in messages.

    Parameters
    ----------
    accelerator : LtoaqAccelerator
        Closed at the end of a ``with``.
    check : bool

    Members
    -------
    accelerator : LtoaqAccelerator
    place : str
        Where in the computation the next command belongs, for messages.
    comparisons : int
        Numbers compared so far: elements, statistics and sums.
    """

    def __init__(self, accelerator: LtoaqAccelerator, check: bool = True) -> None:
        super().__init__(accelerator, check)
        self._expected: dict[TensorHandle | RawHandle, Any] = {}

    @property
    def memory_size(self) -> int:
        return self.accelerator.memory_size

    def free(self) -> None:
        self.accelerator.free()
        self._expected = {
            handle: what for handle, what in self._expected.items() if isinstance(handle, RawHandle) and handle.reserved
        }

    def upload(self, tensor: OaqTensor) -> TensorHandle:
        handle = self.accelerator.upload(tensor)
        self._expected[handle] = tensor
        return handle

    def upload_raw(self, matrix: NDArray[np.int32]) -> RawHandle:
        handle = self.accelerator.upload_raw(matrix)
        self._expected[handle] = matrix
        return handle

    def reserve_raw(self, shape: tuple[int, int]) -> RawHandle:
        handle = self.accelerator.reserve_raw(shape)
        self.free()
        return handle

    def store_raw(self, handle: RawHandle, matrix: NDArray[np.int32]) -> None:
        self.accelerator.store_raw(handle, matrix)
        self._expected[handle] = matrix

    @overload
    def download(self, handle: TensorHandle) -> OaqTensor: ...
    @overload
    def download(self, handle: RawHandle) -> NDArray[np.int32]: ...
    def download(self, handle: TensorHandle | RawHandle) -> OaqTensor | NDArray[np.int32]:
        return self._expected[handle] if handle in self._expected else self.accelerator.download(handle)

    def download_later(self, handle: RawHandle) -> Callable[[], NDArray[np.int32]]:
        found = self._expected.get(handle)
        return self.accelerator.download_later(handle) if found is None else lambda: found

    @overload
    def gemm(
        self, operation: str, a: TensorHandle, w: TensorHandle, *, a_transposed: bool = ..., w_transposed: bool = ...
    ) -> RawHandle: ...
    @overload
    def gemm(
        self,
        operation: str,
        a: TensorHandle,
        w: TensorHandle,
        *,
        a_transposed: bool = ...,
        w_transposed: bool = ...,
        quantizer: QuantizerParameters,
    ) -> TensorHandle: ...
    def gemm(
        self,
        operation: str,
        a: TensorHandle,
        w: TensorHandle,
        *,
        a_transposed: bool = False,
        w_transposed: bool = False,
        quantizer: QuantizerParameters | None = None,
    ) -> TensorHandle | RawHandle:
        """The 32-bit product or, with `quantizer`, its tensor; whether it overflowed is compared, too."""
        turned = {"a_transposed": a_transposed, "w_transposed": w_transposed}
        result = (
            self.accelerator.gemm(a, w, **turned)
            if quantizer is None
            else self.accelerator.gemm(a, w, **turned, quantizer=quantizer)
        )
        if self.check:
            product, overflow = golden.gemm(self._expected[a], self._expected[w], self.accelerator.config, **turned)
            self.fact(operation, "the overflow flag", result.overflow, overflow)
            if isinstance(result, RawHandle):
                self.elements(operation, self.accelerator.download(result), product)
                self._expected[result] = product
            elif quantizer is not None:
                self._compare_tensor(operation, result, product, quantizer)
        return result

    def quantize(self, operation: str, raw: RawHandle, quantizer: QuantizerParameters) -> TensorHandle:
        handle = self.accelerator.quantize(raw, quantizer)
        if self.check:
            self._compare_tensor(operation, handle, self._expected[raw], quantizer)
        return handle

    def threshold_grad(self, operation: str, raw: RawHandle, gradient: RawHandle, quantizer: QuantizerParameters) -> int:
        total = self.accelerator.threshold_grad(raw, gradient, quantizer)
        if self.check:
            expected = golden.threshold_gradient(self._expected[raw], self._expected[gradient], quantizer)
            self.number(operation, "the sum", total, expected)
        return total

    def _compare_tensor(
        self, operation: str, handle: TensorHandle, words: NDArray[np.int32], quantizer: QuantizerParameters
    ) -> None:
        """Codes, outliers and statistics of the tensor that `words` are quantized to."""
        expected, statistics = golden.quantize(words, quantizer)
        try:
            got = self.accelerator.download(handle)
        except ValueError as error:
            raise Mismatch(f"{self.where(operation)}the tensor in memory is malformed: {error}") from error
        elements = [tensor.codes + _OUTLIER * tensor.outlier.astype(np.uint16) for tensor in (got, expected)]
        self.elements(operation, elements[0], elements[1], _code)
        for name, value in statistics._asdict().items():
            self.number(operation, name, getattr(handle.statistics, name), value)
        self._expected[handle] = expected


def _code(element: int) -> str:
    return f"{'outlier' if element & _OUTLIER else 'normal'} code {element % _OUTLIER}"
