# Builds all images. Each image has its own target:
#
#   docker build --target api-server -t orders-api-server:0.1.0 .
#
# Targets: api-server, operator, billing, notify, archive, audit (checks that orders, ledger and messages agree), smoke
# (the client that `helm test` runs), inbox (a mail server for trials).

ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm
# This image has the same Debian release as RUST_IMAGE: the binaries need its glibc, or a newer one.
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot
# The source of the binaries: the stage `build` below, or an image that has them in /usr/local/bin already.
# (buildah 1.28 does not recognize that the default names a stage: pass it --build-arg BINARIES=build.)
ARG BINARIES=build

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --workspace \
        --bin orders-api-server --bin orders-operator --bin orders-billing --bin orders-notify \
        --bin orders-archive --bin orders-audit --bin orders-smoke --bin orders-inbox --bin orders-dead-letters \
    && cp target/release/orders-api-server target/release/orders-operator target/release/orders-billing \
        target/release/orders-notify target/release/orders-archive target/release/orders-audit target/release/orders-smoke \
        target/release/orders-inbox target/release/orders-dead-letters /usr/local/bin/

FROM ${BINARIES} AS binaries
# buildah 1.28 leaves a container behind for a stage without instructions.
WORKDIR /usr/local/bin

FROM ${RUNTIME_IMAGE} AS runtime
WORKDIR /
USER 65532:65532

FROM runtime AS api-server
COPY --from=binaries /usr/local/bin/orders-api-server /usr/local/bin/
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/orders-api-server"]

FROM runtime AS operator
# orders-dead-letters is a tool for the operator's broker.
COPY --from=binaries /usr/local/bin/orders-operator /usr/local/bin/orders-dead-letters /usr/local/bin/
EXPOSE 9090
ENTRYPOINT ["/usr/local/bin/orders-operator"]

FROM runtime AS billing
COPY --from=binaries /usr/local/bin/orders-billing /usr/local/bin/
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/orders-billing"]

FROM runtime AS notify
COPY --from=binaries /usr/local/bin/orders-notify /usr/local/bin/
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/orders-notify"]

FROM runtime AS archive
COPY --from=binaries /usr/local/bin/orders-archive /usr/local/bin/
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/orders-archive"]

FROM runtime AS audit
COPY --from=binaries /usr/local/bin/orders-audit /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/orders-audit"]

FROM runtime AS smoke
COPY --from=binaries /usr/local/bin/orders-smoke /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/orders-smoke"]

FROM runtime AS inbox
COPY --from=binaries /usr/local/bin/orders-inbox /usr/local/bin/
EXPOSE 1025 1080
ENTRYPOINT ["/usr/local/bin/orders-inbox"]
