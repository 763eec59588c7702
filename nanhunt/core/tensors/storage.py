"""Which memory a tensor looks at: descent goes through views and in-place writes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from nanhunt.torch_private import local_part, storage_identity, stored_values


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


def memory_of(tensor: Tensor) -> Tensor:
    """A view of a tensor that has each element in memory once.

    An expanded tensor has one element in many places, one made by `unfold` too; torch refuses to
    write through these. Of a distributed tensor it is this process's part.
    """
    tensor = local_part(tensor).detach()
    if tensor.layout != torch.strided or tensor.numel() == 0:
        return tensor
    for dimension, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[dimension] > 1:
            tensor = tensor.narrow(dimension, 0, 1)
    extent = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride < extent:  # overlapping: the whole stretch of memory
            return tensor.as_strided((_span(tensor),), (1,))
        extent += (size - 1) * stride
    return tensor


def _span(tensor: Tensor) -> int:
    """Number of elements from a tensor's first one in memory to its last one."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum(int(size - 1) * int(stride) for size, stride in sizes)


class Storages:
    """Gives every storage a key that is never used again while this object lives.

    A weak reference keeps the small header of a freed storage alive (not its data), so that
    an address cannot come back for another tensor during an observation.
    """

    def __init__(self) -> None:
        self._refs: dict[int, StorageWeakRef] = {}

    def region(self, tensor: Tensor) -> Region | None:
        """The tensor's memory; None when it has none to speak of (meta, empty, opaque)."""
        tensor = local_part(tensor)
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
        return Region(key, start, start + _span(tensor) * tensor.itemsize)
