"""What pip builds: everything the package needs is in it, and it runs where nothing of the checkout is."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = ["data.splits={align: 12, test: 6}", "align.max_steps=1", "compare={}", "evaluate.resamples=200"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "-w", str(out)]
    subprocess.run([*pip, str(ROOT)], check=True)
    [built] = out.glob("clinalign-*.whl")
    return built


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    package = ROOT / "src" / "clinalign"
    files = {p.relative_to(package.parent).as_posix() for p in package.rglob("*") if p.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    found = set(zipfile.ZipFile(wheel).namelist())
    assert files <= found, sorted(files - found)[:5]
    assert "clinalign/models/embedded/model.safetensors" in found and "clinalign/recipes/demo.yaml" in found


INSTALLED = sorted(set(re.findall(r"--editable '(\.\[.+?\])'", (ROOT / "Makefile").read_text(encoding="utf-8"))))


@pytest.mark.slow
@pytest.mark.parametrize("extras", INSTALLED)
def test_what_make_installs_goes_together_at_the_pinned_versions(extras: str) -> None:
    """A tracker that asked for an older Pillow than the pinned one made `make test-slow` end before its first test."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
    pins = ["--ignore-installed", "--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run([*pip, *pins, f"{ROOT}{extras[1:]}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_the_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """A fresh environment that holds the wheel alone; its dependencies are those of this one."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    binary = tmp_path / "env" / "bin"
    subprocess.run([binary / "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    environment = os.environ | {"PYTHONPATH": sysconfig.get_paths()["purelib"], "CLINALIGN_CACHE": str(tmp_path)}

    def run(*command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    where = run(binary / "python", "-c", "import clinalign; print(clinalign.__file__)")
    assert where.startswith(str(tmp_path / "env"))
    assert "clinalign" in run(binary / "clinalign", "env")
    assert "--resume" in run(binary / "clinalign", "demo", "--help")
    run(binary / "clinalign", "demo", *SMALL, "--out", tmp_path / "demo")
    assert (tmp_path / "demo" / "report.html").is_file()
