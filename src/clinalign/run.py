"""The order in which the stages of a recipe run."""

from __future__ import annotations

from collections.abc import Callable

from clinalign.errors import UsageError
from clinalign.folder import NotDone, Run
from clinalign.progress import say
from clinalign.stages.corpus import answer, corrupt, ingest, pair
from clinalign.stages.results import attention_maps, evaluate, report
from clinalign.stages.training import align, distill, gather, warmup


def execute(run: Run, only: str | None = None, *, file: str = "recipe") -> None:
    """Runs every stage that is not done, after trying all that they will need (`preflight`).

    With `only`, runs that one stage, in every round its predecessors allow. `file` is what messages call the recipe.
    """
    run.only = only
    with run.lock:
        if only is None:
            _check(run, file)
        try:
            for work, arguments in _plan(run):
                work(run, *arguments)
        except NotDone as missing:
            if run.ran == 0:
                command = str(missing).partition(":")[0]
                raise UsageError(f"{run.out}: stage '{missing}' is not done; run `clinalign {command}` first") from None


def _check(run: Run, file: str) -> None:
    """Refuses before the first stage what a later one would; says what may go wrong."""
    from clinalign.preflight import preflight, refuse

    findings = preflight(run.recipe, run.out, frozenset(name.partition(":")[0] for name in run.state["stages"]))
    for finding in findings:
        if finding.verdict == "warning":
            say(f"warning: {finding.line(file)}")
    refuse(findings, file)


def _plan(run: Run) -> list[tuple[Callable[..., None], tuple[int, ...]]]:
    steps = (answer, pair, corrupt, align, distill)
    rounds = [(work, (number,)) for number in range(run.recipe.rounds) for work in steps]
    return [(ingest, ()), (warmup, ()), *rounds, (gather, ()), (attention_maps, ()), (evaluate, ()), (report, ())]
