"""Spendwatch: the LLM bill that a company can prove. `import spendwatch` is the SDK."""

from spendwatch.version import __version__

__all__ = ["__version__"]
