"""QType: what the codes of a quantized tensor mean. It reads like its formula.

    element @ block * scale [* scale of the scales] [+ zero]

`i8@0*f32` one scale for the tensor, `i8@0x1*f32` one per column, `i4@128x1*f16+u4` groups of 128
rows with zero points, `e2m1@16x1*e4m3*f32` NVFP4. A block has one number per axis, 0 meaning the
whole axis; the lone `@0` means the whole tensor, whatever its rank. Integers have 2 to 8 bits, or
16 or 32; those that ONNX has no type for lie in the next wider one (`container`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from . import elements
from .errors import PipelineError

_FORM = re.compile(
    r"(?P<element>[a-z]+[a-z0-9.]*)@(?P<block>\d+(?:x\d+)*)"
    r"(?P<scales>(?:\*[a-z]+[0-9a-z]*)+)(?:\+(?P<zero>[a-z]+\d+))?"
)
_INTEGER = re.compile(r"([iu])(\d+)")
_STORED = (2, 4, 8, 16, 32)
"""Bits of the integers that ONNX has types for."""


def container(element: str) -> str:
    """The narrowest integer type of ONNX that holds an integer element: i4 for i3, i8 for i6.

    Raises PipelineError for other elements, and between 8 bits and 16: nobody computes with those.
    """
    found = _INTEGER.fullmatch(element)
    bits = int(found[2]) if found is not None else 0
    if found is None or not (2 <= bits <= 8 or bits in _STORED):
        raise PipelineError(
            f"element '{element}' has no ONNX integer type",
            hint="use i or u with 2 to 8 bits, 16 or 32",
        )
    return f"{found[1]}{next(size for size in _STORED if size >= bits)}"


@dataclass(frozen=True)
class QType:
    """Element, block, scale types (outermost last) and zero-point type (None: symmetric)."""

    element: str
    block: tuple[int, ...] = (0,)
    scales: tuple[str, ...] = ("f32",)
    zero: str | None = None

    @staticmethod
    def parse(text: str) -> QType:
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise PipelineError(
                f"'{text}' is not a QType",
                hint="write element@block*scale[+zero], for example i8@0*f32 or i4@128x1*f16+u4",
            )
        block = tuple(int(size) for size in found["block"].split("x"))
        scales = tuple(found["scales"][1:].split("*"))
        return QType(found["element"], block, scales, found["zero"])

    def __str__(self) -> str:
        block = "x".join(map(str, self.block))
        zero = f"+{self.zero}" if self.zero else ""
        return f"{self.element}@{block}*{'*'.join(self.scales)}{zero}"

    @property
    def integer(self) -> bool:
        """Whether the element is a plain two's complement or unsigned integer."""
        return _INTEGER.fullmatch(self.element) is not None

    @property
    def signed(self) -> bool:
        return self.element.startswith("i")

    @property
    def bits(self) -> int:
        """Bits of one code. Raises PipelineError for elements that are not known."""
        found = _INTEGER.fullmatch(self.element)
        if found is not None:
            return int(found[2])
        table = elements.element(self.element)
        if table is None:
            raise PipelineError(f"element '{self.element}' is not known")
        return table.bits

    @property
    def container(self) -> str:
        """The ONNX integer type that holds the codes: i8 of i6, u4 of e2m1."""
        return container(self.element if self.integer else f"u{self.bits}")

    @property
    def narrow(self) -> bool:
        """Whether codes end before the type that stores them does, as those of i6 in i8."""
        return self.container != self.element

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest code of an integer element."""
        if not self.integer:
            raise PipelineError(
                f"'{self.element}' is not an integer element", hint="use i or u, such as i4"
            )
        bits = self.bits
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if self.signed else (0, (1 << bits) - 1)

    @property
    def per_tensor(self) -> bool:
        return self.block == (0,)

    @property
    def axis(self) -> int | None:
        """The one axis that has a scale for every index, when all others are whole; else None."""
        ones = [i for i, size in enumerate(self.block) if size == 1]
        whole = sum(size == 0 for size in self.block)
        alone = len(ones) == 1 and whole == len(self.block) - 1
        return ones[0] if alone else None

    @property
    def blocked_axis(self) -> int | None:
        """The one axis cut into blocks (size > 1) when every other axis has block 1; else None."""
        cut = [i for i, size in enumerate(self.block) if size > 1]
        ones = sum(size == 1 for size in self.block)
        return cut[0] if len(cut) == 1 and ones == len(self.block) - 1 else None

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the scale of a tensor of `shape`: ceil(dim / block) per axis, `()` per
        tensor."""
        if self.per_tensor:
            return ()
        if len(shape) != len(self.block):
            raise PipelineError(
                f"QType {self} has {len(self.block)} axes, the tensor has {len(shape)}",
                hint="give the block one number per axis, or a lone 0 for the whole tensor",
            )
        return tuple(1 if b == 0 else -(-d // b) for d, b in zip(shape, self.block, strict=True))

    def at_rank(self, rank: int, axis: int) -> QType:
        """The same element with one scale per index of `axis` of a tensor of `rank` axes."""
        return replace(self, block=tuple(1 if i == axis else 0 for i in range(rank)))
