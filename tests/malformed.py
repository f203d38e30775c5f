"""What is sent in place of credentials, over a socket."""

import random


def malformed_values() -> list[bytes]:
    """500 values of Authorization that are no credentials; the same ones in every run."""
    chosen = random.Random(7)
    fixed = [
        *(
            b"",
            b" ",
            b"Bearer",
            b"Bearer ",
            b"Bearer\t",
            b"\tBearer x",
            b"bearer  x",
            b"Basic",
            b"Bearer \xff\xfe",
            b"\xff",
        ),
        *(
            b"Bearer " + b"a" * 15_000,
            b"Bearer a.b",
            b"Bearer a.b.c.d",
            b"Bearer ..",
            b"Bearer e30.e30.",
            b"Bearer ,",
            b"=",
        ),
        *(
            b"Bearer x, Bearer y",
            b'Digest a="b"',
            b"Negotiate YII=",
            b"Bearer null",
            b"Bearer undefined",
            b"B" * 16_000,
        ),
    ]
    allowed = [byte for byte in range(256) if byte >= 32 and byte != 127] + [9]
    while len(fixed) < 500:
        prefix = chosen.choice([b"Bearer ", b"Basic ", b"bearer ", b"", b"Bearer e30."])
        fixed.append(prefix + bytes(chosen.choices(allowed, k=chosen.randint(1, 200))))
    return fixed
