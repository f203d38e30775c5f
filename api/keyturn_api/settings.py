"""What the installation sets for the API, from `KEYTURN_…` environment variables."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from keyturn import endpoints
from keyturn.settings_table import setting
from keyturn.store.transport import TlsMode, Transport
from keyturn_api.user_settings import Network, UserSettings

PREFIX = "KEYTURN_"


class ApiSettings(UserSettings):
    """The API's settings. Times are in seconds, lists separated by commas."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    issuer: str = setting(
        ...,
        "The issuer's URL: the `iss` of every token and the base of the metadata. https, or http for tests; no query, no fragment.",
        reference="MIA_JWT_ISSUER",
    )
    public_url: str | None = setting(
        None,
        "The URL under which callers reach the endpoints, for the metadata. Unset: the issuer's, with the service prefix at its end.",
    )
    store_url: SecretStr = setting(
        ...,
        "The store: `postgresql://user:password@host:port/database`, or `sqlite:///path` on one machine.",
        reference="CRUD_CLIENT_BASE_URL, REDIS_*",
    )
    store_listen_url: SecretStr | None = setting(
        None, "Where to listen for changes if the store's URL leads through PgBouncer: PostgreSQL's own."
    )
    store_prepared: bool = setting(True, "Prepared statements on PostgreSQL; `false` behind PgBouncer.")
    store_password: SecretStr | None = setting(
        None, "PostgreSQL's password, where it does not stand in the URL: a Secret's member can be given as it is."
    )
    store_tls: TlsMode | None = setting(
        None,
        "TLS to PostgreSQL: `verify-full` checks certificate and name, `require` only encrypts. Unset: what the URL's `sslmode` says.",
    )
    store_ca_file: Path | None = setting(
        None, "The certificate authority for `verify-full`, PEM. Unset: what the machine trusts."
    )
    store_pool_size: int = setting(
        5, "Connections to the store of each process, besides three of their own use.", ge=1, le=100
    )
    store_statement_timeout: float = setting(5.0, "How long a statement may take.", ge=0.1, le=60)
    signing_key_directory: Path = setting(
        Path("/var/run/keyturn/signing-key"),
        "The directory with the signing keys: the SigningKey's Secret, mounted.",
        reference="PRIVATE_RSA_KEY_FILE_PATH, PRIVATE_RSA_KEY_ID, PRIVATE_KEY_PASSWORD",
    )
    signing_key: str = setting("keyturn", "The name of the installation's SigningKey.")
    http_host: str = setting("127.0.0.1", "The address to serve on; `0.0.0.0` in a container.")
    http_port: int = setting(8080, "The port to serve on.", reference="HTTP_PORT", ge=0, le=65535)
    tls_cert_file: Path | None = setting(
        None,
        "The certificate (PEM, with what stands between it and the authority) to serve TLS 1.2 and newer with, read anew when it changes. "
        "Unset: plain HTTP, for a proxy that ends TLS. The gRPC port has it too, the port of the metrics does not.",
    )
    tls_key_file: Path | None = setting(None, "The private key of that certificate (PEM, not encrypted).")
    metrics_host: str = setting("127.0.0.1", "The address of the metrics; `0.0.0.0` in a container.")
    metrics_port: int = setting(
        9090, "The port of `/metrics`, one for all worker processes; 0 chooses one.", ge=0, le=65535
    )
    metrics_clients: int = setting(
        0,
        "How many clients the metric of issued tokens tells apart, in each worker: the first that get one. The rest counts as `other`. "
        "0: no client is named.",
        ge=0,
        le=10_000,
    )
    service_prefix: str = setting(
        "", "A path in front of every endpoint, such as `/oauth2`.", reference="SERVICE_PREFIX"
    )
    workers: int = setting(
        1,
        "Worker processes. Caches, the pool for hashing and the count of failed secrets are each worker's own.",
        ge=1,
        le=64,
    )
    shutdown_delay: float = setting(
        10.0,
        "How long a process that is to end still serves, not ready, so that load balancers take notice.",
        reference="DELAY_SHUTDOWN_SECONDS",
        ge=0,
        le=600,
    )
    shutdown_timeout: int = setting(20, "How long requests in flight may take after that.", ge=1, le=600)
    gateway_profile: Literal["original-request", "envoy", "envoy-grpc", "nginx", "traefik", "caddy", "haproxy"] = (
        setting(
            "original-request",
            "How the gateway asks at `/auth`: `envoy` (HTTP: the path behind `/auth`, method and host of the request itself), `envoy-grpc` "
            "(Envoy's gRPC service, on `KEYTURN_GRPC_PORT`), `nginx` (auth_request: X-Original-URL, X-Original-Method), `traefik` and "
            "`caddy` (X-Forwarded-Method, X-Forwarded-Uri, X-Forwarded-Host), `haproxy` (X-Original-Method, X-Original-Uri, "
            "X-Original-Host), `original-request` (Original-Request-Uri, Original-Request-Method). Only this profile's headers are read.",
        )
    )
    grpc_port: int = setting(
        9191,
        "The port of Envoy's gRPC authorization, served under profile `envoy-grpc` only. All workers listen on it (SO_REUSEPORT): "
        "one connection stays with one worker.",
        ge=1,
        le=65535,
    )
    context_headers: bool = setting(
        False,
        "Read `isbackoffice` and `Client-Type` under other profiles than `original-request` too: the gateway must set or remove them.",
    )
    header_prefix: str = setting("mia-", "The prefix of the answer's headers at `/auth`.", pattern=r"^[a-z0-9-]{1,64}$")
    strict_mode: bool = setting(
        True,
        "Tell the decision by the status: 200, 401, 403. `false`, the reference's other way: always 200, and the header "
        "`<prefix>allowed` is 1 or 0; the gateway, or what is behind it, must look at it. 503 stays 503.",
    )
    unknown_route: Literal["deny", "reference"] = setting(
        "deny",
        "Where no route matches: `deny` answers 403, `reference` 200 with `<prefix>allowed: 0`, "
        "which a gateway that reads only the status lets through.",
    )
    denials_kept: int = setting(
        1000, "Denials that each worker remembers, for those who ask for one by its id.", ge=0, le=100_000
    )
    denials_stored: bool = setting(
        True,
        "Write denials into the store too, at most ten a second and worker, for an hour: then every replica finds those of the others. "
        "No token is among it.",
    )
    client_as_user: bool | None = setting(
        None,
        "Whether a client's id stands in `<prefix>userid` too, besides `<prefix>clientid`. "
        "Unset: as long as no source of users is configured.",
    )
    accepted_audiences: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Audiences that `/auth`, `/tokeninfo` and introspection accept; a token needs one of them. Empty: any.",
        reference="ACCEPTED_AUDIENCES",
    )
    require_audience: bool = setting(
        False, "A token request must name an audience.", reference="REQUIRED_AUDIENCE_IN_TOKEN_REQUEST"
    )
    token_lifetime: int = setting(
        900, "How long a token lives whose client says nothing.", reference="MIA_JWT_EXPIRES_IN", ge=10, le=86_400
    )
    max_token_lifetime: int = setting(86_400, "The longest life of any token.", ge=10, le=2_592_000)
    token_typ: Literal["at+jwt", "JWT"] = setting(
        "at+jwt", "The `typ` of access tokens: `at+jwt` (RFC 9068), or `JWT` as the reference writes it."
    )
    clock_skew_seconds: float = setting(
        10.0,
        "How far a client's clock may be off: on `exp`, `iat` and `nbf` of assertions.",
        reference="CLOCK_SKEW_SECONDS",
        ge=0,
        le=300,
    )
    token_endpoint_as_audience: bool = setting(
        False, "Accept the token endpoint's URL as an assertion's audience, besides the issuer."
    )
    bcrypt_cost: int = setting(
        12,
        "The cost of a hash of a client secret, spent for unknown clients too.",
        reference="CLIENT_SECRET_HASH_COST",
        ge=4,
        le=16,
    )
    secret_failures_per_minute: int = setting(
        10,
        "Wrong secrets that an address may try in a minute before it gets 429; 0 switches the limit off.",
        ge=0,
        le=10_000,
    )
    revocations_per_client: int = setting(
        10_000,
        "Tokens that a client may have revoked at `/oauth/revoke` and that have not ended yet, beyond that 429: every replica holds each "
        "in memory. Each worker counts for itself, and callers with a Kubernetes token are not counted; 0 switches the limit off.",
        ge=0,
        le=1_000_000,
    )
    rate_limit_exempt: Annotated[tuple[Network, ...], NoDecode] = setting(
        (), "Networks whose addresses no such limit concerns, such as `127.0.0.0/8`."
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = setting(
        (),
        "Networks of the proxies in front of this service. What they say of a caller's address counts for limits and records. Empty: the "
        "peer of the connection is the caller.",
    )
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = setting(
        "x-forwarded-for",
        "The header in which those proxies say it; only this one is read, from its end.",
    )
    hash_queue: int = setting(16, "Secrets that may wait for their hash; beyond that the answer is 503.", ge=1, le=1000)
    token_cache: int = setting(10_000, "Verified access tokens remembered by each worker.", ge=0, le=1_000_000)
    secret_cache: int = setting(
        10_000, "Verified client secrets remembered by each worker, as keyed hashes.", ge=0, le=1_000_000
    )
    max_body_bytes: int = setting(65_536, "The longest request body; beyond that 413.", ge=1024, le=16_777_216)
    max_staleness: float | None = setting(
        None,
        "With no news from the store for this long a replica is not ready and `/auth` answers 503. Unset: it goes on.",
        gt=0,
    )
    openid_config_path: Path | None = setting(
        None, "A JSON file whose members are added to both metadata documents.", reference="OPENID_CONFIG_PATH"
    )
    kubernetes_url: str | None = setting(
        None, "The URL of the Kubernetes API, for registration and administration. Unset: in a pod, the cluster's own."
    )
    kubernetes_token_file: Path | None = setting(
        None,
        "The file with this service's Kubernetes token, read anew when it changes. Unset: the pod's ServiceAccount.",
    )
    kubernetes_ca_file: Path | None = setting(
        None, "The certificate that the Kubernetes API is verified with. Unset: the pod's ServiceAccount's."
    )
    namespace: str | None = setting(None, "The namespace in which registered clients are made. Unset: the pod's own.")
    administration: bool = setting(
        True,
        "Callers with a Kubernetes token for the audience `<issuer>/admin` may do what RBAC allows them. Needs the right to create "
        "TokenReviews and SubjectAccessReviews; without that, `false`: `/clients` is not there.",
    )
    administration_server_tokens: bool = setting(
        False,
        "For the time of a migration: accept there tokens for the Kubernetes API server too. Whoever gets one sent could use it there.",
    )
    registration: Literal["disabled", "token", "open"] = setting(
        "token",
        "Who may register clients at `/register`: nobody, whoever has an initial access token, or anybody. Needs the Kubernetes API.",
    )
    registration_tokens_directory: Path = setting(
        Path("/var/run/keyturn/registration-tokens"),
        "The directory with the initial access tokens, a mounted Secret: a file each, read again when it changes.",
    )
    registrations_per_minute: int = setting(
        30,
        "Registrations that an address (of IPv6: a network of 64 bits) may ask for in a minute, beyond that 429. A client may update its "
        "own as often, and 6 times at most. Each worker counts for itself; 0 switches both limits off.",
        ge=0,
        le=100_000,
    )
    registration_max_pending: int = setting(
        100,
        "Registered clients that may wait for approval at a time; beyond that 429. Replicas that register at the same moment may exceed it "
        "by as many as they have under way. In mode `open` an address may hold a tenth of them. 0 switches the limit off.",
        ge=0,
        le=1_000_000,
    )
    registration_pending_ttl: float = setting(
        2_592_000.0,
        "How long a registered client waits for approval before it is deleted; 0: for ever.",
        ge=0,
    )
    registration_timeout: float = setting(
        5.0,
        "How long `/register` and `/clients` wait for the new client to be in force before they take it back and answer 503.",
        gt=0,
        le=60,
    )
    workload_identity: bool = setting(
        True,
        "Where there is a Kubernetes API: pods whose ServiceAccount a client names get its tokens with their own projected token.",
    )
    cluster_issuer: str | None = setting(
        None, "The issuer of the cluster's ServiceAccount tokens. Unset: as the API server tells."
    )
    workload_token_review: bool = setting(
        True,
        "Have the API server confirm each pod's token, where this service may create TokenReviews. `false`, or without that right: the "
        "token of a deleted pod counts until it expires.",
    )
    traces_url: str | None = setting(
        None,
        "Where traces go, by OTLP over HTTP: a collector's URL, such as `http://collector:4318/v1/traces`. Unset: there are none, "
        "and they cost nothing.",
        pattern=r"^https?://[^/@]+(/.*)?$",
    )
    traces_ratio: float = setting(
        1.0,
        "Of the traces that begin here, how many are kept, from 0 to 1. A trace that the gateway has begun is followed as it decided.",
        ge=0,
        le=1,
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        "INFO", "What is logged at least.", reference="LOG_LEVEL"
    )
    log_format: Literal["json", "text"] = setting("json", "Log lines as JSON, or as text for people.")

    @field_validator("accepted_audiences", "rate_limit_exempt", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("issuer", "public_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        # RFC 8414 section 2: https, no query or fragment. http serves tests and networks that are encrypted below.
        parts = urlsplit(value)
        if (
            parts.scheme not in ("https", "http")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or "?" in value
            or "#" in value
        ):
            raise ValueError("must be an https or http URL without query and fragment")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no user and password")
        return value

    @field_validator("kubernetes_url")
    @classmethod
    def _kubernetes(cls, value: str | None) -> str | None:
        # http serves tests and proxies such as `kubectl proxy`.
        if value is not None and (not value.startswith(("https://", "http://")) or not urlsplit(value).hostname):
            raise ValueError("must be an https or http URL")
        return value

    @field_validator("service_prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and not value.startswith("/"):
            raise ValueError("must begin with a slash")
        return value

    @model_validator(mode="after")
    def _lifetimes(self) -> "ApiSettings":
        if self.token_lifetime > self.max_token_lifetime:
            raise ValueError("the default token lifetime must not exceed its maximum")
        return self

    @model_validator(mode="after")
    def _tls(self) -> "ApiSettings":
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS needs both KEYTURN_TLS_CERT_FILE and KEYTURN_TLS_KEY_FILE")
        return self

    @property
    def transport(self) -> Transport:
        """How PostgreSQL is reached."""
        password = None if self.store_password is None else self.store_password.get_secret_value()
        return Transport(password=password, tls=self.store_tls, ca_file=self.store_ca_file)

    @property
    def base_url(self) -> str:
        """Where callers find the endpoints."""
        return endpoints.base_url(self.issuer, self.public_url, self.service_prefix)

    @property
    def token_endpoint(self) -> str:
        return endpoints.token_endpoint(self.base_url)
