"""Spatial autoregressive (SPDE) Gaussian fields: estimate and emulate."""
