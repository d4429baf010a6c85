"""A quick start: what each command imports, and compiled programs kept from one run to the next."""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import xarray as xr

import masf_jax
from masf_jax.cli import compilations
from masf_jax.cli.config.builders.dynamics import DYNAMICS
from masf_jax.cli.config.compose import compose
from masf_jax.cli.process import spare_threads, state_size

HEAVY = ("hydra", "jax", "matplotlib", "numpy", "omegaconf", "pydantic", "rich", "xarray")
CACHE = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA")
QUICK = ["--help"], ["--version"], ["list"], ["list", "filter"], ["run", "--help"], ["compare", "--help"]
QUICK += (
    ["tune", "--help"],
    ["train", "--help"],
    ["plot", "--help"],
    ["report", "--help"],
    ["animate", "--help"],
)


def python(arguments, **environment):
    """The finished process, without the cache that tests keep, and the CPU seconds it took."""
    env = {name: value for name, value in os.environ.items() if name not in CACHE}
    env |= {"PYTHONPATH": str(Path(masf_jax.__file__).parents[1]), **environment}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_help_and_lists_import_nothing_heavy(arguments):
    code = f"import sys; from masf_jax.cli.main import main; code = main({arguments}); "
    done, _ = python(["-c", code + "print(*sys.modules); exit(code)"])
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1].split()
    light = ("numpy",) if arguments[0] in ("plot", "report", "animate") else ()
    assert [module for module in HEAVY if module in loaded and module not in light] == []


@pytest.mark.parametrize("arguments", QUICK[:5], ids=" ".join)
def test_help_and_lists_take_less_than_four_tenths_of_a_second(arguments):
    for _ in range(3):
        done, seconds = python(["-m", "masf_jax", *arguments])
        assert done.returncode == 0, done.stderr
        if seconds < 0.4:
            return
    pytest.fail(f"{seconds} s at the third time")


RUN = ["-m", "masf_jax", "run", "filter=etkf", "dynamics.n=8", "n_cycles=5", "burn_in=0", "ensemble_size=4"]
RUN += ["figures=false"]


def results(folder):
    with xr.open_dataset(folder / "result.nc", engine="h5netcdf") as data:
        return data.load().drop_attrs()


