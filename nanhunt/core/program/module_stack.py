"""Which module is running, and its n-th call of the step."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from nanhunt.core.attached.patches import patch
from nanhunt.core.program.target import Target
from nanhunt.core.tensors.stats import plain_tensors, tensor_stats
from nanhunt.records.report import Frame

RECOMPUTE = "recompute"
_FRAMES_KEPT = 8


class Place(NamedTuple):
    """A module call: its qualified name, the n-th call of the step, its class."""

    module: str
    call: int | str
    kind: str


class ModuleStack:
    """The stack of running modules; foreign modules (a criterion) do not count.

    `nn.Module.__call__` is wrapped while somebody observes. Global module hooks would not
    do: they run before a module's own forward hooks, which belong to the module as well.

    Args:
        target: gives the names.
        in_backward: tells whether the autograd engine is running; a module called
            then belongs to activation checkpointing's second pass.
        quietly: runs a function without it being observed.
        keep_frames: whether to keep statistics of the last modules' outputs.
        entered: told each module and its place with the arguments it is called with.
        left: told each module and its place with what it returned.
    """

    def __init__(
        self,
        target: Target,
        in_backward: Callable[[], bool],
        quietly: Callable[[Callable[[], Any]], Any],
        keep_frames: bool = False,
        entered: Callable[[nn.Module, Place, Any], None] | None = None,
        left: Callable[[nn.Module, Place, Any], None] | None = None,
    ) -> None:
        self._target = target
        self._in_backward = in_backward
        self._quietly = quietly
        self._keep_frames = keep_frames
        self._entered, self._left = entered, left
        self._running: list[Place | None] = []
        self._calls: Counter[str] = Counter()
        self.frames: deque[Frame] = deque(maxlen=_FRAMES_KEPT)

    def __enter__(self) -> ModuleStack:
        self._take_off = patch(nn.Module, "__call__", self._noted)
        return self

    def __exit__(self, *_: object) -> None:
        self._take_off()

    def _noted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def __call__(module: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
            with self._running_module(module) as place:
                if self._entered is not None and place is not None:
                    self._entered(module, place, (args, kwargs))
                output = original(module, *args, **kwargs)
                if self._left is not None and place is not None:
                    self._left(module, place, output)
                if self._keep_frames and place is not None:
                    self._keep_frame(place, output)
                return output

        return __call__

    @property
    def place(self) -> Place | None:
        """The innermost running module of the model, or None outside any."""
        return next((place for place in reversed(self._running) if place), None)

    @property
    def depth(self) -> int:
        """How many modules are running, foreign ones included."""
        return len(self._running)

    def calls(self, name: str) -> int:
        """How often a module has run."""
        return self._calls[name]

    def names(self) -> set[str]:
        """The modules that have run."""
        return set(self._calls)

    @contextlib.contextmanager
    def _running_module(self, module: nn.Module) -> Iterator[Place | None]:
        name = self._target.module_name(module)
        place = None
        if name is not None and self._in_backward():
            place = Place(name, RECOMPUTE, type(module).__name__)
        elif name is not None:
            self._calls[name] += 1
            place = Place(name, self._calls[name], type(module).__name__)
        self._running.append(place)
        try:
            yield place
        finally:
            self._running.pop()

    def _keep_frame(self, place: Place, output: Any) -> None:
        tensor = next((t for t in plain_tensors(output) if _has_values(t)), None)
        if tensor is not None:
            stats = self._quietly(lambda: tensor_stats(tensor, "output"))
            self.frames.append(Frame(place.module, place.call, place.kind, stats))


def _has_values(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
