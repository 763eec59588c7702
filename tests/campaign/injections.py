"""Faults put into real architectures, each with the place that a hunt must name.

Every fault is made by arithmetic (0/0, an overflow) or written, in a line that ends with the
comment `# injected KIND`; whether it reaches a loss, gradient, parameter, statistic or
optimizer state is verified by running the step bare. What does not reach is drawn again.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nanhunt.records.report import Finding
from tests.campaign.architectures import build

HUGE = 3e38
KINDS = (
    "overflow",
    "division",
    "write_nan",
    "write_inf",
    "gradient",
    "parameter",
    "buffer",
    "state",
)


# What may be named as the cause; "not established" is never wrong.
CAUSES = {
    "overflow": {"float32_overflow"},
    "division": {"zero_by_zero"},
    "write_nan": {"written_constant"},
    "write_inf": {"written_constant"},
    "gradient": {"gradient_explosion"},
    "parameter": {"weights_bad_before"},
    "buffer": {"buffer_bad_before", "statistics_bad_before"},
    "state": {"optimizer_state_bad_before"},
}


@dataclasses.dataclass
class Injection:
    """One fault in one architecture, and the finding that is expected."""

    architecture: str
    kind: str
    model: nn.Module
    step: Callable[[], Any]
    expected: dict[str, Any]
    comment: str | None

    def misses(self, finding: Finding | None) -> list[str]:
        """What a finding gets wrong; empty when it is exact."""
        if finding is None:
            return ["nothing found"]
        wrong = [
            f"{key}: {getattr(finding, key)!r} instead of {value!r}"
            for key, value in self.expected.items()
            if getattr(finding, key) != value
        ]
        if finding.cause not in {*CAUSES[self.kind], "not_established"}:
            wrong.append(f"cause: {finding.cause}")
        if self.comment is not None:
            line = None if finding.source is None else (finding.source.file, finding.source.line)
            if line != (__file__, _line_of(self.comment)):
                wrong.append(f"line: {finding.source}")
        return wrong


@functools.lru_cache
def _line_of(comment: str) -> int:
    lines = inspect.getsource(inspect.getmodule(_line_of)).splitlines()
    return next(i for i, text in enumerate(lines, 1) if text.endswith(f"# injected {comment}"))


class Poison(torch.autograd.Function):
    """The identity forward; backward, the gradient overflows at one element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        spike = torch.zeros(grad.shape)
        spike.view(-1)[0] = HUGE
        return grad + spike * spike


def overflow(x: Tensor) -> Tensor:
    spike = torch.zeros(x.shape)
    spike.view(-1)[-1] = HUGE
    return x + spike * spike  # injected overflow


def division(x: Tensor) -> Tensor:
    ones = torch.ones(x.shape)
    ones.view(-1)[0] = 0
    return x + (ones * 0) / ones  # injected division


def write_nan(x: Tensor) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    x.view(-1)[0] = float("nan")  # injected write_nan
    return x


def write_inf(x: Tensor) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    x.view(-1)[-1] = float("inf")  # injected write_inf
    return x


def gradient(x: Tensor) -> Tensor:
    return Poison.apply(x)  # injected gradient


_OUTPUTS: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, Any]]] = {
    "overflow": (overflow, {"kind": "inf", "phase": "forward", "op": "aten.mul.Tensor"}),
    "division": (division, {"kind": "nan", "phase": "forward", "op": "aten.div.Tensor"}),
    "write_nan": (write_nan, {"kind": "nan", "phase": "forward"}),
    "write_inf": (write_inf, {"kind": "inf", "phase": "forward"}),
    "gradient": (gradient, {"kind": "inf", "phase": "backward", "node": "PoisonBackward"}),
}


def draw(seed: int, names: list[str]) -> Injection | None:
    """Makes the injection of a seed, or None when it would reach nothing."""
    dice = random.Random(seed)
    name, kind = dice.choice(names), dice.choice(KINDS)
    make = _into_output if kind in _OUTPUTS else _into_state
    injection = make(name, kind, random.Random(seed))
    if injection is None:
        return None
    trial = make(name, kind, random.Random(seed))
    assert trial is not None
    return injection if _reaches(trial) else None


def _into_output(name: str, kind: str, dice: random.Random) -> Injection | None:
    model, step, _ = build(name, dice.randrange(1000))
    paths = [path for path, module in model.named_modules() if not isinstance(module, nn.Embedding)]
    path, at = dice.choice(paths), dice.randrange(3)
    call = 2 if name == "albert" and dice.random() < 0.5 else 1
    change, expected = _OUTPUTS[kind]
    counter = {"step": -1, "call": 0}

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        counter["call"] += 1
        if counter["step"] == at and counter["call"] == call:
            return _changed(output, change)
        return None

    model.get_submodule(path).register_forward_hook(hook)

    def counted() -> Any:
        counter["step"] += 1
        counter["call"] = 0
        return step()

    return Injection(
        name, kind, model, counted, {**expected, "module": path, "step": at, "call": call}, kind
    )


def _changed(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(output, Tensor):
        return change(output) if output.is_floating_point() and output.numel() else output
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return (_changed(output[0], change), *output[1:])
    if isinstance(output, dict):
        for key, value in output.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                output[key] = change(value)
                break
    return output


def _into_state(name: str, kind: str, dice: random.Random) -> Injection | None:
    model, step, optimizer = build(name, dice.randrange(1000))
    value = dice.choice([float("nan"), float("inf")])
    parameters = dict(model.named_parameters())
    if kind == "state":
        step()
        path = dice.choice(list(parameters))
        entries = {
            key: tensor
            for key, tensor in optimizer.state[parameters[path]].items()
            if key != "step" and isinstance(tensor, Tensor)
        }
        if not entries:
            return None
        key = dice.choice(sorted(entries))
        tensor, path = entries[key], f"optimizer.state[{path}].{key}"
    else:
        named = parameters if kind == "parameter" else dict(model.named_buffers())
        named = {k: t for k, t in named.items() if t.is_floating_point() and t.numel()}
        if not named:
            return None
        path = dice.choice(list(named))
        tensor = named[path]
    with torch.no_grad():
        tensor.view(-1)[dice.randrange(tensor.numel())] = value
    expected = {"kind": "poisoned_state", "phase": "state", "tensor": path, "step": 0}
    return Injection(name, kind, model, step, expected, None)


def _reaches(injection: Injection) -> bool:
    """Whether the fault reaches something that matters, in its step, run bare."""
    model = injection.model
    for _ in range(injection.expected["step"] + 1):
        loss = injection.step()
    statistics = [b for n, b in model.named_buffers() if "running_" in n]
    tensors = [loss, *model.parameters(), *statistics]
    tensors += [p.grad for p in model.parameters() if p.grad is not None]
    return any(not bool(torch.isfinite(tensor).all()) for tensor in tensors)
