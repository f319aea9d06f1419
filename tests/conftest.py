"""What every test needs: no network, one thread a worker, reproducible property tests."""

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CLINALIGN_CACHE"] = tempfile.mkdtemp(prefix="clinalign-tests-")  # never the user's

from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "clinalign",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("clinalign")
