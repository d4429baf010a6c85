"""Plants faults one at a time in a copy of a tree and runs its tests: which of them are caught?

    python benchmarks/suite/planted_faults.py TREE [--only NAME …] [--out FILE]

TREE is a checkout with the tests that are judged, this one or an older one (before masf/ and cli/ were made:
the paths are tried both ways). Each fault is a line that a careful reader might miss: a sign, a factor, an
axis, a dropped mask, swapped keys. The tests named with it run, the likeliest first; the first failure ends
the run, and counts if that test passes without the fault. The copy is thrown away; TREE is never changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    """A text that stands exactly once in one of the files, what to put in its place, and the tests to run."""

    name: str
    files: tuple[str, ...]
    old: str
    new: str
    tests: tuple[str, ...]


OLD = "tests/filters"  # where tests/masf was
MASF = ("tests/masf", f"{OLD}/test_masf.py", f"{OLD}/test_linearization.py")
OLD_CLI = "tests/experiments"
CLI = ("tests/cli", "tests/observations", OLD_CLI)
FILTERS = ("tests/equivalence", "tests/filters", "tests/masf")
SMOOTHERS = ("tests/smoothers",)


def _core(name: str, file: str, old: str, new: str, *tests: str) -> Fault:
    return Fault(name, (file,), old, new, tests)


FAULTS = (
    _core(
        "dynamics: sign of Lorenz-96's advection",
        "dynamics/lorenz96.py",
        "(ring[3:] - ring[:-3]) * ring[1:-2]",
        "(ring[:-3] - ring[3:]) * ring[1:-2]",
        "tests/dynamics",
    ),
    _core(
        "dynamics: z decays by y in Lorenz-63",
        "dynamics/lorenz63.py",
        "x[0] * x[1] - beta * x[2]",
        "x[0] * x[1] - beta * x[1]",
        "tests/dynamics",
    ),
    _core(
        "dynamics: the last slope of a Runge-Kutta step",
        "dynamics/integrate.py",
        "dt / 6.0 * (k1 + 2.0 * (k2 + k3) + k4)",
        "dt / 6.0 * (k1 + 2.0 * (k2 + k3) + k3)",
        "tests/dynamics",
    ),
    _core(
        "dynamics: phase of the force in the energy budget",
        "dynamics/kolmogorov.py",
        "wave = jnp.asarray(np.sin(2 * np.pi * self.forcing_waves * np.arange(ny) / ny), x.dtype)",
        "wave = jnp.asarray(np.cos(2 * np.pi * self.forcing_waves * np.arange(ny) / ny), x.dtype)",
        "tests/dynamics",
    ),
    _core(
        "measurements: a gap is not left out of log p",
        "measurements/measurement.py",
        "log_prob(self.innovation(z, x), mask)",
        "log_prob(self.innovation(z, x), None)",
        "tests/measurements",
        "tests/filters",
    ),
    _core(
        "measurements: a mask of cycles alone is ignored",
        "measurements/measurement.py",
        "finite = finite & jnp.broadcast_to(given, values.shape)",
        "finite = finite | jnp.broadcast_to(given, values.shape)",
        "tests/measurements",
    ),
    _core(
        "measurements: speed without its root",
        "measurements/pointwise.py",
        "return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)",
        "return jnp.where(square > 0, jnp.where(square > 0, square, 1.0), 0.0)",
        "tests/measurements",
        "tests/masf",
        "tests/filters",
    ),
    _core(
        "ensemble: biased variance",
        "ensemble/statistics.py",
        "return member_sum(deviations**2) / (ensemble.shape[0] - 1)",
        "return member_sum(deviations**2) / ensemble.shape[0]",
        "tests/ensemble",
        "tests/metrics",
    ),
    _core(
        "ensemble: relaxation with the forecast's share swapped",
        "ensemble/inflation.py",
        "(1.0 - alpha) * deviations + alpha * anomalies(forecast)[1]",
        "alpha * deviations + (1.0 - alpha) * anomalies(forecast)[1]",
        "tests/ensemble",
    ),
    _core(
        "ensemble: a coefficient of Gaspari and Cohn",
        "ensemble/localization.py",
        "(-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))",
        "(-5 / 3 + r * (5 / 8 + r * (1 / 4 - r / 2)))",
        "tests/ensemble",
    ),
    _core(
        "denoisers: a Gaussian's draw without the prior's share",
        "denoisers/gaussian.py",
        "u = expected + given.left(standard) - noise.reshape(-1) @ given.below",
        "u = expected + standard - noise.reshape(-1) @ given.below",
        "tests/denoisers",
        *MASF,
    ),
    _core(
        "denoisers: kernels as wide as their variance",
        "denoisers/kernel.py",
        "std = self.bandwidth * jnp.sin(angle) / jnp.sqrt(self._total(angle))",
        "std = self.bandwidth * jnp.sin(angle) / self._total(angle)",
        "tests/denoisers",
        *MASF,
    ),
    _core(
        "diffusion: the noise kept in a reverse step",
        "diffusion/process.py",
        "noise = k * carried + root_or_zero(1 - k**2) * fresh",
        "noise = k * carried + root_or_zero(1 - k) * fresh",
        "tests/diffusion",
        "tests/equivalence",
    ),
    _core(
        "diffusion: tempering on the wrong power",
        "diffusion/vp_bridge.py",
        "problem.values / root",
        "problem.values / root**2",
        "tests/diffusion",
        *MASF,
    ),
    _core(
        "diffusion: a rate multiplied for divided",
        "diffusion/linear_schedule.py",
        "f = -(1 - self.eps_alpha.astype(t.dtype)) / self.alpha(t)",
        "f = -(1 - self.eps_alpha.astype(t.dtype)) * self.alpha(t)",
        "tests/diffusion",
        "tests/filters",
    ),
    _core(
        "nn: scale and shift swapped",
        "nn/embedding.py",
        "return h * (1.0 + scale) + shift",
        "return h * (1.0 + shift) + scale",
        "tests/nn",
        "tests/training",
        "tests/denoisers",
        "tests/masf/test_pretrained.py",
        f"{OLD_CLI}/test_amortised_runs.py",
    ),
    _core(
        "training: weights of the loss by the wrong function",
        "training/objectives.py",
        "variance = jnp.sin(angle) ** 2",
        "variance = jnp.cos(angle) ** 2",
        "tests/training",
        "tests/denoisers",
    ),
    _core(
        "training: the last parameters for the best",
        "training/loop.py",
        "best = jnp.where(better, result, best)",
        "best = jnp.where(better, result, result)",
        "tests/training",
    ),
    Fault(
        "masf: members shifted the other way",
        ("masf/routes/linearized.py", "filters/linearization.py"),
        "drawn = drawn + (mean - member_mean(common))[None]",
        "drawn = drawn - (mean - member_mean(common))[None]",
        MASF,
    ),
    Fault(
        "masf/routes: tangents without the offset of their point",
        ("masf/routes/linearized.py", "filters/linearization.py"),
        "linear = measurement.noise.whiten(innovation - tangent(x - at), mask)",
        "linear = measurement.noise.whiten(innovation - tangent(x), mask)",
        MASF,
    ),
    Fault(
        "masf/routes: regression of pairs without the noise",
        ("masf/routes/pairs.py", "filters/pairs.py"),
        "variance = ((a - s @ gain.T) ** 2).sum(0) + (gain**2).sum(1)",
        "variance = ((a - s @ gain.T) ** 2).sum(0)",
        (*MASF, f"{OLD}/test_conditional_route.py"),
    ),
    Fault(
        "masf/priors: the kernel's mixture is not drawn together",
        ("masf/priors/kernel.py", "filters/denoiser_fit.py"),
        "return ensemble_kernel(ensemble, self.bandwidth, self.shrink), memory, {}",
        "return ensemble_kernel(ensemble, self.bandwidth, False), memory, {}",
        (*MASF, "tests/equivalence", "tests/cli", "tests/experiments"),
    ),
    Fault(
        "masf/amortised: a feature in the forecast's units for the climate's",
        ("masf/amortised/features.py", "filters/features.py"),
        "jnp.log(a.spread / f.spread),",
        "jnp.log(f.spread / a.spread),",
        ("tests/masf", f"{OLD}/test_amortised.py", "tests/amortised", *CLI),
    ),
    Fault(
        "filters: particles resampled when many carry weight",
        ("filters/particle.py",),
        "(size < self.threshold.astype(size.dtype) * n)",
        "(size > self.threshold.astype(size.dtype) * n)",
        FILTERS,
    ),
    Fault(
        "filters: a repaired member keeps no donor",
        ("filters/faults.py",),
        "whole_first = jnp.argsort(~whole)",
        "whole_first = jnp.argsort(whole)",
        ("tests/test_assimilate.py", "tests/filters"),
    ),
    Fault(
        "filters/kalman: perturbations not centred",
        ("filters/kalman/enkf.py", "filters/enkf.py"),
        "return anomalies(jnp.where(mask[None], noise, 0.0))[1]",
        "return jnp.where(mask[None], noise, 0.0)",
        FILTERS,
    ),
    Fault(
        "filters/kalman: the mean's weights unscaled",
        ("filters/kalman/etkf.py", "filters/etkf.py"),
        "(s, d, deviations)\n        return (mean + (w * scale) @ deviations)[None] + updated, {}",
        "(s, d, deviations)\n        return (mean + w @ deviations)[None] + updated, {}",
        FILTERS,
    ),
    Fault(
        "filters/kalman: EnSRF's factor of the anomalies",
        ("filters/kalman/ensrf.py", "filters/ensrf.py"),
        "alpha = 1.0 / (1.0 + 1.0 / jnp.sqrt(1.0 + variance))",
        "alpha = 1.0 / (1.0 + jnp.sqrt(1.0 + variance))",
        FILTERS,
    ),
    Fault(
        "filters/kalman: LETKF's precision by the root of the taper",
        ("ensemble/points.py",),
        ".add(lists.sqrt_weights**2)",
        ".add(lists.sqrt_weights)",
        FILTERS,
    ),
    Fault(
        "filters/rivals: guidance of EnFF at the start of the step",
        ("filters/rivals/enff.py", "filters/enff.py"),
        "likelihood.scores(x + (1 - t) * u,",
        "likelihood.scores(x + t * u,",
        FILTERS,
    ),
    Fault(
        "filters/rivals: conditional diffusion forgets which values are there",
        ("filters/rivals/conditional_diffusion.py", "filters/conditional_diffusion.py"),
        "return jnp.where(likelihood.mask[None], away, 0.0).reshape(len(members), -1)",
        "return away.reshape(len(members), -1)",
        FILTERS,
    ),
    _core(
        "smoothers: the oldest state is the one before",
        "smoothers/enks.py",
        'out["smoothed"] = self.kept(window[:, -1], xs.get("old_truth"))',
        'out["smoothed"] = self.kept(window[:, -2], xs.get("old_truth"))',
        *SMOOTHERS,
    ),
    _core(
        "metrics: fair CRPS is not fair",
        "metrics/scores.py",
        "return member_mean(error) - distances / (2.0 * n * (n - fair))",
        "return member_mean(error) - distances / (2.0 * n * n)",
        "tests/metrics",
    ),
    _core(
        "metrics: standard error of the sample's spread",
        "metrics/summary.py",
        "array.std(ddof=1) / math.sqrt(array.size)",
        "array.std(ddof=0) / math.sqrt(array.size)",
        "tests/metrics",
        *CLI,
    ),
    _core(
        "quality control: the forecast's spread does not count",
        "quality_control.py",
        "bound = jnp.sqrt(variance + noise.standard_deviation(departure) ** 2)",
        "bound = jnp.sqrt(noise.standard_deviation(departure) ** 2)",
        "tests/test_quality_control.py",
    ),
    _core(
        "twin: truth and members may share a key",
        "twin.py",
        "jax.random.split(jax.random.fold_in(key, _TAG), 3)",
        "jax.random.split(key, 3)",
        "tests/test_twin.py",
    ),
    Fault(
        "driver: forecast and repair share a key",
        ("scan.py",),
        "before, diverged = policy.after_forecast(key_repair, filter, forecast)",
        "before, diverged = policy.after_forecast(key_forecast, filter, forecast)",
        ("tests/test_assimilate.py", "tests/filters"),
    ),
    Fault(
        "driver: quality control overrides the gaps",
        ("scan.py",),
        'out["rejected"], mask = mask & ~accepted, mask & accepted',
        'out["rejected"], mask = mask & ~accepted, accepted',
        ("tests/test_quality_control.py", "tests/test_assimilate.py", *CLI),
    ),
    Fault(
        "cli/run: innovations without the root",
        ("cli/run/metrics.py", "cli/run/innovations.py", "experiments/innovations.py"),
        "float(np.sqrt(square / count))",
        "float(square / count)",
        CLI,
    ),
    Fault(
        "observations: missing values count as there",
        ("observations/reading.py", "experiments/observations.py"),
        "mask = np.isfinite(values)",
        "mask = np.isfinite(values) | True",
        CLI,
    ),
    Fault(
        "cli/compare: a run at the climatology's level is not lost",
        ("cli/compare/comparison.py", "experiments/comparison.py"),
        'not run["rmse_analysis"] < limit',
        'run["rmse_analysis"] > limit',
        CLI,
    ),
    Fault(
        "cli/config: a preset's expectation outlives another model",
        ("cli/config/compose.py", "experiments/compose.py"),
        'for key in ("expected", "expected_std"):\n            tuned.pop',
        'for key in ("expected_std",):\n            tuned.pop',
        CLI,
    ),
    Fault(
        "cli/config: Student's scale is more than its deviation",
        ("cli/config/builders/noise.py", "experiments/builders/noise.py"),
        "math.sqrt(noise.df / (noise.df - 2.0))",
        "math.sqrt((noise.df - 2.0) / noise.df)",
        ("tests/cli/test_compose.py", "tests/cli/test_instrument_settings.py", *CLI),
    ),
    Fault(
        "plots: the box of a flow on its side",
        ("plots/flow_data.py", "cli/plots/flow_data.py", "experiments/flow_data.py"),
        "return float(y[1] - y[0]) * y.size, float(x[1] - x[0]) * x.size",
        "return float(x[1] - x[0]) * x.size, float(y[1] - y[0]) * y.size",
        ("tests/plots/test_flow_figures.py", f"{OLD_CLI}/test_plots_flow.py", *CLI),
    ),
    Fault(
        "plots: rejected values are drawn",
        ("plots/components.py", "cli/plots/run_plots.py", "experiments/plots.py"),
        'np.where((data["observation_rejected"].values != 0) == rejected, values, np.nan)',
        'np.where((data["observation_rejected"].values != 0) >= rejected, values, np.nan)',
        ("tests/cli/test_quality_control_runs.py", f"{OLD_CLI}/test_quality_control_runs.py", *CLI),
    ),
    _core(
        "coordinates: spacing of the last axis for all",
        "coordinates.py",
        "np.arange(n) * (side / n) for n, side in",
        "np.arange(n) * (length[-1] / shape[-1]) for n, side in",
        "tests/test_coordinates.py",
        "tests/dynamics",
        "tests/measurements",
    ),
)


def planted(fault: Fault, tree: Path) -> tuple[Path, str]:
    """The file and its text with the fault. ValueError where its old text or its tests are not there."""
    paths = [path for file in fault.files if (path := tree / "masf_jax" / file).is_file()]
    if len(paths) != 1:
        raise ValueError(
            f"{fault.name}: of {', '.join(fault.files)} one must be in {tree}; {len(paths)} are."
        )
    text = paths[0].read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: its text stands {text.count(fault.old)} times in {paths[0]}.")
    if not any((tree / test).exists() for test in fault.tests):
        raise ValueError(f"{fault.name}: none of {', '.join(fault.tests)} is in {tree}.")
    return paths[0], text.replace(fault.old, fault.new)


def failures(tree: Path, *options: str) -> list[str]:
    """The tests that fail."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *options]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1, 2):
        raise RuntimeError(f"pytest {' '.join(options)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return [line.split(" ", 1)[1].split(" - ")[0] for line in failed]


def caught(fault: Fault, tree: Path) -> str:
    """The test that fails with the fault and passes without; "": there is none."""
    path, text = planted(fault, tree)
    original = path.read_text(encoding="utf-8")
    try:
        path.write_text(text, encoding="utf-8")
        there = (test for test in fault.tests if (tree / test).exists())
        # one at a time: pytest puts a file that is named before its folder back to its place in there
        failed = next(filter(None, (failures(tree, "-x", test) for test in there)), [])
    finally:
        path.write_text(original, encoding="utf-8")
    if failed and failures(tree, failed[0]):
        raise RuntimeError(f"{fault.name}: {failed[0]} fails without the fault too: mend the tree first.")
    return failed[0] if failed else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="faults whose name contains one of these")
    parser.add_argument("--out", type=Path, help="a file for the table")
    arguments = parser.parse_args()
    chosen = [f for f in FAULTS if not arguments.only or any(part in f.name for part in arguments.only)]
    for fault in chosen:  # all of them, before hours are spent on the first
        planted(fault, arguments.tree)
    ignored = shutil.ignore_patterns(".git", ".venv*", "outputs", "__pycache__")
    rows, missed = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(arguments.tree, tree, ignore=ignored)
        for fault in chosen:
            start = time.perf_counter()
            test = caught(fault, tree)
            seconds = time.perf_counter() - start
            missed += not test
            rows.append(f"{fault.name:70} {seconds:5.0f} s  {test or 'NOT CAUGHT'}")
            print(rows[-1], flush=True)
            if arguments.out:
                head = f"# python benchmarks/suite/planted_faults.py {arguments.tree}\n"
                arguments.out.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} faults, {missed} not caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
