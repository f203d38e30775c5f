"""The alerts with series that make them fire and series that do not, and Prometheus's own promtool to judge them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tests.documents import PROJECT

RULES = PROJECT / "charts" / "keyturn" / "files" / "alerts.yaml"
API = 'instance="api-0", job="api"'
OPERATOR = 'instance="operator-0", job="operator"'
FROM_API = {"instance": "api-0", "job": "api"}
FROM_OPERATOR = {"instance": "operator-0", "job": "operator"}
DAY = 1440
_INSTANCE = re.compile(r'instance="([^"]+)"')


def alerts() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, a value a minute. `fires` and `silent` are looked at `minutes` after the beginning."""

    fires: dict[str, str]
    silent: dict[str, str]
    summary: str
    labels: dict[str, str] = field(default_factory=dict)
    minutes: int = 60


def requests(endpoint: str, outcome: str) -> str:
    return f'keyturn_api_requests_total{{endpoint="{endpoint}", outcome="{outcome}", {API}}}'


def bucket(endpoint: str, end: str) -> str:
    return f'keyturn_api_request_seconds_bucket{{endpoint="{endpoint}", le="{end}", {API}}}'


def failures(reason: str) -> str:
    return f'keyturn_api_client_authentication_failures_total{{method="secret", reason="{reason}", {API}}}'


def objects(ready: str, reason: str) -> str:
    return f'keyturn_operator_objects{{kind="ClientCredential", ready="{ready}", reason="{reason}", {OPERATOR}}}'


READY = f"keyturn_api_ready{{{API}}}"
CHECKED = f"keyturn_api_snapshot_checked_timestamp_seconds{{{API}}}"
REPLACED = f"keyturn_api_store_replaced_total{{{API}}}"
CERTIFICATE = f"keyturn_api_tls_certificate_expiry_timestamp_seconds{{{API}}}"
TOKENS = f'keyturn_api_tokens_issued_total{{client="other", {API}}}'
LEADER = f"keyturn_operator_leader{{{OPERATOR}}}"
SWEPT = f"keyturn_operator_last_sweep_timestamp_seconds{{{OPERATOR}}}"
QUEUE = f"keyturn_operator_queue_depth{{{OPERATOR}}}"
ACTIVE = f'keyturn_operator_signing_keys{{phase="Active", {OPERATOR}}}'
ROTATES = f"keyturn_operator_signing_key_next_rotation_timestamp_seconds{{{OPERATOR}}}"
EXPIRING = f"keyturn_operator_clients_keys_expiring{{{OPERATOR}}}"
PENDING = f"keyturn_operator_registrations_pending{{{OPERATOR}}}"


def revision(replica: int) -> str:
    return f'keyturn_api_applied_revision{{instance="api-{replica}", job="api"}}'


def reconciles(outcome: str) -> str:
    return f'keyturn_operator_reconcile_seconds_count{{kind="AccessRule", outcome="{outcome}", {OPERATOR}}}'


