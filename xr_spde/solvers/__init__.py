"""Linear algebra on one sparse matrix: choose, factor, solve."""
