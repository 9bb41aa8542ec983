# The worker's image; the command is the role:
#   docker run --env-file .env IMAGE bridge
#   docker run --env-file .env IMAGE execute -c 4
#   docker run --env-file .env -v /var/run/docker.sock:/var/run/docker.sock IMAGE
# Without one it is a worker of every queue whose needs are met.
# BASE_IMAGE: any image with Python 3.12 or 3.13; with 3.10 or 3.11 a C compiler too, or `make image`. No BuildKit features:
# it may not be there. `make image` fetches the packages on the host first, for builds without a network.
ARG BASE_IMAGE=python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS packages
# What .dockerignore lets in.
COPY . /source
RUN python3 -m venv /opt/offchainvm \
    && pip() { /opt/offchainvm/bin/python -m pip --disable-pip-version-check --quiet --no-cache-dir "$@"; } \
    && wheelhouse=/source/deploy/images/wheelhouse \
    && if ls $wheelhouse/offchainvm-*.whl >/dev/null 2>&1; then \
        pip install --no-index --find-links $wheelhouse 'offchainvm[dashboard,web]'; \
    else \
        pip install --require-hashes -r /source/deploy/images/requirements.lock && pip install --no-deps /source; \
    fi \
    && install -m 0755 /source/deploy/images/entrypoint /opt/offchainvm/bin/offchainvm-entrypoint

FROM ${BASE_IMAGE}
# What changes seldom is said first: without BuildKit every line takes seconds, and longer on a larger image.
ENV PATH=/opt/offchainvm/bin:$PATH \
    HOME=/var/lib/offchainvm \
    STATE_DIR=/var/lib/offchainvm/state \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8
# One image for every role: what lives, tells so in a file. Commands that end by themselves are gone before the first look.
# A look starts a Python: on a busy host that takes seconds, and a host that is busy is no reason to call all of it unhealthy.
HEALTHCHECK --interval=30s --timeout=30s --start-period=60s --retries=3 CMD ["python", "-m", "offchainvm.liveness"]
ENTRYPOINT ["offchainvm-entrypoint"]
CMD ["celery", "-A", "offchainvm", "worker"]
RUN if command -v git >/dev/null; then true; else \
        apt-get update && apt-get install -y --no-install-recommends git ca-certificates && rm -rf /var/lib/apt/lists/*; \
    fi \
    && useradd --uid 10001 --user-group --home-dir /var/lib/offchainvm --shell /usr/sbin/nologin offchainvm \
    && install -d -o offchainvm -g offchainvm -m 0700 /var/lib/offchainvm /var/lib/offchainvm/state
USER offchainvm
WORKDIR /var/lib/offchainvm
VOLUME /var/lib/offchainvm/state
COPY --from=packages /opt/offchainvm /opt/offchainvm
