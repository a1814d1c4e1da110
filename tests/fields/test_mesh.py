"""Neighbours, faces and what makes a mesh."""

from __future__ import annotations

import numpy as np
import pytest

from xr_spde._core.errors import ParameterError, UnknownNameError
from xr_spde.fields.mesh import Mesh, expand

LAND = np.zeros((4, 5), dtype=bool)
LAND[1, 2] = True


def test_neighbours_at_edges_and_coasts():
    there = Mesh.of((4, 5), boundary=("periodic", "neumann"), land=LAND).neighbour(1, 1)
    assert there[4] == 4  # no flux: the node itself
    assert there[6] == 6  # land to the east
    assert there[7] == -1  # land itself
    assert Mesh.of((4, 5), boundary="dirichlet", land=LAND).neighbour(1, 1)[4] == -1
    assert Mesh.of((4, 5), land=LAND, coast="dirichlet").neighbour(1, 1)[6] == -1
    north = Mesh.of((4, 5), boundary=("periodic", "neumann"), land=LAND).neighbour(0, 1)
    assert north[15] == 0
    assert north[2] == 2  # land to the north


@pytest.mark.parametrize("boundary", ["neumann", "dirichlet", "periodic"])
def test_faces_count_every_link_once(boundary):
    mesh = Mesh.of((4, 5), boundary=boundary, land=LAND, coast="dirichlet")
    differences, means = mesh.faces(1)
    inner = {"neumann": 16, "dirichlet": 16, "periodic": 20}[boundary] - 2
    zero = {"neumann": 0, "dirichlet": 8, "periodic": 0}[boundary] + 2
    assert differences.shape[0] == inner + zero
    np.testing.assert_allclose(means.sum(axis=1), 1.0)
    u = mesh.sea * 3.0
    assert np.count_nonzero(differences @ u) == zero


def test_expanded_products_against_dense_ones():
    rng = np.random.default_rng(0)
    mesh = Mesh.of((3, 4), land=None)
    differences, means = mesh.faces(0)
    c = rng.standard_normal(mesh.size)
    row, column, node, value = expand(differences, differences, means)
    found = np.zeros((mesh.size, mesh.size))
    np.add.at(found, (row, column), value * c[node])
    dense = differences.toarray()
    np.testing.assert_allclose(found, dense.T @ np.diag(means @ c) @ dense, atol=1e-14)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dx": 0.0}, "dx has values"),
        ({"dy": np.nan}, "dy has values"),
        ({"land": np.ones((4, 5), dtype=bool)}, "some water"),
        ({"land": np.zeros((4, 5))}, "true and false"),
        ({"boundary": ("neumann",)}, "one name"),
    ],
)
def test_impossible_meshes(given, message):
    with pytest.raises(ParameterError, match=message):
        Mesh.of((4, 5), **given)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="periodic"):
        Mesh.of((4, 5), boundary="peridic")
    with pytest.raises(UnknownNameError, match="coast"):
        Mesh.of((4, 5), coast="periodic")
    with pytest.raises(ParameterError, match="at least 2"):
        Mesh.of((1, 5))
