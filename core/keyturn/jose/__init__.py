"""JSON Object Signing and Encryption, as far as Keyturn needs it: public keys, compact JWS, signing.

Stands on `cryptography` directly: a key is prepared once and pins its algorithm, so that a token's header never decides how it is verified.
"""
