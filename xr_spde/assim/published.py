"""Published scores of sea-level mapping and of neural solvers, to be printed beside own ones.

None of these numbers was computed here, and their data (NATL60, a Gulf Stream of 10 x 10 degrees
in 42 days) are not those of the tables of this package: they show the order of methods and the
size of steps between them, and must not be subtracted from own scores.

References
----------
SSH mapping data challenge 2020a, leaderboard (ocean-data-challenges); Beauchamp, Fablet,
Benaichouche, Tandeo, Desassis, Chapron (2025), Artif. Intell. Earth Syst., arXiv:2402.01855;
Johnson, Febvre, Gorbunova, Metref, Ballarotta, Le Sommer, Fablet (2023), OceanBench,
arXiv:2309.15599.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["GAUSSIAN_RUNS", "LEADERBOARD", "NEURAL_SPDE", "OCEANBENCH"]

Scores = tuple[float, float, float, float]

LEADERBOARD: Mapping[str, Mapping[str, Scores]] = {
    "1 nadir": {"baseline OI": (0.69, 0.03, 3.31, 33.32)},
    "4 nadirs": {
        "baseline OI": (0.83, 0.04, 2.25, 15.67), "DUACS": (0.92, 0.01, 1.42, 12.13),
        "BFN": (0.92, 0.02, 1.23, 10.82), "DYMOST": (0.91, 0.01, 1.36, 11.91),
        "MIOST": (0.93, 0.01, 1.35, 10.41), "4DVarNet": (0.94, 0.01, 1.19, 10.64),
        "4DVarNet v2022": (0.94, 0.01, 0.83, 8.03), "4DVarQG": (0.95, 0.01, 0.82, 5.84),
    },
    "SWOT + 4 nadirs": {
        "baseline OI (SWOT alone)": (0.85, 0.05, 1.22, 12.38), "DUACS": (0.92, 0.02, 1.22, 11.37),
        "BFN": (0.93, 0.02, 1.00, 10.24), "DYMOST": (0.93, 0.02, 1.19, 10.04),
        "MIOST": (0.94, 0.01, 1.18, 10.33), "4DVarNet": (0.95, 0.01, 0.70, 6.48),
        "4DVarNet v2022": (0.96, 0.01, 0.62, 4.35), "4DVarQG": (0.96, 0.01, 0.66, 4.65),
    },
}  # fmt: skip
"""Challenge: mu, sigma, lambda_x in degrees and lambda_t in days, by data and method."""

NEURAL_SPDE: Mapping[str, Scores] = {
    "DUACS": (0.92, 0.02, 1.22, 11.06),
    "mapping": (0.94, 0.01, 0.86, 8.71),
    "near real time": (0.89, 0.03, 1.22, 9.90),
    "forecast, 2 days": (0.88, 0.03, 1.20, 13.74),
    "forecast, 4 days": (0.81, 0.04, 1.37, 22.92),
}
"""The neural solver with an SPDE prior, SWOT + 4 nadirs: the same four scores, by task.

DUACS stands there with 11.06 days and on the leaderboard with 11.37: the way of evaluation alone
makes a few tenths of a day.
"""

OCEANBENCH: Mapping[str, Scores] = {
    "4DVarNet": (0.959, 47.0, 77.0, 5.6), "MIOST": (0.938, 88.0, 131.0, 10.1),
    "DUACS": (0.921, 106.0, 139.0, 11.7), "BFN": (0.935, 64.0, 118.0, 36.0),
    "NerF-FFN": (0.937, 90.0, 141.0, 8.2),
}  # fmt: skip
"""SWOT + 4 nadirs: mu, then lambda isotropic and in x (km) and lambda_t (days).

Other spectra (detrended, another window, kilometres): not to be mixed with those of the challenge.
"""

GAUSSIAN_RUNS: Mapping[str, Mapping[str, tuple[float | None, float | None]]] = {
    "diff, alpha = 2": {
        "OI": (0.0509, 59_165.0), "gradient descent": (0.0651, None),
        "UNet, MSE": (0.0685, 925_069.0), "UNet, OI": (0.1006, 196_578.0),
        "fixed point, MSE": (0.0643, 743_155.0), "fixed point, OI": (0.0770, 122_715.0),
        "LSTM + CNN, MSE": (0.0622, 321_818.0), "LSTM + CNN, OI": (0.0684, 82_882.0),
        "LSTM + SPDE, MSE": (0.0605, 132_927.0), "LSTM + SPDE, OI": (0.0641, 67_719.0),
    },
    "iso, alpha = 4": {
        "OI": (0.1878, 5_272.0), "gradient descent": (0.3044, None),
        "UNet, MSE": (0.2899, 401_961.0), "UNet, OI": (0.6008, 80_612.0),
        "fixed point, MSE": (None, None), "fixed point, OI": (0.3958, 59_246.0),
        "LSTM + CNN, MSE": (0.2140, None), "LSTM + CNN, OI": (0.2878, 11_963.0),
        "LSTM + SPDE, MSE": (0.2227, 20_362.0), "LSTM + SPDE, OI": (0.2770, 9_651.0),
    },
}  # fmt: skip
"""Gaussian processes: MSE of the central day and cost J of single runs, by method and loss.

From logs that the authors released with their code, not from the paper; None where a run diverged
or a number is missing.
"""
