"""The tokens of client credentials: reading assertions, granting, building and reading access tokens."""
