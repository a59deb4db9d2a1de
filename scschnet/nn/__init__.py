"""The network: radial basis, filters, convolution, interaction blocks, readout, model."""

from scschnet.nn.config import ModelConfig
from scschnet.nn.model import SchNet

__all__ = ["ModelConfig", "SchNet"]
