"""Sparse matrices on a pattern that is wider than their entries."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

__all__ = ["on_pattern"]


def on_pattern(pattern: sp.csc_array, matrix: sp.csc_array | sp.csr_array) -> sp.csc_array:
    """Store a matrix with all entries of a wider pattern, zeros included.

    Parameters
    ----------
    pattern : csc_array (n, n)
        Holds the entries of the matrix.
    matrix : sparse matrix (n, n)
        To be stored.

    Returns
    -------
    csc_array (n, n)
    """
    ordered = sp.csc_array(pattern)
    ordered.sum_duplicates()
    n = ordered.shape[0]
    keys = np.repeat(np.arange(n), np.diff(ordered.indptr)) * n + ordered.indices
    entries = sp.coo_array(matrix)
    spot = np.searchsorted(keys, entries.col.astype(np.intp) * n + entries.row)
    data = np.bincount(spot, weights=entries.data, minlength=keys.size)
    return sp.csc_array((data, ordered.indices.copy(), ordered.indptr.copy()), shape=(n, n))
