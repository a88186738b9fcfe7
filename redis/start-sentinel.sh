#!/bin/sh
# Starts a sentinel: for containers, and for the playground.
# MASTER_HOST and MASTER_PORT are where the master is at the very first start; what the sentinel learns later is in its configuration,
# in DATA_DIR, or here. MASTER_USER and MASTER_PASSWORD are for Redis, if it wants them. Arguments are further lines of the configuration.
set -eu
umask 077
configuration=${DATA_DIR:-$PWD}/sentinel.conf
if [ ! -e "$configuration" ]; then
  {
    # Two of three must miss the master for two seconds.
    echo "sentinel monitor shop $MASTER_HOST ${MASTER_PORT:-6379} 2"
    echo "sentinel down-after-milliseconds shop 2000"
    echo "sentinel failover-timeout shop 10000"
    [ -z "${MASTER_USER:-}" ] || echo "sentinel auth-user shop $MASTER_USER"
    [ -z "${MASTER_PASSWORD:-}" ] || echo "sentinel auth-pass shop $MASTER_PASSWORD"
    for line in "$@"; do echo "$line"; done
  } >"$configuration.new"
  mv "$configuration.new" "$configuration"
fi
unset MASTER_PASSWORD
# The image's own entry point, where it has one, hands over to a user without privileges.
# shellcheck disable=SC2046
exec $(command -v docker-entrypoint.sh) "${REDIS_SERVER:-redis-server}" "$configuration" --sentinel
