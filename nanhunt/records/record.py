"""What every result has in common: frozen, plain data, shown in a notebook, saved as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from nanhunt.errors import ReportFormatError
from nanhunt.records.codec import decode, encode
from nanhunt.render.html import fragment, page
from nanhunt.render.text import text

if TYPE_CHECKING:
    from nanhunt.render.story import Story

FILE_SUFFIX = ".nanhunt.json"

_Record = TypeVar("_Record", bound="Record")


class Record:
    """A frozen record of numbers and strings; its subclasses are dataclasses.

    Nothing in it holds a tensor, a module, a traceback or a closure, so it can outlive the run,
    cross processes and be saved.

    Attributes:
        FORMAT, VERSION: what its JSON says it is.
        LINES: how many lines its text has at most.
        MIME_TYPE: under which front ends are given its JSON too, or empty.
    """

    FORMAT: ClassVar[str]
    VERSION: ClassVar[int] = 1
    LINES: ClassVar[int] = 60
    MIME_TYPE: ClassVar[str] = ""

    def story(self) -> Story:
        """What it says, in the order of importance; all renderers follow it."""
        raise NotImplementedError

    def derived(self) -> dict[str, Any]:
        """What its JSON holds besides its fields, for readers without nanhunt."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON data; `from_dict` reads it back."""
        head = {"format": self.FORMAT, "version": self.VERSION}
        return {**head, **self.derived(), **encode(self)}

    @classmethod
    def from_dict(cls: type[_Record], data: Any) -> _Record:
        """Reads what `to_dict` made.

        Raises:
            ReportFormatError: the data are of another format or version, or damaged.
        """
        name = cls.FORMAT.replace(".", " ")
        if not isinstance(data, dict) or data.get("format") != cls.FORMAT:
            raise ReportFormatError(f"this is not a {name}: its `format` is not {cls.FORMAT!r}")
        if data.get("version") != cls.VERSION:
            raise ReportFormatError(
                f"this {name} has version {data.get('version')!r}; this nanhunt reads version "
                f"{cls.VERSION}. Install the version of nanhunt that wrote it, or a newer one."
            )
        return decode(cls, data, cls.FORMAT.rpartition(".")[2])

    def save(self, path: str | Path) -> Path:
        """Writes it as JSON; the name is given the suffix `.nanhunt.json`."""
        path = Path(path)
        if not path.name.endswith(FILE_SUFFIX):
            path = path.with_name(path.name.removesuffix(".json") + FILE_SUFFIX)
        path.write_text(json.dumps(self.to_dict(), allow_nan=False, indent=1), encoding="utf-8")
        return path

    @classmethod
    def load(cls: type[_Record], path: str | Path) -> _Record:
        """Reads what `save` wrote.

        Raises:
            ReportFormatError: the file is not JSON, or not of this kind or version.
            OSError: the file cannot be read.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            name = cls.FORMAT.replace(".", " ")
            raise ReportFormatError(f"{path} is not a {name}: {error}") from error
        return cls.from_dict(data)

    def to_html(self, path: str | Path | None = None) -> str:
        """Returns it as HTML; with `path` also writes a standalone page there."""
        story = self.story()
        if path is not None:
            Path(path).write_text(page(story), encoding="utf-8")
        return fragment(story)

    def __str__(self) -> str:
        return text(self.story(), self.LINES)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": str(self), "text/html": self.to_html()}
        return {**bundle, self.MIME_TYPE: self.to_dict()} if self.MIME_TYPE else bundle
