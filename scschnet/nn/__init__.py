"""The network: radial basis, filters, convolution, interaction blocks, readout, model."""

from scschnet.nn.model import ModelConfig, SchNet

__all__ = ["ModelConfig", "SchNet"]
