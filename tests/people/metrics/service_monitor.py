"""Targets as the Prometheus Operator makes them of a ServiceMonitor: first its own labels, then the relabelings of the monitor."""

from collections.abc import Mapping
from typing import Any, Final

OPERATORS_LABELS: Final = frozenset({"namespace", "service", "pod", "container", "node", "job", "endpoint", "instance"})
"""`instance` is Prometheus's own; `node` is set where a node is the target."""
_MEMBERS: Final = {"sourceLabels": "source_labels", "targetLabel": "target_label"}


def scrape_config(monitor: Mapping[str, Any], namespace: str, service: str, pods: Mapping[str, int]) -> dict[str, Any]:
    """A job for Prometheus; `pods` are the ports at which each pod of the Service answers on the loopback device.

    No honor_labels, whatever the monitor says: a Prometheus with `overrideHonorLabels` has none either.
    """
    (endpoint,) = monitor["spec"]["endpoints"]
    name = monitor["metadata"]["name"]
    relabelings = [{_MEMBERS.get(key, key): value for key, value in one.items()} for one in endpoint["relabelings"]]
    return {
        "job_name": f"serviceMonitor/{namespace}/{name}/0",
        "honor_labels": False,
        "static_configs": [
            {
                "targets": [f"127.0.0.1:{port}"],
                "labels": {
                    "__meta_kubernetes_namespace": namespace,
                    "__meta_kubernetes_service_name": service,
                    "__meta_kubernetes_pod_name": pod,
                    "__meta_kubernetes_pod_container_name": name,
                },
            }
            for pod, port in pods.items()
        ],
        "relabel_configs": [
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "service"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"},
            {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job"},
            {"target_label": "endpoint", "replacement": endpoint["port"]},
            *relabelings,
        ],
    }
