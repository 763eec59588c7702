"""Which memory a tensor looks at: descent goes through views and in-place writes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from nanhunt.torch_private import storage_identity, stored_values


class Region(NamedTuple):
    """A range of bytes in one storage: `[start, end)` of the storage with this key."""

    key: int
    start: int
    end: int

    def overlaps(self, other: Region) -> bool:
        """Whether the two share a byte (strided views are taken as their whole extent)."""
        return self.key == other.key and self.start < other.end and other.start < self.end

    def covers(self, other: Region) -> bool:
        """Whether `other` lies inside this one."""
        return self.key == other.key and self.start <= other.start and other.end <= self.end


class Storages:
    """Gives every storage a key that is never used again while this object lives.

    A weak reference keeps the small header of a freed storage alive (not its data), so that
    an address cannot come back for another tensor during an observation.
    """

    def __init__(self) -> None:
        self._refs: dict[int, StorageWeakRef] = {}

    def region(self, tensor: Tensor) -> Region | None:
        """The tensor's memory; None when it has none to speak of (meta, empty, opaque)."""
        if tensor.is_sparse:
            tensor = stored_values(tensor)
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return None
        key = storage_identity(storage)
        if key not in self._refs:
            self._refs[key] = StorageWeakRef(storage)
        start = int(tensor.storage_offset()) * tensor.itemsize
        if tensor.numel() == 0:
            return None
        last = sum(
            int(size - 1) * int(stride)
            for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        )
        return Region(key, start, start + (last + 1) * tensor.itemsize)
