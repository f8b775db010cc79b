"""How a journal lies on the disk: records, of which a crash cuts short at most the last.

Each record is its length (8 bytes), the CRC-32 of what follows (4 bytes), and that. The first holds the mask as it
was at the beginning, every other one a change: which voxels, and their new values.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_MAGIC = b"MedCL journal 1\n"
_FRAME = struct.Struct("<QI")
_CHANGE = struct.Struct("<QB")
"""How many voxels have changed, and the bytes of each of their places."""
_LEVEL = 1


def first_bytes(mask: NDArray[Any], about: dict[str, Any]) -> bytes:
    """What a journal begins with.

    Args:
        mask: (Z, Y, X) or (Y, X) integers, in C order.
        about: What to say of it, as JSON values.
    """
    head = json.dumps({"dtype": mask.dtype.str, "shape": mask.shape, "about": about})
    return _MAGIC + _record(head.encode() + b"\n" + zlib.compress(mask.data, _LEVEL))


def change(places: NDArray[np.intp], values: NDArray[Any]) -> bytes:
    """The record of a change: ascending flat indices, as differences, and the new values there."""
    steps = np.diff(places, prepend=0)
    steps = steps.astype(np.min_scalar_type(int(steps.max())).newbyteorder("<"))
    return _record(zlib.compress(_CHANGE.pack(len(steps), steps.itemsize) + steps.tobytes() + values.tobytes(), _LEVEL))


def records(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """What each whole record holds and where it ends, up to the first that was cut short or damaged."""
    size, end = os.fstat(file.fileno()).st_size, len(_MAGIC)
    if file.read(end) != _MAGIC:
        return
    while len(frame := file.read(_FRAME.size)) == _FRAME.size:
        length, crc = _FRAME.unpack(frame)
        end += _FRAME.size + length
        # A power cut may leave zeros, and the CRC-32 of nothing is 0.
        if not length or end > size or zlib.crc32(payload := file.read(length)) != crc:
            return
        yield payload, end


def beginning(payload: bytes) -> tuple[dict[str, Any], NDArray[Any]]:
    """What the first record says of the mask, and the mask."""
    head, _, packed = payload.partition(b"\n")
    fields = json.loads(head)
    mask = np.frombuffer(zlib.decompress(packed), np.dtype(fields["dtype"])).reshape(fields["shape"])
    return fields["about"], mask


def apply(payload: bytes, mask: NDArray[Any]) -> None:
    """Makes the change of a record, in a mask in C order."""
    data = zlib.decompress(payload)
    count, width = _CHANGE.unpack_from(data)
    steps = np.frombuffer(data, f"<u{width}", count, _CHANGE.size)
    values = np.frombuffer(data, mask.dtype, count, _CHANGE.size + steps.nbytes)
    mask.reshape(-1)[np.cumsum(steps, dtype=np.intp)] = values


def _record(payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
