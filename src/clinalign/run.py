"""The order in which the stages of a recipe run."""

from __future__ import annotations

import signal
from collections.abc import Callable

from clinalign.errors import UsageError
from clinalign.folder import NotDone, Run
from clinalign.processes import hear, rank
from clinalign.progress import say
from clinalign.stages.answers import answer
from clinalign.stages.corpus import corrupt, ingest, pair
from clinalign.stages.results import attention_maps, evaluate, report
from clinalign.stages.training import align, distill, gather, reinforce, reinforce_system, train_system, warmup

JOINT: dict[str, Callable[..., None]] = {
    "warmup": warmup,
    "train_system": train_system,
    "reinforce_system": reinforce_system,
}
"""What all processes of a launcher do together; all else is the first one's work."""


def execute(run: Run, only: str | None = None, *, file: str = "recipe") -> None:
    """Runs every stage that is not done, after trying all that they will need (`preflight`).

    With `only`, runs that one stage, in every round its predecessors allow. `file` is what messages call the recipe.
    Of several processes the first one does this; the others wait for the trainings and join in them.
    """
    if rank():
        return _follow(run)
    run.only = only
    try:
        with run.lock:
            if only is None:
                _check(run, file)
            for work, arguments in _plan(run):
                work(run, *arguments)
    except NotDone as missing:
        if run.ran == 0:
            command = str(missing).partition(":")[0]
            raise UsageError(f"{run.out}: stage '{missing}' is not done; run `clinalign {command}` first") from None
    finally:  # whatever ended it, a refusal before the first stage included: the others must not wait for ever
        run.dismiss()
        if run.workers is not None:
            run.workers.close()


def _follow(run: Run) -> None:
    """What the first process says is to be done together, until it says that nothing is left."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a wait for the first process does not come back to Python
    while (word := hear(cpu=run.on_cpu)) is not None:
        name, arguments = word
        JOINT[name](run, *arguments)


def _check(run: Run, file: str) -> None:
    """Refuses before the first stage what a later one would; says what may go wrong."""
    from clinalign.preflight import preflight, refuse

    alone = run.recipe.model_copy(update={"sweep": None})
    findings = preflight(alone, run.out, frozenset(name.partition(":")[0] for name in run.state["stages"]))
    for finding in findings:
        if finding.verdict == "warning":
            say(f"warning: {finding.line(file)}")
    refuse(findings, file)


def _plan(run: Run) -> list[tuple[Callable[..., None], tuple[int, ...]]]:
    pairs = (answer, pair, corrupt, align, distill)
    alone = all(run.recipe.system(label).reinforce is not None for label in run.recipe.systems())
    steps = (reinforce,) if alone and run.only in (None, "reinforce") else (*pairs, reinforce)
    rounds = [(work, (number,)) for number in range(run.recipe.rounds) for work in steps]
    return [(ingest, ()), (warmup, ()), *rounds, (gather, ()), (attention_maps, ()), (evaluate, ()), (report, ())]
