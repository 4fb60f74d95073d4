# syntax=docker/dockerfile:1
#
# The image: one static binary and nothing else. It is compiled on the machine's own architecture for any of both:
#
#     docker buildx build --platform linux/amd64,linux/arm64 --tag entrepot .

FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Debian's own version is the one of the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# Tools and dependencies change less often than the program, so they have layers of their own.
COPY release/ release/
RUN release/build --tools-only
COPY Cargo.toml Cargo.lock ./
ARG TARGETARCH
RUN release/build --dependencies-only "$TARGETARCH"
COPY src/ src/
ARG SOURCE_DATE_EPOCH=0
RUN release/build --binary-only "$TARGETARCH" \
    && install -D --mode=0755 "target/release-files/entrepot-$TARGETARCH" /image/entrepot \
    && install -d --mode=1777 /image/data

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="entrepot" \
    org.opencontainers.image.description="One HTTP port in front of every container registry" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
COPY --from=build /image/ /
ENV ENTREPOT_CACHE_DIR=/data
USER 65532:65532
EXPOSE 3000
VOLUME ["/data"]
HEALTHCHECK --interval=10s --timeout=35s --start-period=10s CMD ["/entrepot", "health"]
ENTRYPOINT ["/entrepot"]
