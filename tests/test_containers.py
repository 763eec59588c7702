"""A bad batch is named whatever it comes in: plain containers, and classes that torch knows."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, deque
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree

import nanhunt
from nanhunt.core.guard.later import to_device
from nanhunt.core.tensors.stats import plain_tensors


class Pair(NamedTuple):
    """A batch as a named tuple."""

    inputs: Tensor
    target: Tensor


class Output(OrderedDict[str, Tensor]):
    """As transformers' ModelOutput: a dict whose entries are attributes as well."""

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Graph:
    """As torch_geometric's Data: no container that anybody knows, until it is registered."""

    def __init__(self, inputs: Tensor, target: Tensor) -> None:
        self.inputs, self.target = inputs, target


class Numbered(Graph):
    """Registered by somebody who did not name its parts."""


@dataclasses.dataclass
class Sample:
    """A dataclass that torch does not know."""

    inputs: Tensor
    target: Tensor


def flatten(graph: Graph) -> tuple[list[Tensor], None]:
    return [graph.inputs, graph.target], None


def flatten_with_keys(graph: Graph) -> tuple[list[tuple[Any, Tensor]], None]:
    names = ("inputs", "target")
    return [(_pytree.GetAttrKey(name), getattr(graph, name)) for name in names], None


# For good: torch has no public way back, and nobody else meets these classes.
_pytree.register_pytree_node(
    Graph, flatten, lambda parts, _: Graph(*parts), flatten_with_keys_fn=flatten_with_keys
)
_pytree.register_pytree_node(Numbered, flatten, lambda parts, _: Numbered(*parts))


def good() -> Tensor:
    return torch.ones(2, 3)


def bad() -> Tensor:
    return torch.tensor([[1.0, float("nan"), 1.0], [1.0, 1.0, 1.0]])


BATCHES: dict[str, tuple[Any, Any, str]] = {
    "tensor": (bad, lambda batch: batch, "batch"),
    "tuple": (lambda: (good(), bad()), lambda batch: batch[1], "batch[1]"),
    "dicts in a list": (
        lambda: [{"x": bad(), "y": good()}],
        lambda batch: batch[0]["x"],
        "batch[0]['x']",
    ),
    "named tuple": (lambda: Pair(bad(), good()), lambda batch: batch.inputs, "batch[0]"),
    "model output": (
        lambda: Output(inputs=bad(), target=good()),
        lambda batch: batch.inputs,
        "batch['inputs']",
    ),
    "registered class": (
        lambda: Graph(good(), bad()),
        lambda batch: batch.target,
        "batch.target",
    ),
    "registered class in a dict": (
        lambda: {"graph": Graph(bad(), good())},
        lambda batch: batch["graph"].inputs,
        "batch['graph'].inputs",
    ),
    "registered without names": (
        lambda: Numbered(good(), bad()),
        lambda batch: batch.target,
        "batch[1]",
    ),
    "deque": (lambda: deque([good(), bad()]), lambda batch: batch[1], "batch[1]"),
    "unregistered dataclass": (
        lambda: Sample(bad(), good()),
        lambda batch: batch.inputs,
        "batch",
    ),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_a_bad_tensor_is_found_and_named_in_every_container(kind: str) -> None:
    make, take, name = BATCHES[kind]
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(batch: Any) -> Tensor:
        optimizer.zero_grad()
        loss = model(take(batch)).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    found = nanhunt.hunt(model, step, data=[make()], steps=1, progress=False).finding
    assert found is not None
    assert (found.phase, found.tensor) == ("data", name)


@pytest.mark.parametrize("kind", BATCHES)
def test_tensors_are_found_in_every_container(kind: str) -> None:
    make, take, _ = BATCHES[kind]
    batch = make()
    found = plain_tensors(batch)
    assert any(tensor is take(batch) for tensor in found)
    assert len(found) == (1 if kind == "tensor" else 2)


def test_what_is_moved_to_a_device_keeps_its_class() -> None:
    meta = torch.device("meta")
    moved = to_device([Pair(good(), bad()), {"graph": Graph(good(), bad()), "n": 3}], meta)
    assert isinstance(moved[0], Pair)
    assert isinstance(moved[1]["graph"], Graph)
    assert moved[1]["n"] == 3
    assert {tensor.device for tensor in plain_tensors(moved)} == {meta}
