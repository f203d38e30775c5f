"""`keyturn console`: a page on the person's own machine, with the rights of their own kubeconfig."""
