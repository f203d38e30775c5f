"""The installation's signing keys: their states, the Secret that holds them, and what is to be made next."""
