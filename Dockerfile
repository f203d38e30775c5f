# Two images of one file: `operator` and `api`. Both hold Python, the project and what uv.lock names for that part, and nothing to
# install or compile with. The base is an argument: any image with Python 3.11 or newer in the PATH.
ARG BASE=docker.io/library/python:3.13-slim-bookworm

# What is needed to install, and stays behind.
FROM ${BASE} AS tools
ARG UV_VERSION=0.13.9
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_SYSTEM_CERTS=1 UV_NO_CACHE=1
RUN python3 -m venv /uv && /uv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /source
COPY pyproject.toml uv.lock ./

# Dependencies before sources, so that a change of a source builds one layer.
FROM tools AS operator-environment
RUN UV_PROJECT_ENVIRONMENT=/opt/keyturn /uv/bin/uv sync --locked --no-default-groups --extra operator --extra tracing --no-install-project
COPY README.md LICENSE ./
COPY core core
COPY operator operator
COPY api api
COPY cli cli
RUN UV_PROJECT_ENVIRONMENT=/opt/keyturn /uv/bin/uv sync --locked --no-default-groups --extra operator --extra tracing --no-editable \
 && rm -rf /opt/keyturn/lib/python3*/site-packages/keyturn_api /opt/keyturn/lib/python3*/site-packages/keyturn_cli \
 && find /opt/keyturn/bin -mindepth 1 ! -name 'python*' ! -name keyturn-operator -delete \
 && /opt/keyturn/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/keyturn/lib

FROM tools AS api-environment
RUN UV_PROJECT_ENVIRONMENT=/opt/keyturn /uv/bin/uv sync --locked --no-default-groups --extra api --extra tracing --no-install-project
COPY README.md LICENSE ./
COPY core core
COPY operator operator
COPY api api
COPY cli cli
RUN UV_PROJECT_ENVIRONMENT=/opt/keyturn /uv/bin/uv sync --locked --no-default-groups --extra api --extra tracing --no-editable \
 && rm -rf /opt/keyturn/lib/python3*/site-packages/keyturn_operator /opt/keyturn/lib/python3*/site-packages/keyturn_cli \
 && find /opt/keyturn/bin -mindepth 1 ! -name 'python*' ! -name keyturn-api -delete \
 && /opt/keyturn/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/keyturn/lib

# The base without package managers, compilers and set-user-id programs.
FROM ${BASE} AS bare
RUN set -eu; \
    rm -rf /usr/local/lib/python3*/site-packages/* /usr/lib/python3/dist-packages/pip* /usr/local/bin/pip* /usr/bin/pip* \
           /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip /usr/share/python-wheels; \
    # The list of Debian's packages stays: scanners for known faults read it.
    rm -rf /usr/bin/apt* /usr/bin/dpkg* /usr/sbin/dpkg* /usr/lib/apt /usr/lib/dpkg /usr/bin/perl* /usr/lib/*/perl* /usr/share/perl* \
           /etc/apt /var/lib/apt /var/lib/dpkg/info /var/cache /var/log/*; \
    find / -xdev -perm /6000 -type f -exec chmod a-s {} +; \
    rm -rf /usr/share/doc /usr/share/man /usr/share/locale /tmp/* "$HOME/.cache"

FROM scratch AS runtime
COPY --from=bare / /
ENV PATH=/opt/keyturn/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp

FROM runtime AS operator
LABEL org.opencontainers.image.title=keyturn-operator org.opencontainers.image.licenses=Apache-2.0
COPY --from=operator-environment /opt/keyturn /opt/keyturn
EXPOSE 8081
ENTRYPOINT ["keyturn-operator"]

FROM runtime AS api
LABEL org.opencontainers.image.title=keyturn-api org.opencontainers.image.licenses=Apache-2.0
COPY --from=api-environment /opt/keyturn /opt/keyturn
EXPOSE 8080 9090
ENTRYPOINT ["keyturn-api"]
