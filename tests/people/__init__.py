"""For the people who run an installation: what they see of it."""
