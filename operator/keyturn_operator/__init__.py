"""The operator: turns objects in the cluster into store rows, Secrets and statuses."""
