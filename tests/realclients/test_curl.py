"""curl and openssl, as documentation for people shows it: the assertion is made by hand."""

import base64
import json
import shutil
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.realclients.service import (
    AUDIENCE,
    CHOSEN_SECRET,
    SECRET,
    Service,
    claims_are_whole,
    key_client,
    key_of,
)

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SCRIPT = r"""
set -eu
b64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
now=$(date +%s)
header=$(printf '{"alg":"RS256","kid":"%s","typ":"JWT"}' "$KID" | b64url)
claims=$(printf '{"iss":"%s","sub":"%s","aud":"%s","jti":"%s","iat":%s,"exp":%s}' \
  "$CLIENT_ID" "$CLIENT_ID" "$ISSUER" "$(openssl rand -hex 16)" "$now" "$((now + 60))" | b64url)
signature=$(printf '%s.%s' "$header" "$claims" | openssl dgst -sha256 -sign "$KEY" -binary | b64url)
answer=$(curl --silent --show-error --fail-with-body --cacert "$CA" \
  --header 'Content-Type: application/x-www-form-urlencoded' \
  --data-urlencode 'grant_type=client_credentials' \
  --data-urlencode 'client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer' \
  --data-urlencode "client_assertion=$header.$claims.$signature" \
  --data-urlencode "client_id=$CLIENT_ID" \
  --data-urlencode 'token_endpoint_auth_method=private_key_jwt' \
  --data-urlencode "audience=$AUDIENCE" \
  "$ISSUER/oauth/token")
printf '%s\n' "$answer"
token=$(printf '%s' "$answer" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl --silent --show-error --fail-with-body --cacert "$CA" --header "Authorization: Bearer $token" "$ISSUER/tokeninfo"
"""


def run(command: list[str], environ: dict[str, str]) -> str:
    for program in ("curl", "openssl"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing; install it with the system's packages")
    done = subprocess.run(
        command, env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environ}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_shell_script_with_openssl_signs_its_assertion_and_gets_and_uses_a_token(
    service: Service, tmp_path: Path
) -> None:
    key = key_of("RS256")
    (tmp_path / "key.pem").write_bytes(key.to_pem())
    given = {"ISSUER": service.issuer, "CLIENT_ID": key_client("RS256"), "KID": key.kid, "AUDIENCE": AUDIENCE}
    paths = {"KEY": str(tmp_path / "key.pem"), "CA": str(service.trust.authority)}
    answer, info = (json.loads(line) for line in run(["sh", "-c", SCRIPT], {**given, **paths}).splitlines())
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 900)
    claims_are_whole(info, service, key_client("RS256"))


def curl_token(service: Service, *options: str, data: dict[str, str]) -> dict[str, Any]:
    fields = [word for name, value in data.items() for word in ("--data-urlencode", f"{name}={value}")]
    command = ["curl", "--silent", "--show-error", "--cacert", str(service.trust.authority), *options, *fields]
    answer = json.loads(run([*command, service.token_endpoint], {}))
    assert isinstance(answer, dict)
    return answer


def test_curl_sends_a_secret_in_basic(service: Service) -> None:
    answer = curl_token(service, "--user", f"team.basic:{SECRET}", data={"grant_type": "client_credentials"})
    assert answer["token_type"] == "Bearer"


def test_curl_sends_a_secret_in_the_body(service: Service) -> None:
    data = {"grant_type": "client_credentials", "client_id": "team.chosen-post", "client_secret": CHOSEN_SECRET}
    assert curl_token(service, data=data)["token_type"] == "Bearer"


def test_curl_shows_the_error_of_an_assertion_for_another_audience(service: Service) -> None:
    now = int(time.time())
    client_id = key_client("RS256")
    claims = {"iss": client_id, "sub": client_id, "aud": "https://elsewhere.example", "jti": str(uuid.uuid4())}
    parts = [{"alg": "RS256"}, {**claims, "iat": now, "exp": now + 60}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    signature = base64.urlsafe_b64encode(key_of("RS256").sign(b".".join(encoded))).rstrip(b"=")
    signed = b".".join((*encoded, signature)).decode()
    data = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}
    answer = curl_token(service, data=data)
    assert answer["error"] == "invalid_client"
    assert "aud" in answer["error_description"]
