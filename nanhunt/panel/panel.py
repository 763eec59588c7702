"""The panel: buttons give commands, the worker trains, a painter shows where things stand.

A callback may run on any thread, also while training runs (ipykernel 7.0 to 7.3 hand comm
messages to a thread of their own): it sets flags and returns, and never trains itself.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from IPython.display import display

from nanhunt.core.program.printed import printed_to
from nanhunt.core.stepping.ambient import Ambient
from nanhunt.core.stepping.stepper import FINISH, IDLE, INTO, OUT, OVER, RESUME, RUNNING
from nanhunt.errors import NanhuntError
from nanhunt.interactive import Hunt
from nanhunt.panel import status
from nanhunt.panel.face import Face
from nanhunt.panel.interrupts import IdleInterrupt
from nanhunt.panel.log import Log
from nanhunt.panel.painter import Painter
from nanhunt.panel.remote import Remote
from nanhunt.panel.twin import StaticTwin
from nanhunt.panel.view import View
from nanhunt.records.report import Report

_open_panel: Panel | None = None


class Panel:
    """One panel over one hunt; opening another one closes it.

    Args:
        hunt: to be stepped.
        shell: the running IPython, in a kernel.
        steps: how many steps Run and Hunt make.
        statistics: whether modules are measured from the start.
    """

    def __init__(self, hunt: Hunt, shell: Any, steps: int, statistics: bool) -> None:
        self.hunt = hunt
        self.face = Face(steps, statistics)
        self.log = Log()
        self._shell = shell
        self._ambient = Ambient()
        self._parent: dict[str, Any] = dict(shell.kernel.get_parent().get("header", {}))
        self._view = View(hunt, self.face, self.log)
        self._progress = ""
        self._notice = ""
        self._closing = self._hunting = self._reported = False
        hunt.statistics = statistics
        hunt.stepper.on_change = self._changed
        self._painter = Painter(self._paint, self._busy)
        self._twin = StaticTwin()
        self._interrupt = IdleInterrupt(shell.kernel, self._stop)
        self._listening = contextlib.ExitStack()
        self._commands = self._connect()
        self._remote: Remote | None = None

    # -- its life -------------------------------------------------------------------------------

    def open(self) -> None:
        """Shows the panel in the running cell; another one is closed before."""
        global _open_panel
        close_panel()
        _open_panel = self
        self._view.paint_first()
        display(self.face.box)
        self._twin.open()
        self._remote = Remote(self._obey_by_name, self._painter.touch)
        self._painter.start()
        self._painter.touch()
        self._shell.events.register("post_run_cell", self._cell_ended)

    def close(self) -> None:
        """Undoes an unfinished step, lets go of the training, and ends every thread."""
        global _open_panel
        if _open_panel is self:
            _open_panel = None
        self._closing = True
        self.hunt.stepper.on_change = None
        if self._remote is not None:
            self._remote.close()
        self.hunt.close()
        self._interrupt.remove()
        with contextlib.suppress(ValueError):  # it has been taken off already
            self._shell.events.unregister("post_run_cell", self._cell_ended)
        self._painter.end()
        self._listening.close()  # the widgets live on in the page, and would keep the model alive
        self._view.paint_last()

    def hunt_at_once(self, steps: int, measure: bool) -> Report:
        """Hunts in the calling thread, the panel showing how far it is.

        Args:
            steps: at most.
            measure: run a failing step once more for the pictures.
        """
        self._hunting = True
        try:
            report = self.hunt.run(steps)
            if measure and status.current_finding(self.hunt) is not None:
                self._measure()
        finally:
            self._hunting, self._progress = False, ""
            self.face.statistics.value = True  # from here on steps are made by hand
            self._painter.touch()
            if self._closing:
                self.close()
        return report

    def _measure(self) -> None:
        self._progress = "measuring the failing step"
        self._painter.touch()
        try:
            self.hunt.replay()
        except Exception as error:  # noqa: BLE001  pictures are a convenience
            self.log.write(f"the failing step could not be measured: {error}\n")

    def tell_progress(self, done: int, total: int, what: str) -> None:
        """Called by the hunt at most ten times a second."""
        self._progress = "" if what == "done" else f"step {done:,} of {total:,}, {what}"
        self._painter.touch()

    # -- what people do -------------------------------------------------------------------------

    def _connect(self) -> dict[str, Callable[[], Any]]:
        hunt, stepper, face = self.hunt, self.hunt.stepper, self.face
        commands: dict[str, Callable[[], Any]] = {
            "step": lambda: stepper.go(FINISH) or self._job("step", self._one_step),
            "run": lambda: self._job("run", lambda: hunt.run(face.steps.value, examine=False)),
            "hunt": lambda: self._job("hunt", lambda: hunt.run(face.steps.value)),
            "pause": self._pause,
            "into": lambda: stepper.go(INTO) or self._job("into", self._one_step, INTO),
            "over": lambda: stepper.go(OVER),
            "out": lambda: stepper.go(OUT),
            "resume": lambda: stepper.go(RESUME),
            "back": lambda: stepper.abandon() or self._job("back", hunt.back),
            "replay": lambda: self._job("replay", self._replay),
            "stop": self._stop,
        }
        for name, button in face.buttons.items():  # a control without a command is a KeyError
            self._on_click(button, functools.partial(self._obey, commands[name]))
        self._on_click(face.add, lambda: self._obey(self._add_breakpoint))
        self._on_click(face.remove, lambda: self._obey(self._remove_breakpoint))
        self._on_click(face.earlier, lambda: self._turn(-1))
        self._on_click(face.later, lambda: self._turn(1))
        self._on_change(face.statistics, "value", self._switch_statistics)
        for widget in (face.search, face.suspicious, face.tree):
            self._on_change(widget, "value", lambda _: self._turn(0))
        self._on_change(face.modules, "index", self._chosen)
        self._on_change(face.kind, "value", lambda _: self._painter.touch())
        self._on_change(face.box, "comm", self._removed)
        return commands

    def _on_click(self, button: Any, do: Callable[[], object]) -> None:
        def clicked(_: Any) -> None:
            do()

        button.on_click(clicked)
        self._listening.callback(button.on_click, clicked, remove=True)

    def _on_change(self, widget: Any, name: str, do: Callable[[Any], object]) -> None:
        widget.observe(do, name)
        self._listening.callback(widget.unobserve, do, name)

    def _obey_by_name(self, name: str) -> None:
        """Carries out what a front end orders, if it is among what the buttons do."""
        if name in self._commands:
            self._obey(self._commands[name])
        else:
            self._notice = f"there is no command {name[:40]!r}"
            self._painter.touch()

    def _obey(self, command: Callable[[], Any]) -> None:
        """Carries out a click; what cannot be done now is said and nothing else happens."""
        self._notice = ""
        if self._closing or self.hunt.closed:
            return
        if self._hunting and command not in (self._pause, self._stop):
            self._notice = "not now: the cell is hunting; Pause ends that after this step"
            return
        try:
            if command() is False:
                self._notice = f"not now: the hunt is {self.hunt.stepper.state}"
        except NanhuntError as error:
            self._notice = str(error)
        self._painter.touch()

    def _job(self, name: str, job: Callable[[], Any], how: str = RESUME) -> bool:
        self.hunt.stepper.start(name, lambda: self._in_worker(job), self._ambient, how)
        return True

    def _in_worker(self, job: Callable[[], Any]) -> None:
        """Runs a job so that what it prints and displays stays with the panel."""
        publisher = self._shell.display_pub
        publisher.register_hook(self._to_own_cell)
        try:
            with printed_to(self.log.write):
                try:
                    job()
                except NanhuntError as error:
                    self._notice = str(error)
        finally:
            publisher.unregister_hook(self._to_own_cell)

    def _to_own_cell(self, message: dict[str, Any]) -> dict[str, Any]:
        message["parent_header"] = self._parent
        return message

    def _one_step(self) -> None:
        self.hunt.step(examine=False)

    def _replay(self) -> None:
        number = self.hunt.position - (not self.hunt.undone)
        words = {
            "bit_exact": "it ended as before, to the bit",
            "not_reproduced": "it ended differently: something in it cannot be put back",
        }
        self._notice = f"step {number} was replayed: {words[self.hunt.replay()]}"

    def _pause(self) -> bool:
        if self._hunting:
            self.hunt.halt()
            return True
        return self.hunt.stepper.pause()

    def _stop(self) -> bool:
        """Ends everything; where a step is on, as soon as it has been undone."""
        self._closing = True
        self.hunt.halt()
        if not self.hunt.stepper.abandon() and not self._hunting:
            self.close()
        return True

    def _switch_statistics(self, change: Any) -> None:
        self.hunt.statistics = bool(change["new"])
        self._painter.touch()

    def _add_breakpoint(self) -> None:
        face = self.face
        where = face.where.value.strip() or self._view.chosen
        self.hunt.break_at(where, face.condition.value.strip() or None, phase=face.phase.value)

    def _remove_breakpoint(self) -> None:
        chosen = self.face.points.index
        if chosen is not None and chosen < len(self.hunt.breakpoints):
            self.hunt.clear_breakpoints(self.hunt.breakpoints[chosen])

    def _turn(self, by: int) -> None:
        self._view.turn(by)
        self._painter.touch()

    def _chosen(self, change: Any) -> None:
        if self._painter.is_own_thread:
            return
        self._view.choose(change["new"])
        self._painter.touch()

    def _removed(self, change: Any) -> None:
        """The widgets were closed from outside, as by `Widget.close_all()`."""
        if change["new"] is None and not self._closing:
            self._stop()

    # -- what happens ---------------------------------------------------------------------------

    def _changed(self) -> None:
        """Told by the worker: it began, paused, or ended."""
        stepper = self.hunt.stepper
        if stepper.state == IDLE:
            if self._closing:
                self.close()
                return
            if stepper.error is not None:
                self.log.write(_last_lines(stepper.error))
            if status.current_finding(self.hunt) is not None:
                self._twin.show(self.hunt.report)
        self._painter.touch()

    def _cell_ended(self, result: Any) -> None:
        """The cell of the panel is done, or a later one, which may have stepped in code."""
        self._painter.touch()
        if self._reported:
            return
        self._reported = True
        shown, report = getattr(result, "result", None), self.hunt.report
        shown_already = isinstance(shown, Report) and shown.findings == report.findings
        if self.hunt.steps_run and not shown_already:
            self._twin.show(report)

    def _busy(self) -> bool:
        state = self.hunt.stepper.state
        return state == RUNNING or (state == IDLE and bool(self._progress))

    # -- what is seen ---------------------------------------------------------------------------

    def _paint(self, painter: Painter) -> None:
        if self._closing:
            return
        notice = self._notice
        if painter.error is not None:
            notice += f" The panel could not be drawn: {painter.error}"
        self._view.follow()
        self._view.paint_status(painter, self._progress, notice)
        self._tell_remote(painter, notice)
        self._view.paint(painter, self._busy)

    def _tell_remote(self, painter: Painter, notice: str) -> None:
        def state() -> dict[str, Any]:
            able = status.enabled(self.hunt, self._busy())
            return status.remote_state(self.hunt, self._progress, notice, able)

        remote = self._remote
        if remote is not None and remote.news(state()):
            painter.send(lambda: remote.tell(state()))


def hunt_in_panel(shell: Any, arguments: dict[str, Any], paused: bool) -> Report | Hunt:
    """Opens a panel in the running cell and hunts at once, unless it is to be paused.

    Args:
        shell: the running IPython, in a kernel.
        arguments: keywords of `nanhunt.hunt`.
        paused: whether to stand before the first step and return.

    Returns:
        The report; or, paused, the hunt, to be stepped by hand and in code.
    """
    close_panel()
    steps, shown = arguments.pop("steps"), bool(arguments.pop("progress"))
    panels: list[Panel] = []

    def tell(done: int, total: int, what: str) -> None:
        for panel in panels:
            panel.tell_progress(done, total, what)

    hunt = Hunt(**arguments, progress=tell if shown else False)
    panel = Panel(hunt, shell, steps, statistics=paused)
    panels.append(panel)
    panel.open()
    return hunt if paused else panel.hunt_at_once(steps, measure=arguments["trials"])


def close_panel() -> None:
    """Closes the panel that is open, if any."""
    if _open_panel is not None:
        _open_panel.close()


def _last_lines(error: BaseException) -> str:
    """An exception of the user's step, as theirs: without the frames of the worker."""
    import traceback

    from nanhunt.core.program.source_lines import is_user_code

    trace = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in trace.stack if is_user_code(frame.filename)]
    trace.stack = traceback.StackSummary.from_list(frames)
    return "".join(trace.format())
