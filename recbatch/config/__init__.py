"""The configuration: typed sections with their defaults, and how files and overrides make one."""

from recbatch.config.loading import load_config
from recbatch.config.sections import Config

__all__ = ["Config", "load_config"]
