"""Errors, provenance, lazy imports, device, progress, versions."""

from __future__ import annotations

import builtins
import inspect
import io
import json
import pickle
import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import xarray as xr

from xr_spde import _core
from xr_spde._core import device, errors
from xr_spde._core.device import resolve_device
from xr_spde._core.lazyimport import has_module, require
from xr_spde._core.options import set_options
from xr_spde._core.progress import track
from xr_spde._core.provenance import provenance
from xr_spde._core.version import __version__
from xr_spde._core.versions import show_versions, versions

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.XrSpdeError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_also_the_builtin_kind_and_pickles(kind):
    if kind is not errors.XrSpdeError:
        specific = [base for base in kind.__mro__ if base.__module__ == builtins.__name__]
        assert specific[0] not in (Exception, BaseException, object)
    copy = pickle.loads(pickle.dumps(kind("what came")))
    assert type(copy) is kind
    assert str(copy) == "what came"


def test_unknown_lists_and_guesses():
    message = str(errors.unknown("solver", "superlo", ["superlu", "cholmod"]))
    assert "'superlo'" in message
    assert "'superlu', 'cholmod'" in message
    assert "did you mean 'superlu'" in message
    assert "did you mean" not in str(errors.unknown("solver", 3, ["superlu"]))


def test_provenance_has_no_clock_and_is_prefixed():
    first = provenance("whittle", b=1, a=None)
    assert first == provenance("whittle", b=1, a=None)
    assert first == {"xr_spde_version": __version__, "xr_spde_method": "whittle", "xr_spde_b": 1}


def test_provenance_survives_netcdf(tmp_path):
    attrs = provenance(
        "m",
        flag=True,
        small=np.float32(0.5),
        seed=2**127 + 1,
        window=(3, np.int64(5)),
        table={"b": np.array([1.0, 2.0]), "a": {"x"}},
    )
    assert attrs["xr_spde_flag"] == "true"
    assert int(attrs["xr_spde_seed"]) == 2**127 + 1
    assert json.loads(attrs["xr_spde_table"]) == {"a": ["x"], "b": [1.0, 2.0]}
    xr.Dataset(attrs=attrs).to_netcdf(tmp_path / "a.nc", engine="scipy")
    back = xr.open_dataset(tmp_path / "a.nc", engine="scipy").attrs
    assert {name: back[name] for name in attrs} == attrs


def test_missing_module_says_what_to_type():
    with pytest.raises(errors.MissingDependencyError, match=r"pip install 'xr_spde\[gpu\]'"):
        require("no_such_module_anywhere", "gpu")
    assert not has_module("no_such_module_anywhere")


def test_broken_module_is_told_from_a_missing_one(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("raise ImportError('undefined symbol')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.MissingDependencyError, match=r"does not import .undefined symbol"):
        require("broken_library", "gpu")


def test_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(device, "card_count", device.card_count.__wrapped__)
    assert resolve_device() == "cpu"
    with set_options(device="cuda"), pytest.raises(errors.MissingDependencyError, match="gpu"):
        resolve_device()


class Runtime(types.ModuleType):
    """What cupy says of the cards it finds."""

    def __init__(self, count: int | None) -> None:
        super().__init__("cupy")
        self.__spec__ = ModuleSpec("cupy", None)
        self.cuda = self.runtime = self
        self.count = count

    def getDeviceCount(self) -> int:
        if self.count is None:
            raise RuntimeError("no driver")
        return self.count


@pytest.mark.parametrize("count", [None, 0, 2])
def test_a_card_is_used_if_cupy_reports_one(monkeypatch, count):
    monkeypatch.setitem(sys.modules, "cupy", Runtime(count))
    monkeypatch.setattr(device, "card_count", device.card_count.__wrapped__)
    assert resolve_device() == ("cuda" if count else "cpu")
    with set_options(device="cpu"):
        assert resolve_device() == "cpu"
    with set_options(device="cuda"):
        if count:
            assert resolve_device() == "cuda"
        else:
            with pytest.raises(errors.ParameterError, match=r'no graphics card.*device="cpu"'):
                resolve_device()


def test_progress_draws_only_when_asked():
    silent, loud = io.StringIO(), io.StringIO()
    assert list(track(range(3), stream=silent)) == [0, 1, 2]
    assert silent.getvalue() == ""
    with set_options(progress=True):
        assert list(track((i for i in range(3)), label="work", total=3, stream=loud)) == [0, 1, 2]
    assert "work [" + "#" * 30 + "] 3/3" in loud.getvalue()


def test_progress_finishes_its_line_on_an_error():
    out = io.StringIO()

    def fail():
        for item in track(range(5), enabled=True, stream=out):
            if item == 2:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "] 2/5" in out.getvalue()
    assert out.getvalue().endswith("\n")


def test_versions_name_core_libraries_and_options():
    out = io.StringIO()
    show_versions(out)
    table = dict(line.split(maxsplit=1) for line in out.getvalue().splitlines())
    assert table["xr_spde"] == __version__
    assert table["numpy"] == np.__version__
    assert table["options"].startswith("device=auto")
    assert versions()["xarray"] == xr.__version__
    assert _core.__doc__
