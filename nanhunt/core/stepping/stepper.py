"""The worker that runs steps, and the commands that stop it and let it go on.

Any thread may give a command: it sets flags under a lock and returns. Training runs in one
thread per job, which ends with the job; a paused step is that thread waiting inside a module's
call. One job at a time.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Any

from nanhunt.core.stepping.ambient import Ambient
from nanhunt.core.stepping.breakpoints import Breakpoint
from nanhunt.core.stepping.events import AFTER, Here, ModuleCall
from nanhunt.errors import HuntBusyError

IDLE, RUNNING, PAUSED = "idle", "running", "paused"
INTO, OVER, OUT, RESUME, FINISH = "into", "over", "out", "resume", "finish"
_AT_EXIT = 4.0  # seconds a process that ends waits for the step that runs


class AbandonedError(BaseException):
    """Raised inside the user's step to end it; the hunt then undoes the step."""


class Stepper:
    """Runs jobs in a worker thread and stops them at modules.

    Attributes:
        breakpoints: those that are set.
        job: name of the job that runs or is paused, else an empty string.
        here: where the step is paused, else None.
        hit: the breakpoint that stopped it, if one did.
        error: what the last job raised, if anything but its being abandoned.
        abandoned: whether the last job was.
        on_change: called after each change of state, on whichever thread made it.
    """

    def __init__(self) -> None:
        self.breakpoints: list[Breakpoint] = []
        self.job = ""
        self.here: Here | None = None
        self.hit: Breakpoint | None = None
        self.error: BaseException | None = None
        self.abandoned = False
        self.on_change: Callable[[], None] | None = None
        self._changed = threading.Condition()
        self._state = IDLE
        self._worker: threading.Thread | None = None
        self._how = RESUME
        self._frame: ModuleCall | None = None
        self._pause = self._abandon = False

    @property
    def state(self) -> str:
        """`"idle"` between steps, `"running"`, or `"paused"` inside a step."""
        return self._state

    @property
    def is_worker(self) -> bool:
        """Whether this is the worker's own thread."""
        return threading.current_thread() is self._worker

    def begin_step(self) -> None:
        """A new step begins: finishing ended with the one before."""
        if self._how == FINISH:
            self._how = RESUME

    @property
    def may_stop(self) -> bool:
        """Whether the step that begins now may have to stop inside."""
        return bool(self.breakpoints) or self._how in (INTO, OVER, OUT)

    # -- commands, from any thread --------------------------------------------------------------

    def start(self, name: str, job: Callable[[], Any], ambient: Ambient, how: str = RESUME) -> None:
        """Starts a job in a new worker.

        Args:
            name: what is being done, for people.
            job: what to run.
            ambient: what to enter around it.
            how: `"into"` to stop at the first module, `"resume"` at breakpoints only, `"finish"`
                nowhere.

        Raises:
            HuntBusyError: another job runs or is paused.
        """
        with self._changed:
            if self._state != IDLE:
                raise HuntBusyError(f"the hunt is {self._state} ({self.job}); wait, or stop it")
            self.job, self.error, self.abandoned = name, None, False
            self._pause = self._abandon = False
            self._how, self._frame = how, None
            self._state = RUNNING
            self._worker = threading.Thread(
                target=self._work, args=(job, ambient), name="nanhunt-step", daemon=True
            )
            # An interpreter that is ending ends a thread where it asks for the GIL, and with
            # frames of PyTorch on the stack C++ aborts the process (pytorch/pytorch issue 38228).
            atexit.register(self.end, _AT_EXIT)
            self._worker.start()
        self._tell()

    def go(self, how: str) -> bool:
        """Lets a paused step go on; False when none is paused."""
        with self._changed:
            if self._state != PAUSED or self.here is None:
                return False
            # Out of a module means: on until its parent has run.
            frame = self.here.frame
            self._frame = frame.parent if how == OUT else frame
            self._how = FINISH if how == OUT and frame.parent is None else how
            self._pause = how == FINISH  # a job of several steps ends after this one
            self.here.let_go()
            self.here = self.hit = None
            self._state = RUNNING
            self._changed.notify_all()
        self._tell()
        return True

    def pause(self) -> bool:
        """Asks a running job to stop at the next module it reaches, or after this step."""
        with self._changed:
            self._pause = self._state == RUNNING
            return self._pause

    def abandon(self) -> bool:
        """Asks the job to end at once: its unfinished step is undone. False when none is on."""
        with self._changed:
            if self._state == IDLE:
                return False
            self._abandon = True
            if self.here is not None:
                self.here.let_go()
            self._changed.notify_all()
            return True

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the job has ended or is paused."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state != RUNNING, timeout)

    def end(self, timeout: float | None = None) -> None:
        """Abandons the job, if any, and waits until its thread has ended, or so many seconds."""
        thread = self._worker
        self.abandon()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # -- the worker's side ----------------------------------------------------------------------

    def at(self, here: Here) -> None:
        """Told by the watch where the step is; returns when it may go on.

        Raises:
            AbandonedError: the step is to end.
        """
        hit = next((b for b in self.breakpoints if b.fires(here)), None)
        with self._changed:
            self._end_if_abandoned()
            if self._how == FINISH or not (hit or self._pause or self._due(here)):
                return
            self._pause = False
            self.here, self.hit, self._state = here, hit, PAUSED
            self._changed.notify_all()
        self._tell()
        with self._changed:
            self._changed.wait_for(lambda: self._state != PAUSED or self._abandon)
            self._end_if_abandoned()

    def end_if_abandoned(self) -> None:
        """Asked at the end of a step, should the user's code have caught everything.

        Raises:
            AbandonedError: the step is to end.
        """
        with self._changed:
            self._end_if_abandoned()

    def halted(self) -> bool:
        """Asked between two steps: whether a job of several steps is to end here."""
        with self._changed:
            self._end_if_abandoned()
            pause, self._pause = self._pause, False
            return pause

    def _end_if_abandoned(self) -> None:
        if self._abandon:
            raise AbandonedError

    def _due(self, here: Here) -> bool:
        """Whether stepping stops here."""
        frame = here.frame
        if self._how == INTO:
            return True
        if self._how == OVER:
            return not frame.inside(self._frame)
        if self._how == OUT:
            ended = frame is self._frame and here.phase == AFTER
            return ended or not (frame is self._frame or frame.inside(self._frame))
        return False

    def _work(self, job: Callable[[], Any], ambient: Ambient) -> None:
        error: BaseException | None = None
        abandoned = False
        try:
            ambient.run(job)
        except AbandonedError:
            abandoned = True
        except BaseException as raised:  # noqa: BLE001  told to whoever waits
            error = raised
        with self._changed:
            # What abandoning made user code raise on the way out is no error of theirs.
            self.abandoned = abandoned or self._abandon
            self.error = None if self.abandoned else error
            self.here = self.hit = None
            self.job = ""
            atexit.unregister(self.end)
            self._state = IDLE
            self._changed.notify_all()
        self._tell()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()
