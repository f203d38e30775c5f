"""What tests of this folder take from the installations' fixtures by name; the fixtures themselves are everybody's."""

from tests.installations import StartInstallation, StartWorld, signing_key

__all__ = ["StartInstallation", "StartWorld", "signing_key"]
