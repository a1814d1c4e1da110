"""Latent assimilation: fields as short codes, forecast and analysed there, decoded at any point.

`protocols` says what a reduced model has to know; those of the package are in `xr_spde.fields`
and `xr_spde.nets`.
"""
