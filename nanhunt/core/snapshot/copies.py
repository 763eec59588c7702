"""Copies of tensors that a step may write, made as late and as seldom as is safe.

A tensor is copied at the start of a step if it has been seen to change in place before;
otherwise only its version counter is noted (PyTorch bumps it on every in-place write), and
should it change after all, the snapshot says that it is incomplete.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable

import torch
from torch import Tensor

from nanhunt.core.tensors.stats import is_lazy, same_bits
from nanhunt.core.tensors.storage import memory_of
from nanhunt.torch_private import copy_all, is_wrapper, local_part, version

_SMALL = 1 << 16  # bytes; below this a copy costs no more than the bookkeeping to avoid it

_LARGE = 1 << 26  # bytes; a tensor of the user's that is larger is taken for a data set


class NoMemoryError(Exception):
    """There is no room for a copy."""


@dataclasses.dataclass
class _Entry:
    tensor: Tensor
    copy: Tensor | None
    version: int | None
    written: bool = True  # until a step has shown otherwise
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()

    def rebuilt(self) -> Tensor:
        """A tensor of its own like the one that was copied; of a copy there must be one."""
        assert self.copy is not None
        fresh = self.copy.clone()
        if fresh.shape == self.shape:
            return fresh
        if fresh.dim() == len(self.shape):
            return fresh.expand(self.shape)
        return fresh.as_strided(self.shape, self.strides)


class Copies:
    """A set of tensors and, where needed, a copy of each; storage of copies is reused."""

    def __init__(self, check_writes: bool) -> None:
        self._check_writes = check_writes
        self._newcomers_written = True
        self._entries: dict[int, _Entry] = {}
        self._first = True
        self.lost: list[str] = []

    def __len__(self) -> int:
        return sum(entry.copy is not None for entry in self._entries.values())

    def __contains__(self, tensor: Tensor) -> bool:
        """Whether there is a copy of this very tensor."""
        entry = self._entries.get(id(tensor))
        return entry is not None and entry.tensor is tensor and entry.copy is not None

    @property
    def nbytes(self) -> int:
        """Bytes held in copies."""
        return sum(_nbytes(e.copy) for e in self._entries.values() if e.copy is not None)

    @torch.no_grad()
    def take(self, tensors: Iterable[Tensor], unlikely: Iterable[Tensor] = ()) -> None:
        """Copies the current values of tensors, or notes their versions.

        Args:
            tensors: what the step may write.
            unlikely: tensors within its reach, most probably data: large ones are not copied.

        Raises:
            NoMemoryError: the copies do not fit.
        """
        before, self._entries = self._entries, {}
        live: list[Tensor] = []
        shadow: list[Tensor] = []
        self.lost = []
        data = {id(tensor) for tensor in unlikely}
        for tensor in (*tensors, *unlikely):
            entry = before.get(id(tensor))
            if entry is None or entry.tensor is not tensor:
                presumed = id(tensor) not in data or _nbytes(tensor) < _LARGE
                entry = _Entry(tensor, None, None, self._newcomers_written and presumed)
            if id(tensor) in self._entries or _uncopyable(tensor):
                continue
            self._entries[id(tensor)] = entry
            entry.version = _version(tensor)
            if self._check_writes and not entry.written and _nbytes(tensor) > _SMALL:
                entry.copy = None
                continue
            memory = memory_of(tensor)
            if entry.copy is None or not _same_layout(entry.copy, memory):
                entry.copy = _clone(memory)
            elif is_wrapper(memory):  # few of them know operations on lists
                entry.copy.copy_(memory)
            else:
                live.append(memory)
                shadow.append(entry.copy)
            entry.shape, entry.strides = local_part(tensor).shape, _strides(tensor)
        if live:
            copy_all(shadow, live)

    def settle(self) -> None:
        """Learns at the end of a step which tensors it wrote."""
        any_changed = False
        for entry in self._entries.values():
            changed = entry.version is None or _version(entry.tensor) != entry.version
            if self._first and entry.copy is not None and not changed:
                # `.data` writes leave the version alone: compare the bits, once.
                changed = not same_bits(memory_of(entry.tensor), entry.copy)
            if changed and entry.copy is None:
                self.lost.append(str(tuple(local_part(entry.tensor).shape)))
            entry.written = changed or (entry.written and not self._first)
            any_changed |= changed
        if self._entries:
            # Gradients are new tensors in every step: they behave as those of this step did.
            self._newcomers_written = any_changed
            self._first = False

    @torch.no_grad()
    def restore(self) -> None:
        """Writes the copies back."""
        for entry in self._entries.values():
            if entry.copy is None or is_lazy(entry.tensor):  # it got its size in the step
                continue
            memory = memory_of(entry.tensor)
            part = local_part(entry.tensor)
            if _same_layout(entry.copy, memory) and part.shape == entry.shape:
                memory.copy_(entry.copy)
            else:
                part.data = entry.rebuilt()

    def forget(self) -> None:
        """Lets go of every tensor and copy."""
        self._entries = {}
        self._first = True


def check_room(tensors: Iterable[Tensor], share: float = 0.8) -> None:
    """Asks before the first copy whether it will fit into a share of the free memory.

    Raises:
        NoMemoryError: with the number of bytes wanted and free.
    """
    wanted: dict[torch.device, int] = {}
    for tensor in tensors:
        if _uncopyable(tensor):
            continue
        wanted[tensor.device] = wanted.get(tensor.device, 0) + _nbytes(tensor)
    for device, need in wanted.items():
        free = _free_bytes(device)
        if free is not None and need > share * free:
            raise NoMemoryError(
                f"a copy needs {need / 2**20:,.0f} MiB on {device}, and only "
                f"{free / 2**20:,.0f} MiB are free"
            )


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type == "cpu" and os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    return None


def _clone(tensor: Tensor) -> Tensor:
    try:
        return tensor.detach().clone()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise NoMemoryError(str(error).splitlines()[0]) from error
    except RuntimeError as error:
        if "alloc" not in str(error):
            raise
        raise NoMemoryError(str(error).splitlines()[0]) from error


def _uncopyable(tensor: Tensor) -> bool:
    return tensor.is_meta or is_lazy(tensor)


def _same_layout(first: Tensor, second: Tensor) -> bool:
    return (
        first.shape == second.shape
        and first.dtype == second.dtype
        and first.device == second.device
        and first.layout == second.layout == torch.strided
    )


def _strides(tensor: Tensor) -> tuple[int, ...]:
    part = local_part(tensor)
    return part.stride() if part.layout == torch.strided else ()


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.itemsize if not tensor.is_meta else 0


def _version(tensor: Tensor) -> int | None:
    try:
        return version(tensor)
    except RuntimeError:  # inference tensors keep none
        return None
