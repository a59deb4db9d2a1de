"""One self-contained page per run, or for several runs of one kind: what was trained, how well, and what is inside."""

from scschnet.callable import let_call
from scschnet.report.report import write_report

__all__ = ["write_report"]

let_call(__name__, write_report)
