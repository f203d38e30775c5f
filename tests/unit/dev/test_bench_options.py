"""The variables of `make bench`."""

import pytest

from keyturn_dev.bench.options import DEFAULT_WORKS, PEERS, STORES, WORKS, Options, command, parse_options
from keyturn_dev.errors import UsageError


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Options()),
        ({"SECONDS": "", "ONLY": " ", "LEVELS": ""}, Options()),
        ({"SECONDS": "2.5", "RUNS": "1"}, Options(seconds=2.5, runs=1)),
        ({"LEVELS": "8 32", "WORKERS": "2"}, Options(levels=(8, 32), workers=(2,))),
        ({"LEVELS": "8,8"}, Options(levels=(8,))),
        ({"ONLY": "auth|token"}, Options(works=("token", "auth"))),
        ({"STORES": "postgresql", "WRITE": "1"}, Options(stores=("postgresql",), write=True)),
        ({"WRITE": "0"}, Options()),
    ],
    ids=["nothing", "blanks", "a short run", "lists", "a double", "some work", "one store, written", "not written"],
)
def test_variables_say_what_is_measured(environ: dict[str, str], expected: Options) -> None:
    assert parse_options(environ) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECONDS", "0"),
        ("SECONDS", "61"),
        ("SECONDS", "5s"),
        ("SECONDS", "nan"),
        ("RUNS", "0"),
        ("RUNS", "many"),
        ("LEVELS", "32 1000"),
        ("WORKERS", "-1"),
        ("ONLY", "tokens"),
        ("STORES", "mysql"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_the_variables_name(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^{name}: "):
        parse_options({name: value})


def test_everything_but_other_products_is_measured_by_default() -> None:
    assert (parse_options({}).works, parse_options({}).stores) == (DEFAULT_WORKS, STORES)
    assert set(WORKS) - set(DEFAULT_WORKS) == set(PEERS)


def test_the_command_repeats_the_run() -> None:
    environ = {"RUNS": "1", "LEVELS": "8 32", "ONLY": "", "HOME": "/somewhere"}
    assert command(environ) == "make bench RUNS=1 LEVELS='8 32'"
