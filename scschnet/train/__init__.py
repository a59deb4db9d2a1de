"""Training: the loop, the loss, the optimizers and the state that a run resumes from."""

from scschnet.callable import let_call
from scschnet.train.loop import Interrupted, TrainingFailed, train

__all__ = ["Interrupted", "TrainingFailed", "train"]

let_call(__name__, train)
