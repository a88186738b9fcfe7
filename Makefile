# Each target does its own set-up on a fresh machine: Rust and a package manager are all it takes.
#   make run      build, and serve on :8080 with a private redis-server
#   make sentinel the same with a master, two replicas and three sentinels, to try fail-overs; Ctrl-C ends all of it
#   make cluster  the same with a cluster of seven Redis servers, and a stock in 64 shards
#   make test     all tests, against real redis-servers: all on the one that is installed, and what talks to a Redis on Redis 7,
#                 Redis 8 and Valkey 8; fail-overs and clusters on the installed one
#   make test-tls the tests of the server, the scripts and the clients, with a Redis that speaks TLS only
#   make test-shards the tests of the server and of `check`, with a stock in 16 shards
#   make test-cluster the tests of the server and the scripts, with each Redis as a Redis Cluster of one node
#   make check    format, lints, checksums of the scripts
#   make torture  buyers while everything goes wrong; SECONDS=60 for how long, SEED=... for which choices
#   make failover masters and replicas whose cable is cut, on Linux; ROUNDS=20 for how often
#   make sabotage plants bugs in a copy, one after another, and tells how soon a test notices; BUGS="..." for some of them
#   make bench    the benchmark, about 10 minutes; ARGS="--quick" for a first impression, ARGS="--help" for more
.PHONY: run sentinel cluster test test-tls test-shards test-cluster check torture failover sabotage bench

# install (command, apt packages, dnf packages, brew packages): installs what brings a command that is missing or fails.
define install
	@$(1) >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
	  if command -v apt-get >/dev/null; then $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq $(2); \
	  elif command -v dnf >/dev/null; then $$sudo dnf install -y -q $(3); \
	  elif command -v brew >/dev/null; then brew install -q $(4); \
	  else echo "$(1) fails, and there is no apt-get, dnf or brew to install it: please install it by hand"; exit 1; fi; }
endef

run:
	$(call install,redis-server --version,redis-server,redis,redis)
	cargo run --release -- serve

sentinel:
	$(call install,redis-server --version,redis-server,redis,redis)
	cargo build --release
	redis/playground.sh sentinel stockhold-data/sentinel target/release/stockhold serve

cluster:
	$(call install,redis-server --version,redis-server,redis,redis)
	cargo build --release
	redis/playground.sh cluster stockhold-data/cluster target/release/stockhold serve --shards 64

test:
	$(call install,redis-server --version,redis-server,redis,redis)
	$(call install,python3 -m ensurepip --version,python3 python3-venv,python3,python)
	$(call install,faketime --version,faketime,libfaketime,libfaketime)
	$(call install,npm --version,nodejs npm,nodejs npm,node)
	$(call install,curl --version,curl,curl,curl)
	$(call install,PATH="$$PATH:/usr/sbin" haproxy -v,haproxy,haproxy,haproxy)
	$(call install,prometheus --version && promtool --version,prometheus,golang-github-prometheus,prometheus)
	$(call install,chromium --version,chromium,chromium,--cask chromium)
	tests/servers.sh target/servers
	cargo test
	for server in redis-7 redis-8 valkey-8; do \
	  echo "On $$server:"; \
	  REDIS_SERVER=$(CURDIR)/target/servers/$$server/redis-server cargo test --quiet \
	    --test scripts --test model --test server --test acl --test deploy || exit 1; \
	done

test-tls:
	$(call install,redis-server --version,redis-server,redis,redis)
	$(call install,python3 -m ensurepip --version,python3 python3-venv,python3,python)
	$(call install,npm --version,nodejs npm,nodejs npm,node)
	REDIS_TLS=1 cargo test --test server --test sentinel --test scripts --test clients

test-shards:
	$(call install,redis-server --version,redis-server,redis,redis)
	SHARDS=16 cargo test --test server --test check

# A node of a cluster serves two seconds after its start, so more tests than usual wait at the same time.
test-cluster:
	$(call install,redis-server --version,redis-server,redis,redis)
	REDIS_CLUSTER=1 RUST_TEST_THREADS=4 cargo test --test server --test scripts

check:
	$(call install,luacheck --version,lua-check,luarocks && $$sudo luarocks install luacheck,luacheck)
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	luacheck --quiet lua
	cd lua && if command -v sha1sum >/dev/null; then sha1sum -c --quiet SHA1SUMS; else shasum -c SHA1SUMS; fi

SECONDS = 60
torture:
	$(call install,redis-server --version,redis-server,redis,redis)
	$(call install,faketime --version,faketime,libfaketime,libfaketime)
	TORTURE_SECONDS=$(SECONDS) SEED=$(SEED) cargo test --release --test torture -- --nocapture

ROUNDS = 20
failover:
	$(call install,redis-server --version,redis-server,redis,redis)
	$(call install,ip -V,iproute2,iproute,iproute2mac)
	ROUNDS=$(ROUNDS) cargo test --release --test failover

sabotage:
	$(call install,redis-server --version,redis-server,redis,redis)
	cargo test --test sabotage -- $(BUGS)

# Debian keeps the programs of PostgreSQL off the path.
bench:
	$(call install,redis-server --version,redis-server,redis,redis)
	$(call install,(initdb --version || ls /usr/lib/postgresql/*/bin/initdb),postgresql,postgresql-server,postgresql@17)
	cargo bench --bench shop -- $(ARGS)
