"""Training of denoisers: objectives, the loop, checkpoints."""

from .checkpoint import (
    Checkpoint as Checkpoint,
    CheckpointError as CheckpointError,
    fingerprint as fingerprint,
    inspect as inspect,
    load as load,
    save as save,
)
from .config import FitConfig as FitConfig
from .history import History as History
from .loop import fit as fit, pretrain as pretrain
from .objectives import (
    denoising_loss as denoising_loss,
    process_angles as process_angles,
    uniform_angle as uniform_angle,
)
from .pretraining import pretrain_network as pretrain_network
