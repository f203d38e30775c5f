"""What the installation sets for the operator, from environment variables."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from keyturn.records import Kind
from keyturn.secrets import DEFAULT_COST

GROUP = "keyturn.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
PLURALS: dict[Kind, str] = {
    Kind.CLIENT: "clientcredentials",
    Kind.SIGNING_KEY: "signingkeys",
    Kind.ACCESS_RULE: "accessrules",
}
PAUSED_ANNOTATION = f"{GROUP}/paused"


class OperatorSettings(BaseSettings):
    """The operator's settings: `KEYTURN_OPERATOR_…` are its own, plain `KEYTURN_…` it shares with the API. Times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="KEYTURN_OPERATOR_", populate_by_name=True, extra="ignore", frozen=True
    )

    store_url: str = Field(validation_alias="KEYTURN_STORE_URL", repr=False)
    issuer: str = Field(validation_alias="KEYTURN_ISSUER")
    namespaces: Annotated[tuple[str, ...], NoDecode] = Field(validation_alias="KEYTURN_NAMESPACES")
    release_namespace: str = Field(default="", validation_alias="KEYTURN_RELEASE_NAMESPACE")
    signing_key: str = Field(default="keyturn", validation_alias="KEYTURN_SIGNING_KEY")
    token_lifetime: int = Field(default=900, ge=60, validation_alias="KEYTURN_TOKEN_LIFETIME")
    max_token_lifetime: int = Field(default=86_400, ge=60, validation_alias="KEYTURN_MAX_TOKEN_LIFETIME")
    bcrypt_cost: int = Field(default=DEFAULT_COST, ge=8, le=16, validation_alias="KEYTURN_BCRYPT_COST")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", validation_alias="KEYTURN_LOG_LEVEL"
    )
    log_format: Literal["json", "text"] = Field(default="json", validation_alias="KEYTURN_LOG_FORMAT")

    probe_host: str = "127.0.0.1"
    probe_port: int = Field(default=8081, ge=0, le=65_535)
    workers: int = Field(default=8, ge=1, le=64)
    sweep_interval: float = Field(default=180.0, ge=5.0)
    leader_election: bool = True
    lease_name: str = "keyturn-operator"
    lease_duration: float = Field(default=15.0, ge=3.0)
    renew_deadline: float = Field(default=10.0, ge=2.0)
    retry_period: float = Field(default=2.0, gt=0.0)

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _any_case(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            return value.lower() if info.field_name == "log_format" else value.upper()
        return value

    @field_validator("namespaces", mode="before")
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
        if self.token_lifetime > self.max_token_lifetime:
            raise ValueError("the default token lifetime must not exceed its maximum")
        return self

    @property
    def home(self) -> str:
        """The namespace of the release: of the Lease and of the SigningKey that counts."""
        return self.release_namespace or self.namespaces[0]
