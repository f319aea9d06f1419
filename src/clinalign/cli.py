"""A command line into a call. Everything heavy is imported inside the commands, so that `--help` is instant."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from clinalign import __version__
from clinalign.errors import UsageError
from clinalign.exits import ending_well
from clinalign.processes import rank

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

NEW = Path("run")
"""The run folder where none is named."""
RecipeArgument = Annotated[
    str, typer.Argument(help="A recipe file, the name of a shipped recipe, or a run folder", metavar="RECIPE")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Overrides such as align.beta=0.2", metavar="[KEY=VALUE]...")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The run folder")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder; finished stages are kept")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version")] = False) -> None:
    """Make a medical vision-language model say what the image shows, and prove that it does.

    Research software. Not a medical device; nothing it prints is a diagnosis.
    """
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    overrides: Overrides = None,
    out: Out = Path("demo"),
    resume: Resume = False,
) -> None:
    """The main job on phantom radiographs with the embedded model: base, FiRe-MPO, keep, DPO and SFT, and a page."""
    _run("demo", overrides, out, resume)


@app.command("run")
def run_(recipe: RecipeArgument, overrides: Overrides = None, out: Out = Path("run"), resume: Resume = False) -> None:
    """Every stage of a recipe: ingest, answer, pair, corrupt, align, evaluate, report."""
    _run(recipe, overrides, out, resume)


@app.command()
def sweep(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the sweep")] = Path("sweep"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in the folder")] = False,
    force: Annotated[bool, typer.Option("--force", help="Read test again after a change; the page says so")] = False,
) -> None:
    """Try the settings of a recipe's `sweep`, let dev choose, read test once, write one page."""
    from clinalign.recipe import load_recipe
    from clinalign.study.sweep import sweep as run_sweep

    page = run_sweep(load_recipe(recipe, overrides), out, resume=resume, force=force, file=recipe)
    typer.echo(f"Page: {page.resolve()}")


def _own_folder(recipe: str, out: Path) -> Path:
    """Where a stage works: of a run folder that run's own stage is meant, where no other folder is named."""
    return Path(recipe) if out == NEW and (Path(recipe) / "run.json").is_file() else out


def _stage_command(name: str, text: str) -> None:
    def command(recipe: RecipeArgument, overrides: Overrides = None, out: Out = NEW) -> None:
        from clinalign.folder import Run
        from clinalign.recipe import load_recipe
        from clinalign.run import execute

        out = _own_folder(recipe, out)
        execute(Run(load_recipe(recipe, overrides), out, resume=True), only=name)
        if rank():
            return
        if name == "evaluate":
            from clinalign.pages import print_table

            print_table(out)
        typer.echo(f"{name}: done, in {out}")

    command.__doc__ = text
    app.command(name, rich_help_panel="Stages")(command)


_stage_command("ingest", "Data into examples.parquet and images/.")
_stage_command("warmup", "The recipe's supervised warm-up on true answers, where it has one.")
_stage_command("answer", "The model's own greedy answers, token ids kept.")


@app.command(rich_help_panel="Stages")
def pair(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: Out = NEW,
    decisions: Annotated[Path | None, typer.Option(help="Decisions on pairs, downloaded from the page")] = None,
) -> None:
    """Answers into minimal-edit preference pairs with exact spans; a reader's decisions applied."""
    from clinalign.folder import Run
    from clinalign.recipe import load_recipe
    from clinalign.run import execute

    out = _own_folder(recipe, out)
    run = Run(load_recipe(recipe, overrides), out, resume=True)
    if decisions is not None:  # not part of the recipe: the run folder keeps what was decided
        run.recipe.pair.decisions = str(decisions)
    execute(run, only="pair")
    if rank() == 0:
        typer.echo(f"pair: done, in {out}")


_stage_command("corrupt", "The lesion taken out of a copy of every pair's image, with a matched control.")
_stage_command("align", "Pairs into adapters: the method of the recipe and the systems it is compared with.")
_stage_command(
    "distill", "The same for systems that a frozen teacher CLIP teaches beside their method, and their maps."
)
_stage_command(
    "reinforce", "VALOR: reports sampled, rewarded and followed, in place of training on pairs; needs no pair."
)
_stage_command("evaluate", "Every system on the test split, with intervals and paired tests.")


