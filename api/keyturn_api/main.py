"""`keyturn-api`: reads the settings, opens the port, and serves in this process or in several."""

import contextlib
import socket
import sys

from pydantic import ValidationError

from keyturn_api import logs
from keyturn_api.settings import PREFIX, ApiSettings

FAILED = 1
USAGE = 2


def main() -> None:
    """Ends with 0 after a signal, 1 when it cannot go on, 2 when the settings are wrong."""
    try:
        settings = ApiSettings()
    except ValidationError as error:
        sys.stderr.write("keyturn-api: the settings are wrong\n")
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            sys.stderr.write(f"  {PREFIX if name else ''}{name}: {problem['msg']}\n")
        sys.exit(USAGE)
    logs.configure(level=settings.log_level, form=settings.log_format)
    try:
        listener = open_listener(settings.http_host, settings.http_port)
        status = serve(settings, listener)
    except (OSError, ValueError) as error:
        # A port in use, a store's URL of no known kind, a metadata file that cannot be read.
        logs.get_logger("process").error("cannot_start", cause=str(error))
        status = FAILED
    sys.exit(status)


def serve(settings: ApiSettings, listener: socket.socket) -> int:
    """Serves until the process is told to end; returns its exit status."""
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        from keyturn_api.tls import ServerCertificate

        # What is wrong with the files is said before anything is started.
        ServerCertificate(settings.tls_cert_file, settings.tls_key_file)
    # Imported where they are needed: the supervisor of several workers stays small.
    if settings.workers > 1:
        from keyturn_api import supervisor

        with contextlib.ExitStack() as held:
            if settings.gateway_profile == "envoy-grpc":
                held.enter_context(reserve_port(settings.http_host, settings.grpc_port))
            return supervisor.run(settings, listener)
    import prometheus_client

    from keyturn_api import worker

    prometheus_client.start_http_server(settings.metrics_port, settings.metrics_host)
    return worker.run(settings, listener, shared=None, parent=None)


def reserve_port(host: str, port: int) -> socket.socket:
    """A socket that keeps a port for worker processes which each listen on it themselves. Raises OSError where it is taken."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    reserved = socket.socket(family, kind, protocol)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # It is bound, for this user's processes only, and never listens: no connection comes to it.
    reserved.bind(address)
    return reserved


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket that worker processes may inherit. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(2048)
    listener.setblocking(False)
    return listener


if __name__ == "__main__":
    main()
