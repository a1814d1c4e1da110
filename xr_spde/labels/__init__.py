"""The boundary with xarray: axes, grid, lazy engine, schema."""
