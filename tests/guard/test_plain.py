"""Batches of any kind as tensors and plain data."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from nanhunt.core.guard.plain import plain


@dataclasses.dataclass
class Sample:
    x: torch.Tensor
    name: str


Point = collections.namedtuple("Point", "x y")


def test_batches_of_any_kind_become_tensors_and_plain_data(tmp_path: Path) -> None:
    left_out: list[str] = []
    view = torch.arange(1000.0)[:3]
    value = {
        "array": np.arange(3, dtype=np.float32),
        "number": np.float64(2.5),
        "words": np.array(["a", "b"]),
        "sample": Sample(torch.ones(2), "first"),
        "point": Point(1, torch.zeros(1)),
        "ordered": collections.OrderedDict(a=1),
        "view": view,
        "strange": object(),
        "half": torch.ones(2, dtype=torch.complex32),
    }
    path = tmp_path / "x.pt"
    torch.save(plain(value, left_out, where="batch"), path)
    back = torch.load(path, weights_only=True)
    assert back["array"].tolist() == [0, 1, 2]
    assert back["sample"]["name"] == "first"
    assert back["point"] == (1, torch.zeros(1))
    assert back["ordered"] == {"a": 1}
    assert back["view"].untyped_storage().nbytes() == 12
    assert back["half"].dtype == torch.complex32
    assert left_out == ["batch['words']: ndarray", "batch['strange']: object"]


@dataclasses.dataclass
class Node:
    """Knows its children, and they know it."""

    x: torch.Tensor
    parent: Node | None = None
    children: list[Node] = dataclasses.field(default_factory=list)


@pytest.mark.timeout(20)
def test_a_tree_whose_nodes_know_their_parent_is_kept_without_the_way_back() -> None:
    root = Node(torch.ones(1))
    root.children = [Node(torch.ones(1) * n, parent=root) for n in range(30)]
    left_out: list[str] = []
    kept = plain(root, left_out, where="batches")
    assert [child["x"].item() for child in kept["children"]] == list(range(30))
    assert left_out[0] == "batches['children'][0]['parent']: Node"
    assert len(left_out) == 30
