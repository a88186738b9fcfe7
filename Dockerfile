# Built with everything, shipped with nothing but the program.

FROM rust:1-bookworm AS build
WORKDIR /src
# The dependencies first, in a layer of their own: they change less often than the source.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src lua && touch src/lib.rs && echo 'fn main() {}' > src/main.rs \
 && cargo build --release --locked && rm -r src lua
COPY src src
COPY lua lua
COPY redis redis
# Newer than what was built of the empty sources.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin stockhold
COPY --from=build /src/target/release/stockhold /usr/local/bin/stockhold
USER stockhold
# A container's loopback is reached by nobody else. Who may reach the container is said where its port is published: in
# docker-compose.yml, this machine alone.
# Without tokens (STOCKHOLD_TOKEN_FILE) it says at its start that everybody who can connect may do everything.
ENV STOCKHOLD_HOST=0.0.0.0 STOCKHOLD_INSECURE_BIND=true
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["stockhold", "ready"]
ENTRYPOINT ["stockhold"]
CMD ["serve"]
