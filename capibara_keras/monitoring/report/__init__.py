"""One page about a training: its numbers, nine panels, a file that needs nothing else."""

from capibara_keras.monitoring.report.page import write_page
from capibara_keras.monitoring.report.story import Story

__all__ = ["Story", "write_page"]
