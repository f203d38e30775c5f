"""What the variables of `make bench` ask for, within bounds."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from keyturn_dev.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

STORE_WORKS = ("token", "basic", "tokeninfo", "auth", "auth-new")
CHECK_WORKS = ("routes", "grpc", "gateways")
# Measured when asked for by name only: it builds a program of some size.
PEERS = ("opa",)
WORKS = (*STORE_WORKS, *CHECK_WORKS, *PEERS)
DEFAULT_WORKS = (*STORE_WORKS, *CHECK_WORKS)
STORES = ("sqlite", "postgresql")
VARIABLES = ("SECONDS", "RUNS", "LEVELS", "WORKERS", "ONLY", "STORES", "WRITE")


@dataclasses.dataclass(frozen=True)
class Options:
    """`seconds` a run, `runs` of each measurement, `levels`: connections, `workers`: worker processes of the API."""

    seconds: float = 5.0
    runs: int = 3
    levels: tuple[int, ...] = (32,)
    workers: tuple[int, ...] = (1, 2)
    works: tuple[str, ...] = DEFAULT_WORKS
    stores: tuple[str, ...] = STORES
    write: bool = False


def parse_options(environ: Mapping[str, str]) -> Options:
    """Read the variables; raise `UsageError` naming the one that cannot be meant."""
    default = Options()
    return Options(
        seconds=_seconds(environ, default.seconds),
        runs=_numbers(environ, "RUNS", (default.runs,), low=1, high=20)[0],
        levels=_numbers(environ, "LEVELS", default.levels, low=1, high=256),
        workers=_numbers(environ, "WORKERS", default.workers, low=1, high=16),
        works=_names(environ, "ONLY", WORKS, default.works),
        stores=_names(environ, "STORES", STORES, default.stores),
        write=environ.get("WRITE", "") not in ("", "0"),
    )


def command(environ: Mapping[str, str]) -> str:
    """Return the command line that repeats this run."""
    given = [f"{name}={_quoted(environ[name])}" for name in VARIABLES if environ.get(name)]
    return " ".join(["make bench", *given])


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[\w.,|-]+", value) else "'" + value.replace("'", r"'\''") + "'"


def _parts(environ: Mapping[str, str], name: str) -> list[str]:
    return [part for part in re.split(r"[\s,|]+", environ.get(name, "")) if part]


def _seconds(environ: Mapping[str, str], default: float) -> float:
    text = environ.get("SECONDS", "").strip()
    if not text:
        return default
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3})?", text) or not 0.5 <= float(text) <= 60:
        raise UsageError("SECONDS: the length of one run, from 0.5 to 60")
    return float(text)


def _numbers(
    environ: Mapping[str, str], name: str, default: tuple[int, ...], *, low: int, high: int
) -> tuple[int, ...]:
    parts = _parts(environ, name)
    if any(not re.fullmatch(r"\d{1,3}", part) or not low <= int(part) <= high for part in parts):
        raise UsageError(f"{name}: numbers from {low} to {high}")
    return tuple(dict.fromkeys(map(int, parts))) or default


def _names(environ: Mapping[str, str], name: str, known: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    parts = _parts(environ, name)
    if unknown := [part for part in parts if part not in known]:
        raise UsageError(f"{name}: there is no {unknown[0]!r}; choose from {', '.join(known)}")
    # In the order in which they are measured, whatever that of the words.
    return tuple(each for each in known if each in parts) or default
