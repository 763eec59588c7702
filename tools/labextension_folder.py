"""Lets the package be installed for development where the JupyterLab extension cannot be built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LabextensionFolder(BuildHookInterface[Any]):
    """Makes the folder that an editable install expects; a real wheel has to have it built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel's files are collected."""
        if version == "editable":
            (Path(self.root) / "nanhunt" / "labextension").mkdir(exist_ok=True)
