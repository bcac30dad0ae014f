"""Generative retrieval with learned, balanced document identifiers."""

__version__ = '0.1.0'
