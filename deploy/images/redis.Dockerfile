# The redis service of docker-compose.yml where no registry can be reached: Debian's Valkey, laid out as in the official image.
ARG BASE_IMAGE=offchainvm-base
FROM ${BASE_IMAGE}
RUN install -d -o valkey -g valkey -m 0700 /data
USER valkey
WORKDIR /data
VOLUME /data
EXPOSE 6379
CMD ["valkey-server"]
