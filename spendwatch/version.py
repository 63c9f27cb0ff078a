"""The version of the distribution; its only copy (the wheel's metadata reads it from here)."""

__version__ = "0.1.0"
