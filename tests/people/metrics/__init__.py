"""Metrics, alerts, dashboard, traces and logs of a running installation."""
