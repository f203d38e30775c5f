"""Access rules: which condition decides a request, and what it comes to."""
