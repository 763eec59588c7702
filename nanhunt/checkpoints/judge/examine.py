"""One checkpoint, read through once: what it holds and what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from nanhunt.checkpoints.formats import opening
from nanhunt.checkpoints.formats.contents import Contents, ZipMember
from nanhunt.checkpoints.judge.judge import judge
from nanhunt.checkpoints.judge.roles import Roles, roles_in
from nanhunt.checkpoints.judge.scan import Scan, checksums_of, scan_all
from nanhunt.core.tensors.dtypes import dtype_name
from nanhunt.records.diagnosis import Diagnosis, Problem


@dataclasses.dataclass
class ExaminedCheckpoint:
    """A checkpoint with everything that was read of it."""

    contents: Contents
    roles: Roles
    scans: list[Scan]
    problems: list[Problem]

    def diagnosis(self) -> Diagnosis:
        """What is told about it."""
        entries = self.contents.entries
        dtypes: Counter[str] = Counter()
        for entry in entries:
            dtypes[dtype_name(entry.dtype) if entry.dtype else "unknown"] += entry.numel
        notes = [f"{e.key}: not looked at ({e.note})" for e in entries if e.note]
        spans = {entry.span for entry in entries if entry.span is not None}
        memory = sum(e.tensor.numel() * e.tensor.itemsize for e in entries if e.tensor is not None)
        return Diagnosis(
            path=str(self.contents.path),
            layout=self.contents.layout,
            problems=tuple(self.problems),
            tensors=len(entries),
            elements=sum(entry.numel for entry in entries),
            nbytes=sum(span.nbytes for span in spans) + memory,
            dtypes=tuple(dtypes.most_common()),
            notes=(*self.contents.notes, *notes),
        )


def examine(
    path: Path, buffers: Collection[str] = (), parameters: Collection[str] = ()
) -> ExaminedCheckpoint:
    """Reads one checkpoint through.

    Args:
        path: a file, or a folder that is one checkpoint.
        buffers, parameters: keys that a model says are these.

    Raises:
        CheckpointError: it is damaged, of no known format, or would need code to be run.
        OSError: it cannot be opened.
    """
    return examine_contents(opening.read(path), buffers, parameters)


def examine_contents(
    contents: Contents, buffers: Collection[str] = (), parameters: Collection[str] = ()
) -> ExaminedCheckpoint:
    """Reads the tensors of what was opened."""
    roles = roles_in(contents, buffers, parameters)
    scans, checksums = scan_all(contents.entries)
    rest: list[ZipMember] = [
        r for r in contents.records if r.crc is not None and r not in checksums
    ]
    checksums |= checksums_of(rest)
    return ExaminedCheckpoint(contents, roles, scans, judge(contents, scans, checksums, roles))
