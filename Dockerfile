# The worker's image; the command is the role:
#   docker run --env-file .env IMAGE bridge
#   docker run --env-file .env IMAGE execute -c 4
#   docker run --env-file .env -v /var/run/docker.sock:/var/run/docker.sock IMAGE
# Without one it is a worker of every queue whose needs are met.
# BASE_IMAGE: any image with Python 3.10 to 3.13. No BuildKit features: it may not be there.
# `make image` fetches the packages on the host first, for builds without a network.
ARG BASE_IMAGE=python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS packages
COPY deploy/images/wheelhouse /wheelhouse
COPY requirements.lock pyproject.toml README.md LICENSE celeryconfig.py /source/
COPY offchainvm /source/offchainvm
RUN python3 -m venv /opt/offchainvm \
    && if ls /wheelhouse/offchainvm-*.whl >/dev/null 2>&1; then true; else \
        rm -f /wheelhouse/*.whl \
        && /opt/offchainvm/bin/pip download --quiet --require-hashes -r /source/requirements.lock -d /wheelhouse \
        && for source in /wheelhouse/*.tar.gz; do \
            if [ -e "$source" ]; then /opt/offchainvm/bin/pip wheel --quiet --no-deps "$source" -w /wheelhouse || exit 1; fi; done \
        && /opt/offchainvm/bin/pip wheel --quiet --no-deps /source -w /wheelhouse; \
    fi \
    && /opt/offchainvm/bin/pip install --quiet --no-index --find-links /wheelhouse 'offchainvm[dashboard,web]'

FROM ${BASE_IMAGE}
RUN if command -v git >/dev/null; then true; else \
        apt-get update && apt-get install -y --no-install-recommends git ca-certificates && rm -rf /var/lib/apt/lists/*; \
    fi \
    && useradd --uid 10001 --user-group --home-dir /var/lib/offchainvm --shell /usr/sbin/nologin offchainvm \
    && install -d -o offchainvm -g offchainvm -m 0700 /var/lib/offchainvm /var/lib/offchainvm/state
COPY --from=packages /opt/offchainvm /opt/offchainvm
COPY deploy/images/entrypoint /usr/local/bin/offchainvm-entrypoint
ENV PATH=/opt/offchainvm/bin:$PATH \
    HOME=/var/lib/offchainvm \
    STATE_DIR=/var/lib/offchainvm/state \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8
USER offchainvm
WORKDIR /var/lib/offchainvm
VOLUME /var/lib/offchainvm/state
# One image for every role: what lives, tells so in a file. Commands that end by themselves are gone before the first look.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-m", "offchainvm.health"]
ENTRYPOINT ["offchainvm-entrypoint"]
CMD ["celery", "-A", "offchainvm", "worker"]
