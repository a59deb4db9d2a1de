"""What a trained model does inside: pictures, and the very numbers in them as CSV."""

from scschnet.analysis.contributions import plot_contributions, read_contributions, summarize

__all__ = ["plot_contributions", "read_contributions", "summarize"]
