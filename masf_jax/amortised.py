"""The public name of `masf_jax.masf.amortised`."""

from .masf.amortised import (
    Course as Course,
    Practice as Practice,
    Round as Round,
    load_amortised as load_amortised,
    practise as practise,
    pretrained_file as pretrained_file,
    pretrained_folder as pretrained_folder,
    pretrained_names as pretrained_names,
    save_amortised as save_amortised,
    train_on_policy as train_on_policy,
    train_through_cycles as train_through_cycles,
)
