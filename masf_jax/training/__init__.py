"""Training of denoisers: objectives, the loop, checkpoints."""

from .config import FitConfig as FitConfig
from .history import History as History
from .loop import fit as fit, pretrain as pretrain
from .objectives import denoising_loss as denoising_loss, uniform_angle as uniform_angle
