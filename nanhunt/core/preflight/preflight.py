"""`nanhunt.preflight`: runs one observed step and lists what somebody should look at."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from nanhunt.core.causes.scene import written_at
from nanhunt.core.hunting.engine import HuntEngine
from nanhunt.core.observe.observer import Activity
from nanhunt.core.preflight.census import AutocastCensus, CallCensus, OpCensus, OutputCensus
from nanhunt.core.program.module_stack import ModuleStack, Place
from nanhunt.core.program.source_lines import source_of
from nanhunt.core.program.target import parameters_of
from nanhunt.core.snapshot.data_source import DataSource
from nanhunt.core.snapshot.reachable import Surroundings
from nanhunt.core.tensors.dtypes import dtype_name
from nanhunt.core.tensors.stats import count_bad, is_lazy
from nanhunt.core.watch.present import bad_gradients, bad_state, seen_losses
from nanhunt.core.watch.step_facts import Sink, StepFacts
from nanhunt.errors import UsageError
from nanhunt.records.preflight import AutocastRegion, Fact, ModuleFacts, ParameterCount, Preflight
from nanhunt.records.report import Finding
from nanhunt.torch_private import BatchNorm, version

NEAR_OVERFLOW = 2.0  # powers of two: within a factor of four of the largest finite number
_NOT_FINITE = {  # kinds of what the step holds, and words for them
    "parameter": "parameter",
    "buffer": "buffer",
    "state": "optimizer state",
    "loss": "loss",
    "gradient": "gradient",
}
_NORMS = (BatchNorm,)


def preflight(model: Any, step_fn: Callable[..., Any], **options: Any) -> Preflight:
    """Runs one observed step, says what it is made of, and puts everything back.

    What cannot be put back is a batch that an iterator has given: where the step, or `data`, goes
    on with one that is held in a variable, training begins with the batch after it.

    Args:
        model: a module, or a dict or sequence of modules.
        step_fn: one training step, as in `nanhunt.hunt`.
        **options: `optimizer`, `scaler` and `data`, as in `nanhunt.hunt`.

    Returns:
        The facts, those that somebody should look at first.

    Raises:
        UsageError: the call cannot work as written, or there is no memory to keep what must be
            put back; nothing has been changed.
        Exception: whatever the step raises; everything has been put back.

    Example:
        >>> import torch, nanhunt
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> x = torch.ones(1, 2)
        >>> def step():
        ...     optimizer.zero_grad()
        ...     x.to("cpu")
        ...     model(x).sum().backward()
        ...     optimizer.step()
        >>> [fact.kind for fact in nanhunt.preflight(model, step).warnings]
        ['result_thrown_away']
    """
    source = DataSource([options.get("data"), *Surroundings(step_fn).loaders])
    try:
        flight = _PreflightStep(model, step_fn, progress=False, trials=False, **options)
        with contextlib.closing(flight):
            flight.step()
            flight.rewind()
            return flight.result
    finally:
        source.restore()


class _PreflightStep(HuntEngine):
    """A hunt of one step that gathers facts instead of failures."""

    result: Preflight

    def _step(self) -> Finding | None:
        for optimizer in self._optimizers:
            self._snapshot.before_optimizer(optimizer)
        if self._snapshot.missing:
            raise UsageError(
                f"a preflight must be able to put everything back: {self._snapshot.missing}"
            )
        self._bad_before = self._bad_state()
        self._bad_gradients: dict[str, None] = {}
        self._scales = [s.get_scale() for s in self._scalers if s.is_enabled()]
        self._outputs = OutputCensus()
        activity = Activity()
        self._modules = ModuleStack(
            self._target,
            activity.in_backward,
            lambda function: function(),
            left=self._note_output,
        )
        self._ops = OpCensus(self._modules)
        self._calls = CallCensus(self._target, self._modules)
        self._autocast = AutocastCensus()
        before, self._received = self._gradients(), set[str]()

        def look() -> None:
            now = self._gradients()
            self._received |= {name for name, mark in now.items() if before.get(name) != mark}

        sentinel = self._make_sentinel(activity, None)
        sentinel.before_backward, sentinel.after_update = None, None
        sentinel.after_backward = look

        def look_before_update(optimizer: Optimizer) -> None:
            look()  # an update inside of backward uses its gradients up
            if not sentinel._scaler_decides:
                self._note_gradients(optimizer)

        sentinel.before_update = look_before_update
        self._sentinel = sentinel
        with sentinel, contextlib.ExitStack() as stack:
            for watcher in (self._modules, self._autocast, self._ops, self._calls):
                stack.enter_context(watcher)
            try:
                returned = self._call_step()
            except Exception as error:  # the step's own: gets a note, and goes on
                self._tell_more(error)
                raise
            stack.close()
            facts = sentinel.finish(returned)
        self._ledger.steps_run += 1
        self._bad_after = self._bad_state()
        self._note_waiting_gradients(facts)
        self.result = self._result(facts)
        return None

    def _note_output(self, _module: nn.Module, place: Place, output: Any) -> None:
        self._ops.quiet = self._calls.quiet = True
        try:
            self._outputs.note(place, output)
        finally:
            self._ops.quiet = self._calls.quiet = False

    # -- what is not finite -----------------------------------------------------------------------

    def _bad_state(self) -> list[Sink]:
        """Bad parameters, buffers and optimizer states; a buffer that holds -Inf is a mask."""
        masks = {
            name
            for name, buffer in self._target.buffers()
            if name.rpartition(".")[2] not in ("running_mean", "running_var")
            and not any(count_bad(buffer)[:2])
        }
        return bad_state(self._target, self._optimizers, masks)

    def _note_gradients(self, *optimizers: Optimizer) -> None:
        self._ops.quiet = self._calls.quiet = True
        try:
            bad = bad_gradients(self._target, optimizers)
        finally:
            self._ops.quiet = self._calls.quiet = False
        self._bad_gradients.update((sink.name, None) for sink in bad)

    def _note_waiting_gradients(self, facts: StepFacts) -> None:
        """Gradients of updates that did not happen: still to come, or left out by a scaler.

        A loss scale that is too large makes gradients overflow, and is lowered; so in that case
        the step is run once more, with a scale of 1.
        """
        skipped = [optimizer for _, optimizer in facts.skipped]
        self._note_gradients(*(o for o in self._optimizers if o not in skipped))
        if skipped:
            probed, _ = self._replayer().replay(scale=1.0)
            bad = [sink.name for sink in probed.sinks if sink.kind == "gradient"]
            self._bad_gradients.update((name, None) for name in bad)

    def _of_state(self, facts: StepFacts) -> Iterable[Fact]:
        """What is not finite: before the step, the gradients in it, and after it."""
        before = {str(sink) for sink in self._bad_before}
        after = [sink for sink in self._bad_after if str(sink) not in before]
        gradients = [Sink("gradient", name, None, 1, 0, 0) for name in self._bad_gradients]
        losses = seen_losses(facts)
        for sinks, when in (
            (self._bad_before, "before the step"),
            (losses, "in the step"),
            (gradients, "in the step"),
            (after, "after the step, and finite before it"),
        ):
            for kind, word in _NOT_FINITE.items():
                names = tuple(sink.name for sink in sinks if sink.kind == kind)
                if names:
                    count = f"{len(names):,} {word}{' is' if len(names) == 1 else 's are'}"
                    text = f"{count} not finite (NaN or Inf) {when}"
                    yield Fact(f"{kind}_not_finite", "warning", text, names=names)

    def _tell_more(self, error: Exception) -> None:
        """Adds to an exception of the step what may well be behind it."""
        for name, line in self._calls.thrown_away:
            told = f"nanhunt: the result of `.{name}()` is thrown away{written_at(line)}"
            if hasattr(error, "add_note"):
                error.add_note(told)

    def _gradients(self) -> dict[str, tuple[int, int]]:
        """Identity and version of each gradient: they change when backward adds to it."""
        grads = ((n, p.grad) for n, p in self._target.parameters.items())
        return {name: (id(grad), version(grad)) for name, grad in grads if grad is not None}

    def _result(self, facts: StepFacts) -> Preflight:
        found = [
            *self._of_state(facts),
            *self._of_graph(facts),
            *self._of_values(),
            *self._of_optimizers(facts),
        ]
        found += [*self._of_batch_norms(), *self._of_lines()]
        found.sort(key=lambda fact: fact.severity != "warning")
        return Preflight(
            title=self._target.title(),
            facts=tuple(found),
            modules=tuple(self._module_facts()),
            regions=tuple(self._regions()),
            parameters=tuple(self._counts()),
        )

    # -- facts ------------------------------------------------------------------------------------

    def _of_graph(self, facts: StepFacts) -> Iterable[Fact]:
        """Parameters that got no gradient, and why."""
        reasons: dict[tuple[str, Any], list[str]] = {}
        for name, parameter in self._target.parameters.items():
            if name in self._received or not facts.backwards:
                continue
            key = id(parameter)
            if not parameter.requires_grad:
                reasons.setdefault(("frozen", None), []).append(name)
            elif key in self._calls.detached:
                reasons.setdefault(("detached", self._calls.detached[key]), []).append(name)
            elif key in self._calls.without_grad:
                reasons.setdefault(("no_grad", self._calls.without_grad[key]), []).append(name)
            elif key not in self._calls.used:
                reasons.setdefault(("unused", None), []).append(name)
            else:
                reasons.setdefault(("elsewhere", None), []).append(name)
        for (why, line), names in reasons.items():
            yield self._without(why, line, names)

    def _without(self, why: str, line: Any, names: list[str]) -> Fact:
        count = f"{len(names):,} parameter{'s' if len(names) != 1 else ''}"
        text = {
            "frozen": f"{count} frozen (requires_grad is False)",
            "detached": f"{count} without gradient: cut off from the loss at this line",
            "no_grad": f"{count} without gradient: used while gradients were switched off",
            "unused": f"{count} without gradient: no operation of the step used them",
            "elsewhere": f"{count} used, but no loss of this step depends on them",
        }[why]
        trained = {id(p) for o in self._optimizers for p in parameters_of(o)}
        expected = any(id(self._target.parameters[n]) in trained for n in names)
        harmless = why == "frozen" or (why in ("no_grad", "unused") and not expected)
        source = source_of(line) if line is not None else None
        severity = "info" if harmless else "warning"
        return Fact(f"parameters_{why}", severity, text, source, tuple(names))

    def _of_values(self) -> Iterable[Fact]:
        """ComplexHalf births, and modules near the end of their dtype."""
        for (op, line), module in self._ops.births.items():
            place = f"in {module or 'the root module'}" if module is not None else "outside modules"
            yield Fact(
                "complex_half",
                "warning",
                f"{op} makes ComplexHalf {place}",
                source_of(line) if line is not None else None,
            )
        closest = sorted(self._ops.closest.items(), key=lambda entry: entry[1].headroom)
        for name, (headroom, stats, line) in closest:
            if headroom >= NEAR_OVERFLOW:
                continue
            kind, told = (
                "near_overflow",
                f"reaches {stats.absmax or 0.0:.4g}, within a factor of four",
            )
            if stats.bad:
                kind, told = (
                    "not_finite",
                    f"is not finite in {stats.bad:,} of {stats.numel:,} elements",
                )
            text = f"{stats.name} in {name or 'the root module'} {told}"
            text += f" of the end of {stats.dtype}" if not stats.bad else f" ({stats.dtype})"
            source = source_of(line) if line is not None else None
            yield Fact(kind, "warning", text, source)

    def _of_optimizers(self, facts: StepFacts) -> Iterable[Fact]:
        yield from self._of_updates(facts)
        owners: Counter[int] = Counter()
        # Optimizers around others (Lookahead, SAM) share their groups.
        for optimizer in {id(o.param_groups): o for o in self._optimizers}.values():
            owners.update({id(p) for p in parameters_of(optimizer)})
        named = self._target.parameters
        twice = [name for name, p in named.items() if owners[id(p)] > 1]
        if twice:
            text = f"{len(twice):,} parameters are in more than one optimizer"
            yield Fact("parameters_in_two_optimizers", "warning", text, names=tuple(twice))
        nowhere = [n for n, p in named.items() if p.requires_grad and not owners[id(p)]]
        stale = self._stale(named.values())
        if stale:
            text = (
                f"{stale:,} tensors in an optimizer are no parameters of the model (any more): it "
                "was built before they were replaced, or it trains something else as well"
            )
            yield Fact("parameters_replaced", "warning", text, names=tuple(nowhere))
        elif nowhere:
            text = f"{len(nowhere):,} trainable parameters are in no optimizer"
            yield Fact("parameters_in_no_optimizer", "info", text, names=tuple(nowhere))

    def _stale(self, parameters: Iterable[nn.Parameter]) -> int:
        mine = {id(p) for p in parameters}
        return sum(
            id(p) not in mine
            for optimizer in self._optimizers
            if self._target.owns(optimizer)
            for p in parameters_of(optimizer)
        )

    def _of_updates(self, facts: StepFacts) -> Iterable[Fact]:
        updates, skips = len(facts.stepped), len(facts.skipped)
        text = f"{updates} optimizer update{'s' if updates != 1 else ''} in one call of step_fn"
        if skips:
            text += f", {skips} skipped by GradScaler"
        yield Fact("updates", "info", text)
        for scale in self._scales:
            yield Fact("loss_scale", "info", f"GradScaler at {scale:g}")
        if facts.plain_step_with_scaler:
            text = "the loss was scaled, and optimizer.step() called instead of scaler.step()"
            yield Fact("plain_step_with_scaler", "warning", text)
        if self._target.training and not facts.backwards and not facts.had_gradients:
            text = "no backward pass ran in this call of step_fn"
            if any(not loss.requires_grad for loss in facts.losses):
                text += ", and the loss it returned has no graph"
            yield Fact("no_backward", "warning", text)

    def _of_batch_norms(self) -> Iterable[Fact]:
        for key, root in self._target.roots.items():
            for path, module in root.named_modules():
                if not isinstance(module, _NORMS) or module.training == root.training:
                    continue
                name = ".".join(part for part in (key, path) if part)
                frozen = not any(p.requires_grad for p in module.parameters())
                mode = "training" if module.training else "evaluation"
                yield Fact(
                    "batch_norm_mode",
                    "info" if frozen and not module.training else "warning",
                    f"{name} is in {mode} mode, unlike the model around it",
                    names=(name,),
                )

    def _of_lines(self) -> Iterable[Fact]:
        for name, line in self._calls.casts:
            text = f"`.{name}()` casts to half precision outside autocast's rules"
            yield Fact("half_cast", "info", text, source_of(line))
        for name, line in self._calls.thrown_away:
            text = f"the result of `.{name}()` is thrown away: it does not change its tensor"
            yield Fact("result_thrown_away", "warning", text, source_of(line))

    # -- tables -----------------------------------------------------------------------------------

    def _regions(self) -> Iterable[AutocastRegion]:
        for (device, dtype, enabled, line), times in self._autocast.regions.items():
            source = source_of(line) if line is not None else None
            yield AutocastRegion(device, dtype, enabled, times, source)

    def _module_facts(self) -> Iterable[ModuleFacts]:
        for name, kind in self._outputs.kinds.items():
            stats = self._outputs.outputs.get(name)
            yield ModuleFacts(
                name,
                kind,
                self._outputs.calls[name],
                tuple(self._ops.dtypes.get(name, Counter()).most_common()),
                stats.absmax if stats else None,
                stats.headroom if stats else None,
            )

    def _counts(self) -> Iterable[ParameterCount]:
        groups: dict[str, dict[str, nn.Parameter]] = {"": {}}
        for name, parameter in self._target.parameters.items():
            if is_lazy(parameter):
                continue
            groups[""][name] = parameter
            groups.setdefault(name.split(".")[0], {})[name] = parameter
        for name, parameters in groups.items():
            dtypes: Counter[str] = Counter()
            for parameter in parameters.values():
                dtypes[dtype_name(parameter.dtype)] += parameter.numel()
            yield ParameterCount(
                name,
                sum(p.numel() for p in parameters.values()),
                sum(p.numel() for p in parameters.values() if p.requires_grad),
                tuple(dtypes.most_common()),
            )
