"""ir"""

from .text import parse, show

__all__ = ["parse", "show"]
