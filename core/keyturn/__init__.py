"""Keyturn's shared core: the domain's types and rules, free of Kubernetes and HTTP, and the store."""

from importlib.metadata import version

__version__ = version("keyturn")