def run(folder, *overrides, **environment):
    """The results of a quiet run."""
    done, _ = python([*RUN, *overrides, f"output_dir={folder}"], **environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return results(folder)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run with an empty cache: its results, the cache, and a home that does not exist."""
    base = tmp_path_factory.mktemp("first")
    cache, home = base / "cache", base / "home"
    return run(base / "out", XDG_CACHE_HOME=str(cache), HOME=str(home)), cache, home


def entries(cache):
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*-cache")}


@pytest.mark.slow
def test_a_second_run_takes_its_programs_from_the_cache_and_has_the_same_results(first, tmp_path):
    """And damaged entries are compiled anew."""
    expected, cache, home = first
    assert any("_scan" in path.name for path in entries(cache))
    damaged = sorted(entries(cache))[::5]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:50])
    kept = entries(cache)
    again = run(tmp_path / "again", XDG_CACHE_HOME=str(cache), HOME=str(home))
    assert again.identical(expected)
    found = entries(cache)
    assert found.keys() == kept.keys(), "nothing else was compiled"
    assert {path: found[path] for path in kept if path not in damaged} == {
        path: time for path, time in kept.items() if path not in damaged
    }
    assert not home.exists()


@pytest.mark.slow
def test_a_run_without_a_cache_has_the_same_results_and_leaves_nothing(first, tmp_path):
    """And two threads change nothing."""
    expected, *_ = first
    nowhere = tmp_path / "cache"
    threads = {"HOME": "", "PJRT_NPROC": "2", "OPENBLAS_NUM_THREADS": "2"}
    off = run(tmp_path / "off", "compilation_cache=false", XDG_CACHE_HOME=str(nowhere), **threads)
    assert off.identical(expected)
    assert not nowhere.exists()


@pytest.fixture
def unset(monkeypatch):
    """No settings of users, and those of JAX as before after the test."""
    names = ("dir", "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes")
    names = ("jax_compilation_cache_dir", *(f"jax_{name}" for name in names[1:]))
    before = {name: getattr(jax.config, name) for name in names}
    for name in CACHE:
        monkeypatch.delenv(name, raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield monkeypatch
    for name, value in before.items():
        jax.config.update(name, value)


def test_where_programs_are_kept(unset, tmp_path):
    unset.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilations.keep_compilations(True)
    assert folder is not None
    assert folder.parent == tmp_path / "masf_jax" / "xla"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert compilations.keep_compilations(True) is None, "a folder that is set stays"
    jax.config.update("jax_compilation_cache_dir", None)
    assert compilations.keep_compilations(str(tmp_path / "mine")) == tmp_path / "mine"
    jax.config.update("jax_compilation_cache_dir", None)
    for setting in (False, None):
        assert compilations.keep_compilations(setting) is None
    unset.setenv("JAX_COMPILATION_CACHE_DIR", "")
    assert compilations.keep_compilations(True) is None, "users decide"


def test_where_nothing_can_be_kept_nothing_is_said(unset, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert compilations.keep_compilations(str(tmp_path / "file" / "cache")) is None
    for base in ("", "relative"):
        unset.setenv("XDG_CACHE_HOME", base)
        unset.setenv("HOME", "")
        assert compilations.cache_folder() is None
        unset.setenv("HOME", "/home/x")
        assert str(compilations.cache_folder()).startswith("/home/x/")
    unset.setattr(os, "getuid", lambda: 12345)
    assert compilations.keep_compilations(str(tmp_path / "of somebody else")) is None
    assert jax.config.jax_compilation_cache_dir is None
    assert capsys.readouterr().err == ""


def test_the_cache_is_bounded(unset, tmp_path):
    for number in range(5):
        path = tmp_path / f"jit_{number}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    unset.setattr(compilations, "LIMIT", 400)
    assert compilations.keep_compilations(str(tmp_path)) == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jit_3-cache", "jit_4-cache"]


@pytest.mark.parametrize(
    ("overrides", "set_by_user", "expected"),
    [
        ([], {}, {"OPENBLAS_NUM_THREADS": "1", "PJRT_NPROC": "1"}),
        (["dynamics.n=500"], {}, {"OPENBLAS_NUM_THREADS": "1"}),
        (["dynamics.n=2000", "filter=enkf"], {}, {}),
        (["dynamics=kolmogorov_64", "filter=enkf"], {}, {}),
        (["layout.devices=1"], {}, {"OPENBLAS_NUM_THREADS": "1"}),
        ([], {"OMP_NUM_THREADS": "2", "NPROC": "2"}, {}),
        ([], {"OPENBLAS_NUM_THREADS": "2"}, {"OPENBLAS_NUM_THREADS": "2", "PJRT_NPROC": "1"}),
    ],
)
def test_small_problems_get_one_thread_unless_users_say_otherwise(
    overrides, set_by_user, expected, monkeypatch
):
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "GOTO_NUM_THREADS", "PJRT_NPROC", "NPROC")
    own = {name: value for name, value in os.environ.items() if name not in names} | set_by_user
    monkeypatch.setattr(os, "environ", own)
    spare_threads(compose(overrides))
    assert {name: own[name] for name in ("OPENBLAS_NUM_THREADS", "PJRT_NPROC") if name in own} == expected


@pytest.mark.parametrize(
    "choice", ["lorenz63", "lorenz96", "kuramoto_sivashinsky", "kolmogorov_64", "linear", "local_level"]
)
def test_the_size_of_a_state_is_known_without_the_model(choice):
    settings = compose([f"dynamics={choice}"])
    assert state_size(settings) == math.prod(DYNAMICS.build(settings.dynamics).state_shape)
    matrix = compose(["dynamics=linear", "dynamics.matrix=[[1,0],[0,1]]"])
    assert state_size(matrix) == 2
