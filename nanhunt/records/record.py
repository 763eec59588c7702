"""What records have in common that are shown in a notebook and written as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeVar

from nanhunt.errors import ReportFormatError
from nanhunt.records.codec import decode, encode

_Record = TypeVar("_Record", bound="Shown")


class Shown:
    """A frozen record with a story.

    Attributes:
        FORMAT, VERSION: what its JSON says it is.
        LINES: how many lines its text has at most.
        TELL: the function of `nanhunt.render` that tells its story.
        MIME_TYPE: under which front ends are given its JSON too, or empty.
    """

    FORMAT: ClassVar[str]
    VERSION: ClassVar[int] = 1
    LINES: ClassVar[int]
    TELL: ClassVar[str]
    MIME_TYPE: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON data; `from_dict` reads it back."""
        return {"format": self.FORMAT, "version": self.VERSION, **encode(self)}

    @classmethod
    def from_dict(cls: type[_Record], data: Any) -> _Record:
        """Reads what `to_dict` made.

        Raises:
            ReportFormatError: the data are of another format or version, or damaged.
        """
        known = isinstance(data, dict) and data.get("format") == cls.FORMAT
        if not known or data.get("version") != cls.VERSION:
            raise ReportFormatError(
                f"this is not a {cls.FORMAT} of version {cls.VERSION}; it was written by another "
                "program, or another version of nanhunt"
            )
        return decode(cls, data, cls.FORMAT)

    def to_html(self, path: str | Path | None = None) -> str:
        """Returns it as HTML; with `path` also writes a standalone page there."""
        from nanhunt import render

        story = self._story()
        if path is not None:
            Path(path).write_text(render.story_page(story), encoding="utf-8")
        return render.story_html(story)

    def _story(self) -> Any:
        from nanhunt import render

        return getattr(render, self.TELL)(self)

    def __str__(self) -> str:
        from nanhunt import render

        return render.story_text(self._story(), lines=self.LINES)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": str(self), "text/html": self.to_html()}
        return {**bundle, self.MIME_TYPE: self.to_dict()} if self.MIME_TYPE else bundle
