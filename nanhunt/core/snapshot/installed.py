"""What is in place while a step runs: recorded iterators, and the right to be in one at all."""

from __future__ import annotations

import threading
from typing import Any

from nanhunt.core.attached.uninterrupted import uninterrupted
from nanhunt.core.snapshot.reachable import Surroundings
from nanhunt.core.snapshot.tape import Tape, TapedIterator
from nanhunt.errors import HuntBusyError

# Two hunts in a step at the same time, one in a worker thread, would take the other's batches and
# random numbers for their own step's, and undo them.
_inside_a_step = threading.Lock()


class Installed:
    """DataLoader patch and wrapped iterators, for the duration of one step and its replays.

    Raises:
        HuntBusyError: on entering, while another hunt is inside a step.
    """

    def __init__(self, tape: Tape, around: Surroundings) -> None:
        self._tape = tape
        self._around = around
        self._wrapped: list[tuple[Any, TapedIterator]] = []

    def __enter__(self) -> None:
        if not _inside_a_step.acquire(blocking=False):
            raise HuntBusyError(
                "another hunt stands inside a step, or a guard is active. Continue or stop it "
                "first: in its panel, with nanhunt.last_hunt().close(), or by leaving the guard"
            )
        with uninterrupted():
            self._tape.install()
            for slot in self._around.iterators:
                iterator = slot.get()
                if not hasattr(iterator, "__next__"):
                    continue  # something else stands there by now
                wrapper = TapedIterator(iterator, self._tape)
                slot.exchange(iterator, wrapper)
                self._wrapped.append((slot, wrapper))

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self._tape.remove()
            for slot, wrapper in self._wrapped:
                slot.exchange(wrapper, wrapper.inner)
            _inside_a_step.release()
