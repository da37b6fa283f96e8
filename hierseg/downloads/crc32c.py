"""CRC-32C (Castagnoli; RFC 3720, appendix B.4), vectorised over numpy.

It is the only checksum that Google Cloud Storage publishes of files that were uploaded in parts.

A register that starts at zero is linear in the data: a chunk is cut into lanes of equal length, all lanes are
advanced together byte by byte, and neighbours are joined pairwise, the left one shifted by the length of the
right one. Leading zeros leave a zero register alone, so a chunk is padded on its left.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Registers: TypeAlias = npt.NDArray[np.uint32]

POLYNOMIAL = np.uint32(0x82F63B78)  # bits reversed
ALL_ONES = 0xFFFFFFFF
LANE_BITS = 6  # a lane is 64 bytes long


def _table() -> Registers:
    """(256,) the register after each byte."""
    registers = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        registers = (registers >> np.uint32(1)) ^ (POLYNOMIAL * (registers & np.uint32(1)))
    return registers


def _apply(columns: Registers, registers: Registers) -> Registers:
    """A linear map, given by its images of the 32 single bits, applied to registers of any shape."""
    result = np.zeros_like(registers)
    for bit in range(32):
        result ^= columns[bit] * ((registers >> np.uint32(bit)) & np.uint32(1))
    return result


def _shifts(count: int) -> list[Registers]:
    """The maps "2^i zero bytes come after", i < count."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    shifts = [TABLE[bits & np.uint32(0xFF)] ^ (bits >> np.uint32(8))]
    while len(shifts) < count:
        shifts.append(_apply(shifts[-1], shifts[-1]))
    return shifts


TABLE = _table()
SHIFTS = _shifts(32)


class Crc32c:
    """A running checksum with the interface of ``hashlib``'s.

    Example:
        >>> checksum = Crc32c()
        >>> checksum.update(b'123456789')
        >>> checksum.digest().hex()
        'e3069283'
    """

    def __init__(self) -> None:
        self._register: Registers = np.full(1, ALL_ONES, dtype=np.uint32)

    def update(self, data: bytes, /) -> None:
        """Takes more data, less than 4 GiB at once."""
        for power, shift in enumerate(SHIFTS):
            if len(data) >> power & 1:
                self._register = _apply(shift, self._register)
        self._register = self._register ^ _of_zero_register(data)

    def digest(self) -> bytes:
        """Four bytes, the most significant first."""
        return int(self._register[0] ^ np.uint32(ALL_ONES)).to_bytes(4, 'big')


def _of_zero_register(data: bytes) -> Registers:
    """(1,) the register that starts at zero and has seen the data."""
    lanes = max(1, -(-len(data) // (1 << LANE_BITS)))
    lanes = 1 << (lanes - 1).bit_length()
    padded = np.zeros(lanes << LANE_BITS, dtype=np.uint8)
    padded[len(padded) - len(data) :] = np.frombuffer(data, dtype=np.uint8)
    registers: Registers = np.zeros(lanes, dtype=np.uint32)
    for column in np.ascontiguousarray(padded.reshape(lanes, -1).T):
        registers = TABLE[(registers ^ column) & np.uint32(0xFF)] ^ (registers >> np.uint32(8))
    for shift in SHIFTS[LANE_BITS:]:
        if len(registers) == 1:
            break
        registers = _apply(shift, registers[::2]) ^ registers[1::2]
    return registers