CASES = {
    "KeyturnUnavailable": Case({READY: "0x100"}, {READY: "1x100"}, "No replica of Keyturn's API is ready."),
    "KeyturnReplicaNotReady": Case(
        {READY: "0x100"}, {READY: "0 0 1x100"}, "The API replica api-0 is not ready.", FROM_API
    ),
    "KeyturnRequestsFail": Case(
        {requests("auth", "allowed"): "0+98x100", requests("auth", "unavailable"): "0+2x100"},
        {requests("auth", "allowed"): "0+1000x100", requests("auth", "unavailable"): "0+1x100"},
        "2% of the requests to auth fail.",
        {"endpoint": "auth"},
    ),
    "KeyturnUnexpectedFailures": Case(
        {requests("http", "failed"): "0x50 1x50"}, {requests("http", "failed"): "1x100"}, "Keyturn's API answered 500."
    ),
    "KeyturnDecisionsSlow": Case(
        {bucket("auth", "0.05"): "0+90x100", bucket("auth", "0.1"): "0+100x100", bucket("auth", "+Inf"): "0+100x100"},
        {bucket("auth", "0.05"): "0+100x100", bucket("auth", "0.1"): "0+100x100", bucket("auth", "+Inf"): "0+100x100"},
        "A decision takes 95ms (99th percentile).",
    ),
    "KeyturnTokensSlow": Case(
        {bucket("token", "1"): "0+90x100", bucket("token", "2"): "0+100x100", bucket("token", "+Inf"): "0+100x100"},
        {bucket("token", "1"): "0+100x100", bucket("token", "2"): "0+100x100", bucket("token", "+Inf"): "0+100x100"},
        "A token takes 1.9s (99th percentile).",
    ),
    "KeyturnSnapshotStale": Case(
        {CHECKED: "3000x100"},
        {CHECKED: "0+60x100"},
        "The API replica api-0 has had no news from the store for 10m 0s.",
        FROM_API,
    ),
    "KeyturnReplicaLags": Case(
        {revision(0): "5x100", revision(1): "6x100"},
        {revision(0): "0+1x100", revision(1): "0+1x100"},
        "The API replica api-0 has not applied what others applied minutes ago.",
        FROM_API,
    ),
    "KeyturnStoreFails": Case(
        {f'keyturn_api_store_failures_total{{use="jti", {API}}}': "0+3x100"},
        {f'keyturn_api_store_failures_total{{use="jti", {API}}}': "9x100"},
        "Calls of api to the store fail.",
        {"job": "api"},
    ),
    "KeyturnStoreReplaced": Case(
        {REPLACED: "0x50 1x50"},
        {REPLACED: "1x100"},
        "The API replica api-0 met another store than before.",
        FROM_API,
    ),
    "KeyturnCertificateExpires": Case(
        {CERTIFICATE: "500000x100"}, {CERTIFICATE: "0x100"}, "The certificate of api-0 ends within a week.", FROM_API
    ),
    "KeyturnDenialsRise": Case(
        {requests("auth", "allowed"): "0+100x100", requests("auth", "forbidden"): "0+300x100"},
        # Nearly all are denied, but there are hardly any.
        {requests("auth", "allowed"): "0+1x100", requests("auth", "forbidden"): "0+30x100"},
        "75% of the requests through the gateway are denied.",
    ),
    "KeyturnClientsNotProven": Case(
        {failures("bad_signature"): "0+60x100", TOKENS: "0+60x100"},
        {failures("bad_signature"): "0+60x100", TOKENS: "0+600x100"},
        "Many clients do not prove who they are.",
    ),
    "KeyturnSecretsGuessed": Case(
        {failures("guessing"): "0+1x100"},
        {failures("wrong_secret"): "0+1x100"},
        "Somebody tries wrong client secrets again and again.",
    ),
    "KeyturnRegistrationsWait": Case(
        {PENDING: f"2x{2 * DAY}"},
        {PENDING: f"2x{DAY // 2} 0 2x{DAY}"},
        "2 registered clients wait for approval.",
        minutes=DAY + 5,
    ),
    "KeyturnNobodyOperates": Case({LEADER: "0x100"}, {LEADER: "1x100"}, "No operator of Keyturn acts."),
    "KeyturnSweepLate": Case(
        {LEADER: "1x100", SWEPT: "0x100"},
        # A standby sweeps nothing.
        {LEADER: "0x100", SWEPT: "0x100"},
        "No sweep of the operator has been complete for a quarter of an hour.",
        FROM_OPERATOR,
    ),
    "KeyturnReconcilesFail": Case(
        {reconciles("failed"): "0+1x100"},
        {reconciles("done"): "0+9x100", reconciles("failed"): "1x100"},
        "The operator fails on objects of kind AccessRule.",
        {"kind": "AccessRule"},
    ),
    "KeyturnQueueGrows": Case(
        {QUEUE: "150x100"}, {QUEUE: "99x100"}, "150 objects wait for the operator.", FROM_OPERATOR
    ),
    "KeyturnDriftRepaired": Case(
        {f'keyturn_operator_drift_repaired_total{{kind="ClientCredential", {OPERATOR}}}': "0x30 1x70"},
        {f'keyturn_operator_drift_repaired_total{{kind="ClientCredential", {OPERATOR}}}': "1x100"},
        "Rows of kind ClientCredential were changed in the store behind the operator's back.",
        {"kind": "ClientCredential"},
    ),
    "KeyturnObjectsNotReady": Case(
        {objects("False", "InvalidKey"): "3x100"},
        {objects("True", "Accepted"): "3x100", objects("False", "Suspended"): "3x100"},
        "3 objects of kind ClientCredential are not ready: InvalidKey.",
        {"kind": "ClientCredential", "reason": "InvalidKey"},
    ),
    "KeyturnSigningKeyMissing": Case(
        {LEADER: "1x100", ACTIVE: "0x100"},
        {LEADER: "0x100", ACTIVE: "0x100"},
        "There is no signing key to sign with.",
        FROM_OPERATOR,
    ),
    "KeyturnRotationLate": Case(
        {ROTATES: f"{60 * 60}x200"},
        {ROTATES: "0x200"},
        "The rotation of the signing key is 2h 0m 0s late.",
        FROM_OPERATOR,
        minutes=180,
    ),
    "KeyturnClientKeysExpire": Case(
        {EXPIRING: "4x100"}, {EXPIRING: "0x100"}, "Keys of 4 clients end soon.", minutes=70
    ),
}
# An installation of which Prometheus knows nothing at all.
ABSENT = ["KeyturnUnavailable", "KeyturnNobodyOperates"]


