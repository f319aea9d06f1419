"""What every test needs: no network, one thread a worker, reproducible property tests, runs that are made once."""

import gc
import os
import tempfile
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CLINALIGN_CACHE"] = tempfile.mkdtemp(prefix="clinalign-tests-")  # never the user's

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from once import Once  # noqa: E402
from once import once as shared_by_all  # noqa: E402

settings.register_profile(
    "clinalign",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("clinalign")


def pytest_collection_finish() -> None:
    """What imports and collection made stays to the end: the garbage collector need not look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Folders that all workers share, each filled by the first test that asks for it."""
    base = tmp_path_factory.getbasetemp()
    return shared_by_all((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once")


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """For modules that look at no figure: drawing them takes longer than the rest of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clinalign.pages.report.write_figures", lambda *given: [])
        yield
