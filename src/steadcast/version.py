"""The version, in a module of its own so that the build and the hook read it without importing more."""

__version__ = "0.1.0"
