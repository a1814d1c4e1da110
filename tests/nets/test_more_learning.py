"""Check B3: raw replicates and lag products, 800 steps on 2200 fields, as in the benchmark.

About six minutes of a processor (`make test-long`); `benchmarks/learning.py` prints the curves.
"""

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

CASES, HELD, STEPS = 2200, 60, 800

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def learning():
    """The script of the benchmark, as a module."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import learning

        yield learning
    for name in {"learning", "_networks", "_machine", "published_sar"} - before:
        del sys.modules[name]


def test_b3(learning, tmp_path):
    networks, published, shape = learning.networks, learning.published, learning.SHAPE
    networks.simulate(str(tmp_path / "set"), {shape: CASES}, seed=1, workers=1)
    networks.simulate(str(tmp_path / "held"), {shape: HELD}, seed=2, workers=1)
    cases = networks.read(str(tmp_path / "set"), shape, 0, CASES)
    held = [published.case_arrays(str(tmp_path / "held"), shape, k) for k in range(HELD)]
    models = learning.contestants()
    for name, wanted in learning.WANTED.items():
        curve, _ = learning.learn(models[name], cases, held, STEPS)
        found = curve[-1]["r2"]
        assert (found >= wanted).all(), f"{name}: {found}, wanted {wanted}"
