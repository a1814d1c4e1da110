"""Non-stationary Gaussian fields, latent dynamics and assimilation on xarray."""
