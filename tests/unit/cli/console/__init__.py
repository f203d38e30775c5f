"""The page of `keyturn console`, without a cluster and without a browser."""
