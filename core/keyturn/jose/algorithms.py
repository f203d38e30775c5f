"""The signature algorithms (RFC 7518 section 3.1, RFC 8037 section 3.1) that keys and tokens may name."""

from typing import Final

RS256: Final = "RS256"
PS256: Final = "PS256"
ES256: Final = "ES256"
EDDSA: Final = "EdDSA"

ALGORITHMS: Final = frozenset({RS256, PS256, ES256, EDDSA})
# RFC 9864 section 2.2 names the same algorithm more fully, and new libraries write that name.
SYNONYMS: Final = {"Ed25519": EDDSA}
RSA_ALGORITHMS: Final = frozenset({RS256, PS256})

# Sizes in bits that Keyturn generates; it verifies RSA keys of any size from MIN_RSA_BITS to MAX_RSA_BITS.
GENERATED_SIZES: Final = {
    RS256: frozenset({2048, 3072, 4096}),
    PS256: frozenset({2048, 3072, 4096}),
    ES256: frozenset({256}),
    EDDSA: frozenset({256}),
}

# RFC 7518 sections 3.3 and 3.5: a key of 2048 bits or larger MUST be used. The upper bound keeps one verification cheap.
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
