"""`keyturn test`: what AccessRules decide, held against what is expected, without a cluster."""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..cases import Case, read_cases
from ..errors import Exit
from ..explanation import OUTCOMES, lacking, would_deny
from ..help import examples
from ..output import printable, say
from ..progress import working
from ..rule_files import RuleSet, load_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

EPILOG: Final = examples(
    "keyturn test rules/ --cases cases.yaml",
    "keyturn test rules/shop.yaml rules/health.yaml --cases cases.yaml -o json",
    "keyturn test rules/",
) + (
    "\n\nA case: {request: GET https://shop.example/orders/7, permissions: [orders:read], expect: allow}; also name, groups, audiences, "
    "userProperties, backoffice, clientType, anonymous. expect is allow, deny, unauthenticated or unknown (no route)."
    "\n\nExit codes: 0 all as expected; 1 a case came out otherwise, or a rule is invalid or conflicts; "
    "2 the command line or a file can't be used."
)

_HEADINGS: Final = ("CASE", "REQUEST", "EXPECTED", "GOT", "RULE", "ROUTE", "WHY")


class Format(StrEnum):
    """How results are written to stdout."""

    TABLE = "table"
    JSON = "json"


def try_rules(
    rules: Annotated[
        list[Path],
        typer.Argument(metavar="RULES...", help="Files or folders with AccessRule manifests.", show_default=False),
    ],
    cases: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The cases in YAML; without any, the rules are checked only.", show_default=False
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to write the results.")] = Format.TABLE,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The namespace of manifests that name none.")
    ] = "default",
    enforce_audit: Annotated[
        bool, typer.Option("--enforce-audit", help="Take rules of mode Audit as if they were in force.")
    ] = False,
) -> None:
    """Check AccessRules and try requests against them, before they are applied and without a cluster.

    The rules are read, compiled and asked by the same code that answers the gateway.
    """
    expected = [] if cases is None else read_cases(cases)
    with working("Trying the rules"):
        loaded = load_rules(rules, namespace=namespace, enforce_audit=enforce_audit)
        results = [result(case, loaded) for case in expected]
    failures = [found for found in results if not found["ok"]]
    if output is Format.JSON:
        typer.echo(json.dumps(body_of(loaded, results), ensure_ascii=False, indent=2))
    else:
        report_rules(loaded)
        if failures:
            print_table([row(failure) for failure in failures])
        for ref, count in audited(results).items():
            typer.echo(printable(f"Audit: {ref} would deny {counted(count, 'case')} that is allowed now"))
        typer.echo(summary(loaded, len(results), len(failures)))
    if failures or not loaded.sound:
        raise typer.Exit(Exit.REFUSED)


def result(case: Case, loaded: RuleSet) -> dict[str, Any]:
    explanation = case.question.explain(loaded.table).to_body()
    decision = explanation["decision"]
    got = OUTCOMES[decision["outcome"]]
    return {
        "case": case.number,
        "name": case.name or None,
        "request": case.request,
        "expected": case.expect,
        "got": got,
        "ok": got == case.expect,
        "reason": decision["reason"],
        "rule": decision["rule"],
        "route": decision["route"],
        "why": "" if got == "allow" else lacking(explanation),
        "wouldDeny": would_deny(explanation),
    }


def body_of(loaded: RuleSet, results: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "ok": loaded.sound and all(found["ok"] for found in results),
        "rules": loaded.count,
        "invalid": [
            {
                "file": invalid.file,
                "line": invalid.line,
                "rule": invalid.rule,
                "reason": invalid.problem.reason,
                "field": invalid.problem.field,
                "message": invalid.problem.message,
            }
            for invalid in loaded.invalid
        ],
        "conflicts": [
            {
                "rule": rule,
                "others": list(conflict.others),
                "host": conflict.host or None,
                "path": conflict.path,
                "method": conflict.method,
            }
            for rule, conflicts in loaded.conflicts.items()
            for conflict in conflicts
        ],
        "cases": results,
    }


def report_rules(loaded: RuleSet) -> None:
    for invalid in loaded.invalid:
        say(printable(f"Invalid: {invalid}"), style="red")
    for rule, conflicts in loaded.conflicts.items():
        for conflict in conflicts:
            place = f"{conflict.method} {conflict.host}{conflict.path}"
            others = ", ".join(conflict.others) or rule
            say(
                printable(f"Conflicting: {rule}: {place} is decided otherwise by {others}; both must hold"), style="red"
            )


def row(failure: dict[str, Any]) -> tuple[str, ...]:
    name = f"{failure['case']} {failure['name'] or ''}".strip()
    return (
        name,
        failure["request"],
        failure["expected"],
        failure["got"],
        failure["rule"] or "-",
        failure["route"] or "-",
        "; ".join(filter(None, (failure["reason"], failure["why"]))),
    )


def audited(results: list[dict[str, Any]]) -> dict[str, int]:
    """How many of the cases each rule under Audit would deny besides."""
    return dict(sorted(Counter(ref for found in results for ref in found["wouldDeny"]).items()))


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Plain columns, which no narrow terminal cuts and every log keeps."""
    shown = [_HEADINGS, *(tuple(printable(cell) for cell in cells) for cells in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for cells in shown:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def summary(loaded: RuleSet, cases: int, failures: int) -> str:
    text = counted(loaded.count, "rule")
    if cases:
        text += f", {counted(cases, 'case')}, {f'{failures} not' if failures else 'all'} as expected"
    if loaded.invalid:
        text += f"; {len({invalid.rule for invalid in loaded.invalid})} invalid"
    if loaded.conflicts:
        text += f"; {len(loaded.conflicts)} conflicting"
    return text


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
