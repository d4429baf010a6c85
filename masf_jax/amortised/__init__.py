"""The amortised filter's training on simulated cycles, and its files."""

from .files import (
    load_amortised as load_amortised,
    pretrained_folder as pretrained_folder,
    pretrained_names as pretrained_names,
    save_amortised as save_amortised,
)
from .on_policy import Round as Round, train_on_policy as train_on_policy
from .practice import Practice as Practice, practise as practise
