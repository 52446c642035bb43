"""Dreamspace: teach a text-to-image model your own subject, and know that it worked."""

__version__ = "0.1.0"
