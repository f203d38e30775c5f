"""The few calls to the Kubernetes API that the operator makes itself, besides kopf's watches."""
