"""OAuth clients: their identity, keys, secrets and what they may do, as a ClientCredential says it."""
