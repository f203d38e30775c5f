"""Private keys for tests: generated once a process, so that RSA costs little."""

from functools import cache

from keyturn.jose.signing import PrivateKey, generate
from tests.secrecy.planted import PLANTED

SIZES = {"RS256": 2048, "PS256": 2048, "ES256": 256, "EdDSA": 256}
ALGORITHMS = tuple(SIZES)


def sample_key(algorithm: str = "RS256", number: int = 0) -> PrivateKey:
    """The same key for the same arguments; another `number` makes another one."""
    return _generated(algorithm, number)


@cache
def _generated(algorithm: str, _: int) -> PrivateKey:
    key = generate(algorithm, SIZES[algorithm])
    PLANTED.pem(f"a sample key of {algorithm}", key.to_pem().decode())
    return key
