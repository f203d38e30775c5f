# Two images of one file: `operator` and `api`. Both hold Python, the project and what uv.lock names for that part, and nothing to
# install or compile with. The base is an argument: any image with Python 3.11 or newer (and its venv module) in the PATH. A tag moves: for
# images that can be built again as they were, name the base by its digest (BASE=docker.io/library/python@sha256:...).
ARG BASE=docker.io/library/python:3.13-slim-bookworm

# What is needed to install, and stays behind.
FROM ${BASE} AS tools
USER 0
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

# The base without package managers, compilers, downloaders and set-user-id programs, whichever distribution it is of.
FROM ${BASE} AS bare
USER 0
RUN set -eu; \
    rm -rf /usr/local/lib/python3*/site-packages/* /usr/lib/python3/dist-packages/pip* /usr/lib*/python3.*/site-packages/pip* \
           /usr/local/bin/pip* /usr/bin/pip* \
           /usr/local/lib/python3*/ensurepip /usr/lib/python3*/ensurepip /usr/share/python-wheels; \
    # The lists of installed packages stay (/var/lib/dpkg/status, /lib/apk/db, /var/lib/rpm): scanners for known faults read them.
    rm -rf /usr/bin/apt* /usr/bin/dpkg* /usr/sbin/dpkg* /usr/lib/apt /usr/lib/dpkg /usr/bin/perl* /usr/lib/*/perl* /usr/share/perl* \
           /etc/apt /var/lib/apt /var/lib/dpkg/info /var/cache /var/log/*; \
    rm -rf /usr/bin/dnf* /usr/bin/microdnf /usr/bin/yum* /usr/bin/rpm* /usr/lib/rpm /etc/dnf /etc/yum* /var/lib/dnf /usr/libexec/dnf*; \
    for tool in apk conda mamba micromamba zypper pacman pip uv gcc g++ cc c++ c89 c99 cpp clang as ld ld.bfd ld.gold make curl wget git; do \
        while found=$(command -v "$tool") && [ "${found#/}" != "$found" ]; do rm -f "$found"; done; \
    done; \
    rm -rf /usr/lib/gcc /usr/libexec/gcc /etc/apk /usr/share/apk; \
    # A base that hides one elsewhere is no base for these images.
    for tool in apt apt-get dpkg apk dnf microdnf yum rpm pip pip3 conda uv gcc cc clang ld make perl curl wget git; do \
        if command -v "$tool" >/dev/null; then echo "the base still has $tool at $(command -v "$tool")" >&2; exit 1; fi; \
    done; \
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
