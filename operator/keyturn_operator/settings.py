"""What the installation sets for the operator, from environment variables."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from keyturn import endpoints
from keyturn.records import Kind
from keyturn.settings_table import setting
from keyturn.store.transport import TlsMode, Transport

GROUP = "keyturn.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
Network = IPv4Network | IPv6Network
PLURALS: dict[Kind, str] = {
    Kind.CLIENT: "clientcredentials",
    Kind.SIGNING_KEY: "signingkeys",
    Kind.ACCESS_RULE: "accessrules",
}
PAUSED_ANNOTATION = f"{GROUP}/paused"
ROTATE_ANNOTATION = f"{GROUP}/rotate"


class OperatorSettings(BaseSettings):
    """The operator's settings: `KEYTURN_OPERATOR_…` are its own, plain `KEYTURN_…` it shares with the API. Times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="KEYTURN_OPERATOR_", populate_by_name=True, extra="ignore", frozen=True
    )

    store_url: str = setting(
        ...,
        "The store, the same as the API's: `postgresql://user:password@host:port/database`, or `sqlite:///path` on one machine.",
        reference="CRUD_CLIENT_BASE_URL, REDIS_*",
        validation_alias="KEYTURN_STORE_URL",
        repr=False,
    )
    store_prepared: bool = setting(
        True,
        "Prepared statements on PostgreSQL; `false` behind PgBouncer.",
        validation_alias="KEYTURN_STORE_PREPARED",
    )
    store_password: str | None = setting(
        None,
        "PostgreSQL's password, where it does not stand in the URL: a Secret's member can be given as it is.",
        validation_alias="KEYTURN_STORE_PASSWORD",
        repr=False,
    )
    store_tls: TlsMode | None = setting(
        None,
        "TLS to PostgreSQL: `verify-full` checks certificate and name, `require` only encrypts. Unset: what the URL's `sslmode` says.",
        validation_alias="KEYTURN_STORE_TLS",
    )
    store_ca_file: Path | None = setting(
        None,
        "The certificate authority for `verify-full`, PEM. Unset: what the machine trusts.",
        validation_alias="KEYTURN_STORE_CA_FILE",
    )
    store_pool_size: int = setting(
        5,
        "Connections to the store of each process, besides three of their own use.",
        ge=1,
        le=100,
        validation_alias="KEYTURN_STORE_POOL_SIZE",
    )
    store_statement_timeout: float = setting(
        5.0, "How long a statement may take.", ge=0.1, le=60, validation_alias="KEYTURN_STORE_STATEMENT_TIMEOUT"
    )
    namespaces: Annotated[tuple[str, ...], NoDecode] = setting(
        ...,
        "The namespaces to watch, at least one; `*`: all that hold no installation of their own.",
        validation_alias="KEYTURN_NAMESPACES",
    )
    grants_file: Path | None = setting(
        None,
        "A JSON file with what each namespace besides the release's own may use. Unset: nothing.",
        validation_alias="KEYTURN_GRANTS_FILE",
    )
    release_namespace: str = setting(
        "",
        "The namespace of the Lease and of the SigningKey that counts. Empty: the first of those watched.",
        validation_alias="KEYTURN_RELEASE_NAMESPACE",
    )
    signing_key: str = setting(
        "keyturn",
        "The name of the installation's SigningKey; any other is `Ready=False`.",
        validation_alias="KEYTURN_SIGNING_KEY",
    )
    user_id_key: str = setting(
        "sub",
        "The member of the userinfo answer with the user's id.",
        reference="CUSTOM_USER_ID_KEY",
        validation_alias="KEYTURN_USER_ID_KEY",
        pattern=r"^[\x21-\x7e]{1,128}$",
    )
    permissions_key: str = setting(
        "permissions",
        "The member of the userinfo answer with the user's permissions, a list.",
        reference="CUSTOM_PERMISSIONS_KEY",
        validation_alias="KEYTURN_PERMISSIONS_KEY",
        pattern=r"^[\x21-\x7e]{1,128}$",
    )
    token_lifetime: int = setting(
        900,
        "How long a token lives whose client says nothing, as the API has it.",
        reference="MIA_JWT_EXPIRES_IN",
        ge=10,
        le=86_400,
        validation_alias="KEYTURN_TOKEN_LIFETIME",
    )
    max_token_lifetime: int = setting(
        86_400,
        "The longest life of any token, as the API has it.",
        ge=10,
        le=2_592_000,
        validation_alias="KEYTURN_MAX_TOKEN_LIFETIME",
    )
    clock_skew_seconds: float = setting(
        10.0,
        "How far clocks may be off, as the API has it: for so much longer a signing key is kept than its last token lives.",
        reference="CLOCK_SKEW_SECONDS",
        ge=0,
        le=300,
        validation_alias="KEYTURN_CLOCK_SKEW_SECONDS",
    )
    issuer: str = setting(
        ...,
        "The issuer's URL, as the API has it: for the Secrets of generated credentials.",
        reference="MIA_JWT_ISSUER",
        validation_alias="KEYTURN_ISSUER",
    )
    public_url: str | None = setting(
        None,
        "The URL under which clients reach the API, as the API has it, for the same. Unset: the issuer's, with the service prefix.",
        validation_alias="KEYTURN_PUBLIC_URL",
    )
    service_prefix: str = setting(
        "",
        "The path in front of every endpoint, as the API has it, for the same.",
        reference="SERVICE_PREFIX",
        validation_alias="KEYTURN_SERVICE_PREFIX",
    )
    keys_expiring_within: float = setting(
        14 * 86_400.0,
        "How long before a registered key's end `KeysExpiring` tells of it.",
        ge=0.0,
    )
    jwks_uri_hosts: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "The hosts from which keys are fetched (`jwksUri`); `*.example.com` stands for all below it. Unset: from none.",
        validation_alias="KEYTURN_JWKS_URI_HOSTS",
    )
    jwks_uri_networks: Annotated[tuple[Network, ...], NoDecode] = setting(
        (),
        "Networks (CIDR) that such a host's addresses may be of although they are not public.",
        validation_alias="KEYTURN_JWKS_URI_NETWORKS",
    )
    jwks_uri_refresh: float = setting(
        900.0, "How often a client's keys are fetched anew.", ge=1.0, validation_alias="KEYTURN_JWKS_URI_REFRESH"
    )
    jwks_uri_ca_file: str | None = setting(
        None,
        "A PEM file with authorities to trust for such hosts, beside the system's.",
        validation_alias="KEYTURN_JWKS_URI_CA_FILE",
    )
    cluster_networks: Annotated[tuple[Network, ...], NoDecode] = setting(
        (),
        "The cluster's pod and service networks (CIDR), where they are public addresses: never fetched from.",
        validation_alias="KEYTURN_CLUSTER_NETWORKS",
    )
    bcrypt_cost: int = setting(
        12,
        "The cost of a hash of a client secret, as the API has it.",
        reference="CLIENT_SECRET_HASH_COST",
        ge=4,
        le=16,
        validation_alias="KEYTURN_BCRYPT_COST",
    )
    traces_url: str | None = setting(
        None,
        "Where traces go, by OTLP over HTTP: a collector's URL, such as `http://collector:4318/v1/traces`. Unset: there are none, "
        "and they cost nothing.",
        validation_alias="KEYTURN_TRACES_URL",
        pattern=r"^https?://[^/@]+(/.*)?$",
    )
    traces_ratio: float = setting(
        1.0,
        "Of the traces that begin here, how many are kept, from 0 to 1. A trace that the gateway has begun is followed as it decided.",
        validation_alias="KEYTURN_TRACES_RATIO",
        ge=0,
        le=1,
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        "INFO", "What is logged at least.", reference="LOG_LEVEL", validation_alias="KEYTURN_LOG_LEVEL"
    )
    log_format: Literal["json", "text"] = setting(
        "json", "Log lines as JSON, or as text for people.", validation_alias="KEYTURN_LOG_FORMAT"
    )

    probe_host: str = setting(
        "127.0.0.1", "The address of `/livez`, `/readyz` and `/metrics`; `0.0.0.0` in a container."
    )
    probe_port: int = setting(8081, "Their port.", ge=0, le=65_535)
    workers: int = setting(8, "Objects that are reconciled at the same time.", ge=1, le=64)
    sweep_interval: float = setting(180.0, "How often the store is held against the complete list of objects.", ge=5.0)
    leader_election: bool = setting(True, "Act only while holding the Lease. `false` only where there is one operator.")
    lease_name: str = setting("keyturn-operator", "The name of the Lease.")
    lease_duration: float = setting(
        15.0, "How long a Lease that is not renewed counts: until then nobody takes over.", ge=3.0
    )
    renew_deadline: float = setting(
        10.0, "How long the leader tries to renew before it gives up; less than the duration.", ge=2.0
    )
    retry_period: float = setting(2.0, "How long between two tries; less than the deadline.", gt=0.0)

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _any_case(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            return value.lower() if info.field_name == "log_format" else value.upper()
        return value

    @field_validator("namespaces", "jwks_uri_hosts", "jwks_uri_networks", "cluster_networks", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return value

    @field_validator("namespaces")
    @classmethod
    def _at_least_one(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one namespace to watch")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "OperatorSettings":
        if not self.retry_period < self.renew_deadline < self.lease_duration:
            raise ValueError(
                "retry period < renew deadline < lease duration must hold, or two processes could lead at once"
            )
        if "*" in self.namespaces and (len(self.namespaces) > 1 or not self.release_namespace):
            raise ValueError("* stands alone in KEYTURN_NAMESPACES, and KEYTURN_RELEASE_NAMESPACE is needed then")
        if self.token_lifetime > self.max_token_lifetime:
            raise ValueError("the default token lifetime must not exceed its maximum")
        return self

    @field_validator("jwks_uri_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host.lower() for host in value)

    @property
    def token_endpoint(self) -> str:
        """Where clients get tokens, as the API's metadata say."""
        return endpoints.token_endpoint(
            endpoints.base_url(self.issuer, self.public_url, self.service_prefix.rstrip("/"))
        )

    @property
    def transport(self) -> Transport:
        """How PostgreSQL is reached."""
        return Transport(password=self.store_password, tls=self.store_tls, ca_file=self.store_ca_file)

    @property
    def home(self) -> str:
        """The namespace of the release: of the Lease and of the SigningKey that counts."""
        return self.release_namespace or self.namespaces[0]
