"""The state of every random generator that a training step may draw from."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterable
from typing import Any

import torch


class RandomState:
    """Python's, NumPy's, torch's CPU and (once initialised) CUDA generators at one moment."""

    def __init__(self, python: Any, numpy: Any, cpu: torch.Tensor, cuda: Any) -> None:
        self._python = python
        self._numpy = numpy
        self._cpu = cpu
        self._cuda = cuda

    @classmethod
    def now(cls) -> RandomState:
        """Reads all generators; costs a few microseconds and no synchronisation."""
        numpy = sys.modules.get("numpy")
        return cls(
            random.getstate(),
            numpy.random.get_state() if numpy is not None else None,
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
        )

    def restore(self) -> None:
        """Puts all generators back."""
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)

    def plain(self) -> dict[str, Any]:
        """Everything as tensors and plain data; `from_plain` reads it back."""
        numpy = None
        if self._numpy is not None:
            kind, keys, position, has_gauss, gauss = self._numpy
            numpy = (str(kind), keys.tolist(), int(position), int(has_gauss), float(gauss))
        return {"python": self._python, "numpy": numpy, "cpu": self._cpu, "cuda": self._cuda}

    @classmethod
    def from_plain(cls, kept: dict[str, Any]) -> RandomState:
        """Reads what `plain` made; parts that this process has no generator for are left out."""
        numpy, cuda = kept["numpy"], kept["cuda"]
        if numpy is not None and "numpy" in sys.modules:
            keys = sys.modules["numpy"].array(numpy[1], dtype="uint32")
            numpy = (numpy[0], keys, *numpy[2:])
        else:
            numpy = None
        if cuda is not None and len(cuda) != torch.cuda.device_count():
            cuda = None
        return cls(kept["python"], numpy, kept["cpu"], cuda)


class Generators:
    """The states of generators that the program has made itself."""

    def __init__(self, generators: Iterable[Any]) -> None:
        self._kept = [(g, _generator_state(g)) for g in generators]

    def restore(self) -> None:
        """Puts them back."""
        for generator, state in self._kept:
            if isinstance(generator, torch.Generator):
                generator.set_state(state)
            elif hasattr(generator, "setstate"):
                generator.setstate(state)
            else:
                generator.bit_generator.state = state


def _generator_state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if hasattr(generator, "getstate"):
        return generator.getstate()
    return copy.deepcopy(generator.bit_generator.state)
