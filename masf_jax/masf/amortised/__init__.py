"""The filter trained beforehand on simulated cycles: features, practice, training, files."""

from typing import TYPE_CHECKING

from ..._lazy import lazy

if TYPE_CHECKING:
    from .files import (
        load_amortised as load_amortised,
        pretrained_file as pretrained_file,
        pretrained_folder as pretrained_folder,
        pretrained_names as pretrained_names,
        save_amortised as save_amortised,
    )
    from .filter import AmortisedMASF as AmortisedMASF
    from .practice import Practice as Practice, practise as practise
    from .through_cycles import train_through_cycles as train_through_cycles
    from .training import Course as Course, Round as Round, train_on_policy as train_on_policy

__getattr__, __dir__ = lazy(
    __name__,
    {
        "AmortisedMASF": ".filter",
        "load_amortised": ".files",
        "pretrained_file": ".files",
        "pretrained_folder": ".files",
        "pretrained_names": ".files",
        "save_amortised": ".files",
        "Practice": ".practice",
        "practise": ".practice",
        "Course": ".training",
        "Round": ".training",
        "train_on_policy": ".training",
        "train_through_cycles": ".through_cycles",
    },
)
