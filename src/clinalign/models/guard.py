"""A model folder is data: no code of it runs, no pickle of it is opened, and its text cannot keep the program busy."""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from clinalign.errors import UsageError, first_line

EMBEDDED = ("embedded", "embedded2")
"""Names of the models that come with the package, of phantom-1 and of phantom-2."""

SAFE: dict[str, Any] = {"trust_remote_code": False}
"""Arguments of every loader. Left out, transformers asks on the terminal, and a piped "y" runs the folder's code."""

TEMPLATE_SECONDS = 10.0
"""How long a chat template may take for one prompt."""


def source_of(name: str) -> str:
    """The folder of an embedded model or a path, or the name itself where only a hub knows it. Else `UsageError`."""
    if name in EMBEDDED:
        folder = Path(str(files("clinalign.models") / name))
        if not (folder / "config.json").is_file():
            raise UsageError(
                f"{folder}: the embedded model is not in this installation; run `make embedded`, or reinstall"
            )
        return str(folder)
    path = Path(name).expanduser()
    if path.exists() and not (path / "config.json").is_file():
        raise UsageError(f"{path}: no model here (config.json is missing); give a folder saved with save_pretrained")
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise UsageError(f"{path}: no such model folder; check the path")
    return str(path) if path.exists() else name


def check_folder(source: str | Path) -> None:
    """`UsageError` where an index of a model or adapter folder names anything but safetensors files beside it, or all
    weights are pickles. What only a hub knows is checked when it is loaded (`use_safetensors`)."""
    folder = Path(source)
    if not folder.is_dir():
        return
    for index in sorted(folder.glob("*.index.json")):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise UsageError(f"{index}: not an index of weights ({first_line(error)}); download it again") from error
        for name in sorted(named, key=str):
            path = PurePosixPath(str(name).replace("\\", "/"))
            if path.is_absolute() or len(path.parts) != 1 or path.name in (".", "..") or ":" in path.name:
                raise UsageError(
                    f"{index}: '{str(name)[:80]}' lies outside the folder; weights stay beside their index"
                )
            if path.suffix != ".safetensors" and "safetensors" in index.name:
                raise UsageError(f"{index}: '{path}' is no safetensors file; pickled weights are not loaded")
    weights = {p.suffix for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt")}
    if weights and ".safetensors" not in weights:
        raise UsageError(f"{folder}: only pickled weights, which are not loaded; save them again as safetensors")


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of `call`, run in a thread of its own; `TimeoutError` after so many seconds, and the thread is told
    to end."""
    found: list[tuple[bool, Any]] = []

    def work() -> None:
        try:
            found.append((True, call()))
        except BaseException as error:  # noqa: BLE001  (handed to the caller below)
            found.append((False, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive() and thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        raise TimeoutError(f"no end after {seconds:g} s")
    good, value = found[0]
    if not good:
        raise value
    return value
