"""The accessor delegates: same signatures, same results, no state."""

from __future__ import annotations

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from xr_spde import assim, plot
from xr_spde.accessors import AssimDataArrayAccessor, AssimDatasetAccessor
from xr_spde.accessors.assim import AssimFigures
from xr_spde.errors import ParameterError, SchemaError

PAIRS = [
    (accessor, name, assim)
    for accessor in (AssimDataArrayAccessor, AssimDatasetAccessor)
    for name in ("assimilate", "cycle", "steps", "score")
]
PAIRS += [(AssimFigures, name, plot) for name in ("increments", "rank_histogram", "series")]


def arguments(function):
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [(p.name, p.kind, p.default) for p in parameters]


@pytest.fixture
def fields():
    z = np.random.default_rng(0).standard_normal((12, 5, 6))
    coords = {
        "lat": ("lat", 40.0 + np.arange(5), {"units": "degrees_north"}),
        "lon": ("lon", 358.0 + np.arange(6), {"units": "degrees_east"}),
    }
    return xr.DataArray(z, coords, ("number", "lat", "lon"), "z", {"units": "m"})


@pytest.fixture
def obs():
    place = {"lat": ("obs", [41.0, 43.5]), "lon": ("obs", [-1.0, 1.5])}
    return xr.DataArray([1.0, -1.0], place, "obs")


@pytest.mark.parametrize(
    ("accessor", "name", "module"), PAIRS, ids=[f"{c.__name__}.{n}" for c, n, _ in PAIRS]
)
def test_signatures_are_those_of_the_functions(accessor, name, module):
    assert arguments(getattr(accessor, name)) == arguments(getattr(module, name))
    text = inspect.getdoc(getattr(accessor, name))
    assert "Returns\n---" in text
    assert all(parameter in text for parameter, _, _ in arguments(getattr(accessor, name)))


def test_results_are_those_of_the_functions(fields, obs):
    found = fields[1:].assim.assimilate(obs, obs_error=0.5, localization=500e3)
    xr.testing.assert_identical(
        found, assim.assimilate(fields[1:], obs, obs_error=0.5, localization=500e3)
    )
    scored = found.assim.score(fields[0])
    xr.testing.assert_identical(scored, assim.score(found, fields[0]))
    seen = obs.expand_dims(time=[1, 2])
    cycled = fields.to_dataset().assim.cycle(
        {"z": seen}, forecast=lambda e, a, b: e, obs_error=0.5, localization=500e3
    )
    assert cycled.z.sizes["time"] == 2
    assert (
        len(
            list(fields.assim.steps(seen, forecast=lambda e, a, b: e, obs_error=0.5, method="etkf"))
        )
        == 2
    )


def test_figures(fields, obs):
    found = fields[1:].assim.assimilate(obs, obs_error=0.5, localization=500e3)
    figure = found.assim.plot.increments()
    titles = [ax.get_ylabel() for ax in figure.axes]
    assert any(title.startswith("increment") for title in titles)
    marked = figure.axes[1].collections[-1].get_offsets()
    np.testing.assert_allclose(np.sort(marked[:, 0]), [359.0, 361.5])
    ax = found.assim.score(fields[0]).assim.plot.rank_histogram()
    np.testing.assert_allclose(sum(bar.get_height() for bar in ax.patches), 1.0)
    plt.close("all")
    with pytest.raises(SchemaError, match="lacks"):
        fields.to_dataset().assim.plot.increments()
    with pytest.raises(SchemaError, match="rank_histogram"):
        found.assim.plot.rank_histogram()
    with pytest.raises(ParameterError, match="three are expected"):
        found.assim.plot.increments(axes=[ax])
