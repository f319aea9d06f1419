"""A recipe into a verdict before anything runs: all that a later stage will need is tried, in seconds.

A stage's own refusals are asked for, not repeated: each check calls what the stage calls, and what that raises is the
finding. What cannot be known before the work (an audit of pairs that are not made, a leak behind the sample) is left to
the stage.
"""

from __future__ import annotations

from pathlib import Path

from clinalign.errors import UsageError
from clinalign.preflight.data import data_findings, sample
from clinalign.preflight.finding import Finding, as_table
from clinalign.preflight.model import decoder_findings, disk_finding, memory_findings, model_findings, open_model
from clinalign.preflight.settings import service_findings, setting_findings
from clinalign.recipe import Recipe

__all__ = ["Finding", "as_table", "preflight", "refuse"]


def preflight(recipe: Recipe, out: Path, done: frozenset[str] = frozenset()) -> list[Finding]:
    """Everything that a run of `recipe` into `out` will need, tried; `done` are stages that need not be run again."""
    sampled, findings = sample(recipe)
    if sampled is not None:
        findings += data_findings(recipe, sampled)
    vlm, refused = open_model(recipe)
    findings += refused + setting_findings(recipe) + service_findings(recipe, done)
    if vlm is not None:
        findings += model_findings(recipe, vlm, sampled) + decoder_findings(recipe, vlm)
        findings += memory_findings(recipe, vlm, sampled)
    return list(dict.fromkeys([*findings, disk_finding(recipe, out, vlm, sampled)]))


def refuse(findings: list[Finding], file: str) -> None:
    """Raises the first refusal as a `UsageError`, saying how many there are; `file` is what the recipe is called."""
    refused = [finding for finding in findings if finding.verdict == "refused"]
    if refused:
        more = f" (the first of {len(refused)}; `clinalign check` shows all)" if len(refused) > 1 else ""
        raise UsageError(f"{refused[0].line(file)}{more}")
