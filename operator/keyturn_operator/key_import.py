"""Reads the key that `importFrom` names, so that tokens of the service that is replaced go on counting."""

import base64
import binascii

from keyturn import reasons
from keyturn.jose import signing
from keyturn.jose.algorithms import ES256, PS256, RS256
from keyturn.jose.rejection import KeyRejected
from keyturn.jose.signing import PrivateKey
from keyturn_operator.conditions import Verdict
from keyturn_operator.kube.client import Object
from keyturn_operator.signing_key_spec import ImportSource


class ImportRefused(Exception):
    """The key cannot be adopted. Members are named, values never."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.verdict = Verdict("False", reason, text)


def read_import(source: ImportSource, secret: Object | None, *, algorithm: str) -> PrivateKey:
    """The private key in the Secret, pinned to `algorithm` where it can do that. Blocking: a passphrase costs time by design.

    Raises ImportRefused.
    """
    name = source.secret_name
    if secret is None:
        text = f"The Secret {name} that importFrom names is not there yet. No key is made in its place."
        raise ImportRefused(reasons.SECRET_NOT_FOUND, text)
    pem = _member(secret, source, source.member)
    password = None
    if source.passphrase_member is not None:
        # Whoever made the Secret from a file may have left its line break at the end.
        password = _member(secret, source, source.passphrase_member).rstrip(b"\r\n")
    failures = []
    for one in (algorithm, RS256, ES256) if algorithm == PS256 else (RS256, ES256):
        try:
            return signing.load_pem(pem, kid=source.kid, algorithm=one, password=password, field=source.member)
        except KeyRejected as error:
            failures.append(f"{error.field}: {error.description}")
    text = f"The key of Secret {name} cannot be imported: {failures[0]}. No key is made in its place."
    raise ImportRefused(reasons.IMPORT_FAILED, text)


def _member(secret: Object, source: ImportSource, name: str) -> bytes:
    value = (secret.get("data") or {}).get(name)
    problem = "it has no member" if value is None else "not base64 is its member"
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    text = f"Nothing can be imported from Secret {source.secret_name}: {problem} {name}. No key is made in its place."
    raise ImportRefused(reasons.IMPORT_FAILED, text)
