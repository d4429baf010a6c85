"""What `--help` prints."""

__all__ = ["LONG", "OVERVIEW"]

OVERVIEW = """\
masf-jax: data assimilation experiments

  masf-jax run [KEY=VALUE …]     run an experiment         (masf-jax run --help)
  masf-jax compare filters=[…]   several filters on the same problems, one table   (masf-jax compare --help)
  masf-jax tune filter=… [KEY=VALUE …]   tune a filter's values with Optuna   (masf-jax tune --help)
  masf-jax train [KEY=VALUE …]   pretrain the network of a score-based filter (masf-jax train --help)
  masf-jax animate RUN_DIR       vorticity of a flow's run as GIF or MP4   (--format mp4)
  masf-jax plot RUN [WHAT …]     figures of a finished run or comparison, anew   (masf-jax plot --help)
  masf-jax report RUN            one HTML page of a run or comparison: scores, figures, configuration
  masf-jax doctor                versions, devices, threads, caches, memory; what is wrong
  masf-jax init [FOLDER]         a folder with a model, a sensor, a run and a test to start from
  masf-jax list [GROUP]          choices of every group, one line each
  masf-jax list GROUP NAME       the keys of a choice: value, type, what each is
  masf-jax --version
  masf-jax --install-completion  completion in bash, zsh or fish   (--show-completion)

Also: python -m masf_jax …   Try: masf-jax run experiment=lorenz96_sakov2008
"""
RUN = """\
masf-jax run [OPTIONS] [KEY=VALUE …]

Composes a configuration, runs the experiment, prints a table and writes into output_dir:
result.nc (or result.zarr: result=zarr), metrics.json, config.yaml (fully resolved) and figures.

Options:
  -m, --multirun   sweep: every combination of comma-separated values (docs/sweeps.md)
  --config FILE    repeat a saved config.yaml bit for bit; overrides may follow
  --dry-run        compile, and say what the run will take of memory, by part; nothing is run
  --quiet          print nothing but warnings and errors (on stderr)
  --log-file PATH  add what is printed to a file too, tracebacks of faults with it
  --traceback      show the whole traceback of an error
  -h, --help       this text

Groups (GROUP=NAME; their keys are GROUP.KEY=VALUE, see masf-jax list GROUP NAME):
{groups}

Root keys and their defaults:
{keys}

A run that was ended goes on: the same command again (docs/runs.md).
A filter's values may also come from a file, filter=FILE.yaml, such as masf-jax tune writes.

Examples:
  masf-jax run experiment=lorenz96_sakov2008 filter=letkf seed=3 n_cycles=2000
  masf-jax run dynamics=lorenz63 filter=particle ensemble_size=1000 steps_per_cycle=25
  masf-jax run measurement=arctan measurement.noise.std=0.05 filter=letkf filter.radius=4
  masf-jax run experiment=nile observations.path=my_river.csv
  masf-jax run --config outputs/lorenz96_sakov2008-etkf-seed0/config.yaml output_dir=again
  masf-jax run -m experiment=lorenz96_sakov2008 filter=etkf,enkf,letkf seed=0,1,2

Exit codes:
{codes}
"""
TRAIN = """\
masf-jax train [OPTIONS] [KEY=VALUE …]

Trains the network of filter=masf_amortised on simulated cycles, or pretrains that of filter=masf_paper or of
filter=masf filter.prior=network on the model's own climatology, and writes a checkpoint, one file:
output_dir=PATH, or else checkpoints/<experiment or dynamics>-<filter>.safetensors. Groups and keys are those
of the run the network is for (masf-jax run --help). A network that is pretrained fits one model, one
measurement and one set of filter.network keys; one of masf_amortised runs wherever its layout fits.

  from=FILE        trains a checkpoint of masf_amortised further, for this model and measurement: a path, or
                   the name of one in the package (from=lorenz96_masks)

Options:
  --config FILE    settings of a saved config.yaml; overrides may follow
  --overwrite      replace a checkpoint that is there
  --quiet          print nothing but warnings and errors (on stderr)
  --log-file PATH  add what is printed to a file too, tracebacks of faults with it
  --traceback      show the whole traceback of an error
  -h, --help       this text

Example:
  masf-jax train experiment=lorenz63_sakov2012 filter=masf_paper
  masf-jax run experiment=lorenz63_sakov2012 filter=masf_paper \\
    filter.checkpoint=checkpoints/lorenz63_sakov2012-masf_paper.safetensors
"""
COMPARE = """\
masf-jax compare filters=[NAME,…] [LABEL.KEY=VALUE …] [KEY=VALUE …]

Runs every filter on the same truths, observations and first members, once for each seed, and prints one
table: RMSE of analysis and forecast with standard errors, spread/RMSE, CRPS, seconds per cycle, diverged
runs, and where each filter's values come from. Writes into output_dir (default outputs/compare-EXPERIMENT):
comparison.csv, runs.csv (each run), comparison.tex, comparison.png, LABEL.yaml (a filter's configuration).
--config FILE: keys of a file by hand come first, but for its filter, output_dir and seed.
--quiet and --log-file PATH as with masf-jax run.

  filters=[letkf,masf]            by name, as masf-jax list filter has them
  filters=[letkf,./tuned.yaml]    or a file of masf-jax tune (label: tuned)
  filters={{a:letkf,b:letkf}}       or with labels of your own
  LABEL.KEY=VALUE                 a key of one filter: letkf.radius=5 masf.inflation=1.05 etkf.ensemble_size=9
  filter.KEY=VALUE                a key of all filters
  seeds=5                         so many seeds from `seed` on; or which: seeds=[0,3,7]
  seeds_at_once=1                 runs computed together: quicker for small problems; memory times so many

Other groups and keys are those of masf-jax run, and are the same for all filters.

Examples:
  masf-jax compare 'filters=[etkf,letkf,masf]' experiment=lorenz96_sakov2008 ensemble_size=20 seeds=5
  masf-jax compare 'filters=[letkf,masf]' experiment=lorenz96_partial letkf.radius=5 letkf.inflation=1.05

Exit codes: those of masf-jax run, but diverged runs are counted in the table (0).
"""
TUNE = """\
masf-jax tune filter=NAME [filter.KEY=SPACE …] [KEY=VALUE …]

Looks for the values of a filter's keys with the lowest RMSE of the analysis, or the highest likelihood of
the observations, with Optuna
(pip install 'masf-jax[tune]'). Writes into output_dir (default outputs/tune-EXPERIMENT-FILTER) trials.csv
and FILTER_tuned.yaml, the best values as a file for filter=FILE.yaml. --quiet and --log-file PATH as with
masf-jax run. --config FILE: keys of a file by hand come first, but for its output_dir.

  filter.KEY=interval(1.0,1.3)    any number between; int(interval(2,9)): any integer
  filter.KEY=tag(log,interval(0.01,1))   on a logarithmic scale
  filter.KEY=2,4,6                one of these; also range(2,10,step=2)
                                  none given: inflation, radius and the like of the filter
  trials=30                       runs of the whole problem, each on all tuning seeds
  seeds=2                         so many tuning seeds from 1000 on; or which: seeds=[1000,1001]
  evaluation_seeds=5              for the score of the best values: so many from `seed` on, or which;
                                  none of the tuning seeds; 0: no evaluation
  seeds_at_once=1                 runs computed together
  objective=likelihood            needs no truth: the mean log-density of each value measured, given all
                                  before it; of real observations too (observations.path=…)

A run with NaN counts as the model's climatology. The first trial has the preset's own values,
where the space has them. Other groups and keys are those of masf-jax run.

Examples:
  masf-jax tune filter=letkf experiment=lorenz96_partial 'filter.inflation=interval(1,1.3)' filter.radius=2,4
  masf-jax compare 'filters=[masf,outputs/tune-lorenz96_partial-letkf/letkf_tuned.yaml]' \\
    experiment=lorenz96_partial

Exit codes: those of masf-jax run; 3: the best values gave NaN in some run.
"""

LONG = {"run": RUN, "compare": COMPARE, "tune": TUNE, "train": TRAIN}
"""By command; {groups}, {keys} and {codes} stand for what the files and `ExitCode` say."""