def promtool(*arguments: str) -> str:
    """What it prints; fails with it where it is not content."""
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: Debian's package prometheus has it"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def judge(
    folder: Path,
    name: str,
    series: Mapping[str, str],
    minutes: int,
    expected: Sequence[Mapping[str, Any]],
    rules: Sequence[Path] = (RULES,),
) -> None:
    """Fails with promtool's words where others than the expected alerts of this name fire."""
    files = []
    for number, path in enumerate(rules):
        # Without the other alerts, a day's evaluation takes no time.
        groups = [
            {**group, "rules": [rule for rule in group["rules"] if rule["alert"] == name]}
            for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        ]
        files.append(folder / f"{number}.yaml")
        files[-1].write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    test = {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": expected}],
    }
    path = folder / "test.json"
    path.write_text(
        json.dumps({"rule_files": [str(one) for one in files], "evaluation_interval": "1m", "tests": [test]}),
        encoding="utf-8",
    )
    promtool("test", "rules", str(path))


def installed(name: str, namespace: str) -> Case:
    """The alert's case as an installation in this namespace shows it, with the labels that the Prometheus Operator gives a target."""

    def labelled(series: Mapping[str, str]) -> dict[str, str]:
        return {_INSTANCE.sub(target, one): values for one, values in series.items()}

    def target(found: re.Match[str]) -> str:
        return ", ".join(f'{label}="{value}"' for label, value in labels_of(found[1]).items())

    def labels_of(pod: str) -> dict[str, str]:
        return {"instance": f"10.0.0.{pod[-1]}:9090", "pod": pod, "namespace": namespace}

    case = CASES[name]
    own = labels_of(case.labels["instance"]) if "instance" in case.labels else {"namespace": namespace}
    return replace(
        case,
        fires=labelled(case.fires),
        silent=labelled(case.silent),
        summary=f"{namespace}: {case.summary}",
        labels=case.labels | own,
    )


def told(name: str, case: Case) -> dict[str, Any]:
    """The alert as its receiver gets it."""
    rule = alerts()[name]
    annotations = {**rule["annotations"], "summary": case.summary}
    return {"exp_labels": {**rule["labels"], **case.labels}, "exp_annotations": annotations}
