"""Registration put together: what of it this installation has, its routes, and what goes on beside the requests."""

from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI

from keyturn.snapshot import Snapshot
from keyturn.store.interface import ReplicaRegistry
from keyturn_api.administration import Administration
from keyturn_api.client_configuration import ClientConfiguration
from keyturn_api.client_secrets import SecretVerifier
from keyturn_api.initial_access import InitialAccessTokens
from keyturn_api.kubernetes import Kubernetes
from keyturn_api.metrics import Metrics
from keyturn_api.rate_limit import RateLimiter
from keyturn_api.registrar import Registrar
from keyturn_api.registration import Registration
from keyturn_api.registration_routes import add_routes
from keyturn_api.registration_upkeep import RegistrationUpkeep
from keyturn_api.settings import ApiSettings
from keyturn_api.snapshot_changes import SnapshotChanges

# Each makes a Secret that stays for ten minutes: no client fills the cluster's database with them.
_UPDATES_PER_MINUTE: Final = 6


@dataclass(frozen=True, slots=True)
class RegistrationService:
    """With registration switched off, clients that were registered before still manage theirs."""

    registration: Registration
    configuration: ClientConfiguration
    upkeep: RegistrationUpkeep
    base_url: str
    open_to_clients: bool
    open_to_internal: bool

    def add_routes(self, app: FastAPI, prefix: str, metrics: Metrics) -> None:
        """Adds the routes that this installation has."""
        add_routes(
            app,
            prefix,
            metrics,
            base_url=self.base_url,
            registration=self.registration if self.open_to_clients else None,
            configuration=self.configuration,
            clients=self.registration if self.open_to_internal else None,
        )


def build_registration(
    settings: ApiSettings,
    *,
    kubernetes: Kubernetes,
    administration: Administration,
    snapshot: Snapshot,
    changes: SnapshotChanges,
    replicas: ReplicaRegistry,
    verifier: SecretVerifier,
    replica_id: str,
) -> RegistrationService:
    """All parts over one Kubernetes API."""
    registrar = Registrar(
        kubernetes, snapshot, changes, replicas, replica_id=replica_id, seconds=settings.registration_timeout
    )
    tokens = InitialAccessTokens(settings.registration_tokens_directory)
    registration = Registration(
        settings, snapshot, registrar, tokens, administration, RateLimiter(settings.registrations_per_minute)
    )
    updates = min(settings.registrations_per_minute, _UPDATES_PER_MINUTE)
    configuration = ClientConfiguration(settings, snapshot, registrar, RateLimiter(updates), verifier)
    return RegistrationService(
        registration,
        configuration,
        RegistrationUpkeep(snapshot, registrar, pending_ttl=settings.registration_pending_ttl),
        base_url=settings.base_url,
        open_to_clients=settings.registration != "disabled",
        open_to_internal=administration.enabled,
    )
