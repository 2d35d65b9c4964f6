"""Reads the weights of a CTranslate2 `model.bin` (binary version 6) without CTranslate2.

Layout, little endian: u32 version, string spec, u32 revision, u32 count, then per variable string
name, u8 rank, u32[rank] shape, u8 element type, u32 bytes, data; then u32 count of aliases, each
string alias, string name. A string is a u16 length that counts the closing zero byte, and bytes.
Source: the writer in CTranslate2's `specs/model_spec.py` (MIT), described here, not copied.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ir.errors import DataError

ELEMENTS = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


@dataclass
class Reader:
    data: bytes
    at: int = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def string(self) -> str:
        return self.bytes(self.number("H"))[:-1].decode()

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]


def read(file: Path) -> dict[str, np.ndarray]:
    """Every variable by name, aliases included. Raises DataError for another format."""
    reader = Reader(file.read_bytes())
    version = reader.number("I")
    if version != 6:
        raise DataError(f"CTranslate2 binary version {version}, expected 6", at=str(file))
    reader.string()  # the spec's name
    reader.number("I")  # its revision
    variables = dict(_variable(reader) for _ in range(reader.number("I")))
    for _ in range(reader.number("I")):
        alias, name = reader.string(), reader.string()
        variables[alias] = variables[name]
    return variables


def _variable(reader: Reader) -> tuple[str, np.ndarray]:
    name = reader.string()
    shape = [reader.number("I") for _ in range(reader.number("B"))]
    element = reader.number("B")
    data = reader.bytes(reader.number("I"))
    if element not in ELEMENTS:
        raise DataError(f"CTranslate2 element type {element} is not known", at=name)
    return name, np.frombuffer(data, ELEMENTS[element]).reshape(shape)
