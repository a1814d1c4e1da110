"""Learning curves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def plot_record(record: Mapping[str, NDArray[np.float64]], path: str | os.PathLike[str]) -> Path:
    """Draw the loss and the scores of a training run against the step, into a file.

    Parameters
    ----------
    record : mapping of str to ndarray
        "step", "loss", and further scores of the same length.
    path : path-like
        Picture to write.

    Returns
    -------
    Path
    """
    from matplotlib.figure import Figure

    names = sorted({name.split(" ")[0] for name in record} - {"step", "loss", "score"})
    figure = Figure(figsize=(4.0 * (len(names) + 1), 3.2), layout="constrained")
    axes = figure.subplots(1, len(names) + 1, squeeze=False)[0]
    axes[0].plot(record["step"], record["loss"], color="0.3")
    axes[0].set(title="loss", xlabel="step")
    for ax, name in zip(axes[1:], names, strict=True):
        for key in record:
            if key.split(" ")[0] == name:
                ax.plot(record["step"], record[key], label=key.removeprefix(name).strip())
        ax.set(title=f"RMSE of {name}", xlabel="step", yscale="log")
        ax.legend(fontsize="x-small")
    figure.savefig(path, dpi=110)
    return Path(path)
