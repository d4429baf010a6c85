"""Animations, and the commands that draw from a finished run."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from masf_jax.cli.errors import InputError, WriteError
from masf_jax.cli.main import main
from masf_jax.cli.run.animate import write_animation
from masf_jax.cli.run.finished import parse_cycles
from masf_jax.plots.frames import ffmpeg

TINY = ["dynamics=kolmogorov_64", "dynamics.shape=[16,16]", "dynamics.n_inner=2", "measurement=grid_mask"]
TINY += ["measurement.noise.std=0.1", "filter=etkf", "n_cycles=3", "burn_in=1", "ensemble_size=4"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    assert main(["run", *TINY, f"output_dir={folder}"]) == 0
    return folder


def frames(path):
    with Image.open(path) as gif:
        out = []
        for number in range(gif.n_frames):
            gif.seek(number)
            out.append(np.asarray(gif.convert("RGB")))
        return out, gif.info


def test_gif(flow, tmp_path):
    flow["truth"][2] = flow["truth"][0]
    path = write_animation(tmp_path, flow, [0, 1, 2, 3], "gif", frames_per_second=4, dpi=50)
    assert path == tmp_path / "vorticity.gif"
    images, info = frames(path)
    assert len(images) == 4
    assert info["duration"] == 250
    assert info["loop"] == 0
    assert images[0].shape[1] == 420
    middle = (slice(60, 120), slice(40, 130))  # inside the truth's panel
    assert np.array_equal(images[0][middle], images[2][middle])
    assert not np.array_equal(images[0][middle], images[3][middle])


def test_mp4(flow, tmp_path):
    from imageio_ffmpeg import count_frames_and_secs

    path = write_animation(tmp_path, flow, [0, 1, 3], "mp4", frames_per_second=2, dpi=50)
    assert path.read_bytes()[4:8] == b"ftyp"
    n, seconds = count_frames_and_secs(str(path))
    assert (n, seconds) == (3, pytest.approx(1.5, abs=0.1))


def test_without_ffmpeg_the_message_says_what_to_install(flow, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r"pip install 'masf-jax\[animation\]'"):
        write_animation(tmp_path, flow, [0], "mp4")
    assert list(tmp_path.iterdir()) == []
    assert write_animation(tmp_path, flow, [0], "gif", dpi=30).is_file()


def test_the_ffmpeg_of_the_machine_comes_first(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho 'Unknown encoder h264' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ffmpeg() == str(program)


def test_an_ffmpeg_that_fails_leaves_no_file_and_says_why(flow, tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\n/bin/cat > /dev/null\necho 'Unknown encoder h264' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("masf_jax.plots.frames.ffmpeg", lambda: str(program))
    folder = tmp_path / "run"
    with pytest.raises(WriteError, match="Unknown encoder h264"):
        write_animation(folder, flow, [0], "mp4", dpi=30)
    assert list(folder.iterdir()) == []


def test_bad_arguments(flow, tmp_path):
    with pytest.raises(InputError, match="gif, mp4; got 'avi'"):
        write_animation(tmp_path, flow, [0], "avi")
    with pytest.raises(InputError, match="positive; got 0"):
        write_animation(tmp_path, flow, [0], frames_per_second=0)
    with pytest.raises(InputError, match="0 … 3"):
        write_animation(tmp_path, flow, [7])


def test_cycles():
    assert parse_cycles("0,2,1", 5) == [0, 2, 1]
    assert parse_cycles(":", 4) == [0, 1, 2, 3]
    assert parse_cycles("1:3", 5) == [1, 2, 3]
    assert parse_cycles("0:4:2,1", 5) == [0, 2, 4, 1]
    for bad in ("a", "1:2:3:4", "", "0:4:0"):
        with pytest.raises(InputError, match="FIRST:LAST"):
            parse_cycles(bad, 5)
    for bad in ("5", "-1", "0:5", "3:1"):
        with pytest.raises(InputError, match="0 … 4"):
            parse_cycles(bad, 5)


@pytest.mark.slow
def test_a_run_of_a_flow_draws_its_figures(run_dir):
    names = {path.name for path in run_dir.iterdir()}
    assert {"states.png", "spectra.png", "error_spread.png", "rank_histogram.png"} <= names


@pytest.mark.slow
def test_animate_and_figures_from_the_command_line(run_dir, capsys):
    assert main(["animate", str(run_dir), "--dpi", "30", "--cycles", "1:2"]) == 0
    assert capsys.readouterr().out.strip() == str(run_dir / "vorticity.gif")
    assert len(frames(run_dir / "vorticity.gif")[0]) == 2
    before = (run_dir / "states.png").read_bytes()
    assert main(["plot", str(run_dir), "--cycles", "0,2", "--dpi", "50"]) == 0
    assert str(run_dir / "spectra.png") in capsys.readouterr().out
    assert (run_dir / "states.png").read_bytes() != before


@pytest.mark.slow
def test_mistakes_end_with_code_2(flow, run_dir, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    flow.drop_vars("channel").to_netcdf(other / "result.nc", engine="h5netcdf")
    (tmp_path / "result.nc").write_text("nothing of the kind")
    wrong = {
        ("animate", str(other)): "not the run of a flow",
        ("plot", str(other), "--cycles", "0"): "--cycles is for flows",
        ("animate", str(tmp_path / "absent")): "holds no result.nc",
        ("plot", str(tmp_path)): "cannot read",
        ("animate",): "RUN_DIR is missing",
        ("animate", str(run_dir), "--format", "avi"): "invalid choice: 'avi'",
        ("animate", str(run_dir), "--cycles", "0:9"): "0 … 2",
        ("animate", str(run_dir), "--fps", "-1"): "must be positive",
        ("animate", str(run_dir), "--dpi", "0"): "--dpi must be at least 1",
        ("plot", str(run_dir), "--dpi", "x"): "invalid int value",
        ("animat", str(run_dir)): "Did you mean 'animate'?",
    }
    for arguments, part in wrong.items():
        assert main(list(arguments)) == 2, arguments
        message = capsys.readouterr().err
        assert part in message
        assert "Traceback" not in message


def test_help(capsys):
    for command in ("animate", "plot"):
        assert main([command, "--help"]) == 0
        assert "--cycles" in capsys.readouterr().out


@pytest.mark.slow
def test_saved_coordinates_of_a_flow(run_dir):
    import xarray as xr

    with xr.open_dataset(run_dir / "result.nc", engine="h5netcdf") as data:
        assert data["channel"].values.tolist() == ["u", "v"]
        for axis in ("y", "x"):
            np.testing.assert_allclose(data[axis], 2 * np.pi / 16 * np.arange(16), rtol=1e-6)
        u = data["truth"].sel(channel="u").values
        at = {axis: data[f"observation_{axis}"].values for axis in ("y", "x")}
        rows, columns = (np.rint(at[axis] * 16 / (2 * np.pi)).astype(int) for axis in ("y", "x"))
        half = rows.size // 2  # u is measured first, then v
        error = data["observation"].values[:, :half] - u[:, rows[:half], columns[:half]]
        assert 0.05 < error.std() < 0.2, "observations lie where their coordinates say"
