#!/bin/sh
# Starts Redis with the users of users.acl, an administrator, and one that may ask whether Redis is there: for containers.
# The passwords come in SERVER_PASSWORD, CALLER_PASSWORD, DEPLOYER_PASSWORD, AUDITOR_PASSWORD and ADMIN_PASSWORD; the file
# gets their hashes. The data is in DATA_DIR, or here. Arguments are further options of redis-server; with CONFIG_FILE they are the lines
# of that file at the very first start. Redis needs one where sentinels change who follows whom: it must know it after a restart.
set -eu
umask 022
here=$(dirname "$0")
users=${USERS_FILE:-/tmp/users.acl}
data=${DATA_DIR:-$PWD}

hash_of() { printf %s "$1" | sha256sum | cut -c 1-64; }

{
  sed -e "/^user stockhold-server /s/\$/ #$(hash_of "$SERVER_PASSWORD")/" \
    -e "/^user stockhold-caller /s/\$/ #$(hash_of "$CALLER_PASSWORD")/" \
    -e "/^user stockhold-deployer /s/\$/ #$(hash_of "$DEPLOYER_PASSWORD")/" \
    -e "/^user stockhold-auditor /s/\$/ #$(hash_of "$AUDITOR_PASSWORD")/" "$here/users.acl"
  echo "user admin on ~* &* +@all #$(hash_of "$ADMIN_PASSWORD")"
  echo "user health on nopass resetkeys resetchannels -@all +ping"
  # Nobody logs in as default. Its permissions stay: Redis replays the append-only file as this user, and what it may
  # not do is lost.
  echo "user default off ~* &* +@all"
} >"$users"
if [ -n "${CONFIG_FILE:-}" ]; then
  if [ ! -e "$CONFIG_FILE" ]; then
    (umask 077 && printf '%s\n' "$@" >"$CONFIG_FILE.new")
    mv "$CONFIG_FILE.new" "$CONFIG_FILE"
  fi
  set --
fi
unset SERVER_PASSWORD CALLER_PASSWORD DEPLOYER_PASSWORD AUDITOR_PASSWORD ADMIN_PASSWORD
sh "$here/trim-aof.sh" "$data"
# What a restart must not lose is appended to a file; what is not settled must not be evicted. The image's own entry
# point, where it has one, hands over to a user without privileges.
# shellcheck disable=SC2046
exec $(command -v docker-entrypoint.sh) redis-server ${CONFIG_FILE:+"$CONFIG_FILE"} --dir "$data" --aclfile "$users" --appendonly yes \
  --maxmemory-policy noeviction "$@"
