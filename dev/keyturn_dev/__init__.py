"""What developers need on their own machine: a local cluster, a PostgreSQL for tests, the walk-through. Not shipped."""