@app.command(rich_help_panel="Look")
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder")],
    pairs: Annotated[int, typer.Option(min=0, help="How many pairs to show for review; 0: all")] = 60,
    times: Annotated[int, typer.Option(min=1, help="How many times the usual number of examples to show")] = 1,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Show the images of patients, or none")] = True,
) -> None:
    """Write report.html anew from a run folder."""
    from clinalign.pages import write_report

    if not (folder / "run.json").is_file():
        raise UsageError(f"{folder}: not a run folder (no run.json); give the folder that a run wrote")
    typer.echo(write_report(folder, pairs=pairs, times=times, images=images))


@app.command(rich_help_panel="Look")
def check(
    target: Annotated[str, typer.Argument(help="A recipe, a table or a model folder", metavar="RECIPE|TABLE|MODEL")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder that the run will fill: is there space?")] = Path(
        "run"
    ),
    card: Annotated[str, typer.Option(help="A card that is not here: h100, h200, b200, a100, l40s, rtx4090")] = "",
) -> None:
    """Try all that a recipe's stages will need, before any runs, and say what its training takes; or validate a table
    or a model."""
    from clinalign.check import check as look

    typer.echo(look(target, overrides, out, card))


@app.command()
def init(
    data: Annotated[str, typer.Argument(help="A table: CSV, TSV, XLSX, JSON, JSONL or Parquet")],
    model: Annotated[str, typer.Option(help="Folder or hub name of the model")] = "embedded",
    out: Annotated[Path, typer.Option("--out", "-o", help="The recipe to write")] = Path("recipe.yaml"),
    column: Annotated[list[str] | None, typer.Option(help="OURS=YOURS, where the guess is wrong")] = None,
) -> None:
    """Write a commented recipe for a table and a model, columns guessed."""
    from clinalign.init import write_recipe

    pairs = [text.partition("=") for text in column or []]
    if any(not (ours and theirs) for ours, _, theirs in pairs):
        raise UsageError("--column is OURS=YOURS, for example --column answer=ground_truth")
    typer.echo(write_recipe(data, model, out, {ours: theirs for ours, _, theirs in pairs}))


