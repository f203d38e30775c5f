"""What is in force of an AccessRule, in a normal form, and as the body of its record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
ALL: Final = "ALL"
ENFORCE: Final = "Enforce"
AUDIT: Final = "Audit"
MODES: Final = (ENFORCE, AUDIT)


@dataclass(frozen=True, slots=True)
class Condition:
    """Who may pass: everybody (`public`), or whoever meets all that is given here.

    `any_of` and `all_of` are permissions (sorted, without doubles; both given: both hold). `deny` is the reason why nobody
    passes. `also` are further conditions that must hold too: while an edit is invalid, what it changed is bound by the old
    form and the new one.
    """

    public: bool = False
    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    expression: str | None = None
    deny: str | None = None
    also: tuple["Condition", ...] = ()

    @property
    def open(self) -> bool:
        """Whether everybody passes, with or without a token."""
        return self.public and self.deny is None and all(other.open for other in self.also)

    def to_body(self) -> dict[str, Any]:
        body: dict[str, Any] = {}
        if self.public:
            body["public"] = True
        if self.any_of:
            body["anyOf"] = list(self.any_of)
        if self.all_of:
            body["allOf"] = list(self.all_of)
        if self.expression is not None:
            body["expression"] = self.expression
        if self.deny is not None:
            body["deny"] = self.deny
        if self.also:
            body["also"] = [other.to_body() for other in self.also]
        return body

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        return cls(
            public=bool(body.get("public", False)),
            any_of=tuple(body.get("anyOf", ())),
            all_of=tuple(body.get("allOf", ())),
            expression=body.get("expression"),
            deny=body.get("deny"),
            also=tuple(cls.from_body(other) for other in body.get("also", ())),
        )


@dataclass(frozen=True, slots=True)
class RouteState:
    """One route. `methods` holds HTTP methods or `ALL`, never nothing; without `backoffice` the main part decides there too."""

    path: str
    methods: tuple[str, ...]
    main: Condition
    backoffice: Condition | None = None

    def part(self, *, is_backoffice: bool) -> Condition:
        return self.backoffice if is_backoffice and self.backoffice is not None else self.main

    def to_body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"path": self.path, "methods": list(self.methods), "main": self.main.to_body()}
        if self.backoffice is not None:
            body["backoffice"] = self.backoffice.to_body()
        return body

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        backoffice = body.get("backoffice")
        return cls(
            path=body["path"],
            methods=tuple(body["methods"]),
            main=Condition.from_body(body["main"]),
            backoffice=None if backoffice is None else Condition.from_body(backoffice),
        )


@dataclass(frozen=True, slots=True)
class RuleState:
    """An AccessRule in force. No `hosts`: every host; no `audiences`: the token's audience is not narrowed.

    Under mode `Audit` it decides nothing: what it would deny is counted and logged.
    """

    hosts: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    mode: str = ENFORCE
    routes: tuple[RouteState, ...] = ()

    def to_body(self) -> dict[str, Any]:
        return {
            "hosts": list(self.hosts),
            "audiences": list(self.audiences),
            "mode": self.mode,
            "routes": [route.to_body() for route in self.routes],
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        return cls(
            hosts=tuple(body.get("hosts", ())),
            audiences=tuple(body.get("audiences", ())),
            mode=body.get("mode", ENFORCE),
            routes=tuple(RouteState.from_body(route) for route in body.get("routes", ())),
        )
