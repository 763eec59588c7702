"""Names the cause of a finding: the first rule of the catalogue whose evidence holds."""

from __future__ import annotations

import dataclasses

from nanhunt.core.causes import gradients, half, masks, singular, state, updates
from nanhunt.core.causes.catalogue import NOT_ESTABLISHED, Account, Rule
from nanhunt.core.causes.scene import Scene
from nanhunt.records.report import Finding

# The order in which rules are asked: special before general.
_ORDER = (state, updates, gradients, masks, half, singular)
RULES = [entry for part in _ORDER for entry in vars(part).values() if isinstance(entry, Rule)]

__all__ = ["NOT_ESTABLISHED", "RULES", "Account", "Rule", "explain", "explained"]


def explain(scene: Scene) -> tuple[str, Account] | None:
    """Returns (id of the rule, its account), or None when no rule's evidence holds."""
    for rule in RULES:
        account = rule.judge(scene)
        if account is not None:
            return rule.id, account
    return None


def explained(scene: Scene) -> Finding:
    """The scene's finding with its cause, or with the evidence as it stands."""
    found = explain(scene)
    if found is None:
        return scene.finding
    name, account = found
    return dataclasses.replace(
        scene.finding,
        cause=name,
        explanation=account.sentence,
        evidence=(
            *account.evidence,
            *scene.finding.evidence,
            *(f"ruled out: {told}" for told in account.ruled_out),
        ),
    )
