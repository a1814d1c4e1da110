"""Motion of real images: sea ice seen by radar, rain, and clouds over the sea."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xr_spde._core.errors import DataUnavailableError
from xr_spde.datasets import local_path
from xr_spde.fields.characteristics import departure
from xr_spde.fields.sampling import sample_missing
from xr_spde.latent.baselines import baseline
from xr_spde.latent.compare import displacement_of, rmse
from xr_spde.latent.frames import frame_between
from xr_spde.latent.motion import fit_motion


def images(name, variable):
    try:
        path = local_path(name)
    except DataUnavailableError as error:
        pytest.skip(str(error))
    with xr.open_dataset(path) as data:
        return data[variable].to_numpy().astype(np.float64)


def averaged(stack, k):
    """Means over k x k cells; missing where one is."""
    ny, nx = (n // k * k for n in stack.shape[1:])
    return stack[:, :ny, :nx].reshape(-1, ny // k, k, nx // k, k).mean(axis=(2, 4))


def correlation(a, b):
    both = np.isfinite(a) & np.isfinite(b)
    return np.corrcoef(a[both], b[both])[0, 1]


def carried(image, motion):
    return sample_missing(image, *departure(motion.velocity, 1.0))


@pytest.mark.slow
def test_drift_of_a_day_of_sea_ice():
    decibels = averaged(images("s1_seaice_hh_20200301_20200302.nc", "sigma0_hh"), 4)
    motion = fit_motion(*decibels)
    assert motion.brightness == "varying"  # the passes differ by 1.5 dB
    moved = 4 * displacement_of(motion)
    # the peak of the cross-correlation of the whole images is at 36 rows and 28 columns
    np.testing.assert_allclose(np.median(moved, axis=(1, 2)), [-28, -36], atol=1.0)
    assert correlation(*decibels) < 0.2
    assert correlation(carried(decibels[0], motion), decibels[1]) > 0.85


@pytest.mark.slow
def test_sea_ice_with_half_of_the_scene_missing():
    decibels = averaged(images("s1_seaice_20200123_20200125.nc", "sigma0"), 4)
    assert np.isnan(decibels).mean() > 0.5
    seen = np.isfinite(decibels).any(axis=0)
    motion = fit_motion(*decibels)
    # the ice moved by less than a cell of 320 m
    assert correlation(carried(decibels[0], motion), decibels[1]) > correlation(*decibels) - 0.01
    assert np.hypot(*np.median(displacement_of(motion)[:, seen], axis=1)) < 1.0
    middle = frame_between(*decibels, motion, 0.5)
    assert np.isfinite(middle.image[seen]).mean() > 0.97
    assert np.isnan(middle.image).mean() > 0.4


@pytest.mark.slow
def test_rain_half_an_hour_from_either_side():
    rain = np.clip(images("fmi_radar_20160928.nc", "reflectivity"), 0, None)
    coarse = averaged(np.nan_to_num(rain[[6, 12, 18]]), 4)
    motion = fit_motion(coarse[0], coarse[2])
    blend, _ = baseline(coarse[0], coarse[2], 0.5, method="linear")
    found = frame_between(coarse[0], coarse[2], motion, 0.5, blend="expected").image
    assert rmse(found, coarse[1]) < 0.85 * rmse(blend, coarse[1])