@app.command(rich_help_panel="Look")
def options(
    path: Annotated[str, typer.Argument(help="A key or a group of keys, such as align.lora; all without it")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/options.md")] = False,
) -> None:
    """Every key of a recipe: type, default, meaning."""
    from clinalign.option_list import as_markdown, as_text, chosen
    from clinalign.recipe import Recipe

    typer.echo(as_markdown(Recipe) if markdown else as_text(chosen(Recipe, path)), nl=not markdown)


@app.command(rich_help_panel="Models")
def small(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the model")] = Path("small"),
    cache: Annotated[str, typer.Option(help="Folder of the downloads; empty: $CLINALIGN_CACHE or ~/.cache")] = "",
    steps: Annotated[int, typer.Option(help="Steps of the projector's training; 0: eight passes", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the projector's first weights and of the order")] = 0,
) -> None:
    """Build a small real model (139 million parameters) from pretrained halves that packages carry."""
    from clinalign.small import build_small

    typer.echo(build_small(out, cache=cache, steps=steps, seed=seed))


@app.command(rich_help_panel="Look")
def audit(
    corpus: Annotated[Path, typer.Argument(help="A run folder, or a preference file of ours, TRL, MMedPO, RRPO ...")],
    test: Annotated[Path | None, typer.Option("--test", help="Examples or pairs that must not overlap")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the whole result here as JSON")] = None,
) -> None:
    """Does a preference corpus teach medicine or style? pass, warn or fail with reasons; exit code 2 for fail."""
    from clinalign.pairs.audit import audit_file, describe
    from clinalign.storage import write_json

    result = audit_file(corpus, test)
    if out is not None:
        write_json(out, result)
    typer.echo(describe(result))
    if result["verdict"] == "fail":
        raise UsageError(f"{result['source']}: fails the audit; {result['reasons'][0]}")


@app.command(rich_help_panel="Look")
def export(
    run: Annotated[Path, typer.Argument(help="A run folder, or a table of pairs", metavar="RUN")],
    to: Annotated[str, typer.Option("--to", help="trl, llama_factory or ms_swift")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder to write; RUN/export/LAYOUT")] = None,
) -> None:
    """The pairs of a run in the layout of another trainer, spans riding along."""
    from clinalign.pairs.export import export as write

    typer.echo(write(run, to, out))


@app.command(rich_help_panel="Models")
def convert(
    source: Annotated[Path, typer.Argument(help="A folder in the original LLaVA layout")],
    out: Annotated[Path, typer.Argument(help="The folder of the converted model")],
    vision: Annotated[str, typer.Option(help="A folder with the CLIP tower, where the checkpoint has none")] = "",
    prompt: Annotated[str, typer.Option(help="vicuna, mistral or huatuo; empty: by the decoder")] = "",
) -> None:
    """Turn an original checkpoint (LLaVA, LLaVA-Med, HuatuoGPT-Vision) into a Hugging Face folder."""
    from clinalign.models.convert import convert as convert_folder

    typer.echo(convert_folder(source, out, vision=vision, prompt=prompt))


@app.command(rich_help_panel="Models")
def merge(
    run: Annotated[Path, typer.Argument(help="A run folder")],
    out: Annotated[Path, typer.Argument(help="The folder of the merged model")],
    system: Annotated[str, typer.Option(help="Which system's adapter; empty: the method of interest")] = "",
) -> None:
    """Add a run's adapter to the weights: a plain model folder for transformers, vLLM and others."""
    from clinalign.merge import merge as merge_run

    typer.echo(merge_run(run, out, system=system))


@app.command(rich_help_panel="Models")
def parity(
    run: Annotated[Path, typer.Argument(help="A run folder")],
    way: Annotated[str, typer.Option("--with", help="merged, transformers, peft or vllm")] = "transformers",
    system: Annotated[str, typer.Option(help="Which system's adapter; empty: the method of interest")] = "",
    limit: Annotated[int, typer.Option(help="Most questions of the test split", min=1)] = 32,
) -> None:
    """Ask the same questions of a run's model here and as others will load it: equal answers, largest logit gap."""
    from clinalign.merge import parity as compare_ways

    found = compare_ways(run, way, system=system, limit=limit)
    typer.echo(found.line())
    if not found.holds:
        raise typer.Exit(1)


@app.command(rich_help_panel="Look")
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders that were asked the same questions", metavar="RUN...")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the whole result here as JSON")] = None,
) -> None:
    """Systems by suites in one table, with intervals and corrected paired tests by patient."""
    from clinalign.evaluation.compare import as_text, compare_runs
    from clinalign.storage import write_json

    result = compare_runs(runs)
    if out is not None:
        write_json(out, result)
    typer.echo(as_text(result))


@app.command(rich_help_panel="Look")
def agent(
    recipe: Annotated[str, typer.Argument(help="A recipe of the agent, or phantom for drawn eyes")] = "phantom",
    overrides: Overrides = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder to write; in the folder of a run its page gets a section")
    ] = Path("agent"),
) -> None:
    """Ask a model alone and with tools, documents and a checker around it; every claim traced to what carries it."""
    from clinalign.agent_run import agent_folder, as_text, load_agent_recipe, run_agent

    result = run_agent(load_agent_recipe(recipe, overrides or ()), out)
    folder = agent_folder(out)
    page = folder / "agent.html" if folder == out else out / "report.html"
    typer.echo(f"{as_text(result)}\nPage: {page.resolve()}")


@app.command(rich_help_panel="Look")
def env() -> None:
    """Versions and hardware, for a bug report."""
    import platform

    from clinalign.folder import PACKAGES, version_of

    typer.echo(
        f"clinalign {__version__} · Python {platform.python_version()} · {platform.system()} {platform.machine()}"
    )
    for name in PACKAGES:
        typer.echo(f"{name} {version_of(name)}")
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    typer.echo(f"threads {torch.get_num_threads()} · GPU {', '.join(devices) or 'none'}")


def _run(recipe: str, overrides: list[str] | None, out: Path, resume: bool) -> None:
    import time

    start = time.monotonic()
    from clinalign.folder import Run
    from clinalign.recipe import load_recipe
    from clinalign.run import execute

    execute(Run(load_recipe(recipe, overrides), out, resume=resume), file=recipe)
    if rank():
        return
    from clinalign.pages import print_caveats, print_table

    print_table(out)
    print_caveats(out)
    typer.echo(f"{time.monotonic() - start:.0f} s. Page: {(out / 'report.html').resolve()}")


def main() -> None:
    """Entry point; `exits.ending_well` has the exit codes."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", module=r"(transformers|peft)\.")  # notes to these libraries' own developers
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    ending_well(app)


if __name__ == "__main__":
    main()
