"""The filter trained beforehand on simulated cycles, and its files."""

from .files import (
    load_amortised as load_amortised,
    pretrained_folder as pretrained_folder,
    pretrained_names as pretrained_names,
    save_amortised as save_amortised,
)
from .practice import Practice as Practice, practise as practise
from .training import Round as Round, train_on_policy as train_on_policy
