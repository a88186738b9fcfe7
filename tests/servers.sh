#!/bin/sh
# Provides the servers on which all tests must pass: FOLDER/redis-7, FOLDER/redis-8 and FOLDER/valkey-8, each with a redis-server
# and a redis-check-aof; and FOLDER/redis-6, which is too old, and must be refused.
#   servers.sh FOLDER
#
# An installed server is used if its version fits, or if REDIS_6, REDIS_7, REDIS_8 or VALKEY_8 names it. On Debian the
# others are unpacked from Debian's own packages, with the libraries that they were built for: this needs no root and no
# container, and changes nothing outside FOLDER.
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)

# works COMMAND VERSION: whether it is that server.
works() { "$1" --version 2>/dev/null | grep -q "^$2"; }

# wrap NAME SERVER CHECK: makes FOLDER/NAME run these two, each a command with its first arguments.
wrap() {
  mkdir -p "$folder/$1"
  printf '#!/bin/sh\nexec %s "$@"\n' "$2" >"$folder/$1/redis-server"
  printf '#!/bin/sh\nexec %s "$@"\n' "$3" >"$folder/$1/redis-check-aof"
  chmod +x "$folder/$1/redis-server" "$folder/$1/redis-check-aof"
}

# unpack SUITE PACKAGES...: unpacks Debian packages, with their dependencies, into FOLDER/SUITE.
unpack() {
  suite=$1
  shift
  apt=$folder/$suite.apt
  mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } |
    sed -nE 's#^(URIs:|deb( +\[[^]]*\])?) +([^ ]+/debian)/?( .*)?$#\3#p' | head -n 1)
  [ -n "$mirror" ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
  : >"$apt/state/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
  set -- -qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State="$apt/state" \
    -o Dir::State::status="$apt/state/status" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User= -o Debug::NoLocking=1 \
    -o APT::Install-Recommends=false -o APT::Update::Post-Invoke= -o DPkg::Post-Invoke= -- "$@"
  options=""
  while [ "$1" != -- ]; do options="$options '$1'"; shift; done
  shift
  eval "apt-get $options update" && eval "apt-get $options --download-only --yes install" "$@" || return 1
  for package in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$package" "$folder/$suite"; done
  rm -r "$apt"
}

# run SUITE PROGRAM: how to run a program of FOLDER/SUITE with the libraries there.
run() {
  loader=$(find "$folder/$1" -name 'ld-linux*.so*' | head -n 1)
  libraries=$(find "$folder/$1" -type d -name '*-linux-gnu*' -path '*/lib/*' ! -path '*/share/*' | paste -s -d : -)
  echo "$loader --library-path $libraries $folder/$1/usr/bin/$2"
}

# bring NAME VERSION GIVEN INSTALLED CHECK SUITE PACKAGES...
bring() {
  name=$1 version=$2 given=$3 installed=$4 check=$5 suite=$6
  shift 6
  if works "$folder/$name/redis-server" "$version"; then
    :
  elif [ -n "$given" ]; then
    wrap "$name" "$given" "$(dirname "$given")/$(basename "$given" | sed 's/server/check-aof/')"
  elif works "$installed" "$version"; then
    wrap "$name" "$(command -v "$installed")" "$(command -v "$check")"
  elif [ -d "$folder/$suite/usr/bin" ] || unpack "$suite" "$@"; then
    wrap "$name" "$(run "$suite" "$installed")" "$(run "$suite" "$check")"
  fi
  if ! works "$folder/$name/redis-server" "$version"; then
    variable=$(echo "$name" | tr a-z- A-Z_)
    echo "there is no $version, and no Debian to take it from: install it, and name it with $variable=/path/to/its/server" >&2
    exit 1
  fi
  echo "$name: $("$folder/$name/redis-server" --version)"
}

bring redis-6 'Redis server v=6' "${REDIS_6:-}" redis-server redis-check-aof bullseye redis-server redis-tools
bring redis-7 'Redis server v=7' "${REDIS_7:-}" redis-server redis-check-aof bookworm redis-server redis-tools
bring redis-8 'Redis server v=8' "${REDIS_8:-}" redis-server redis-check-aof trixie \
  redis-server redis-tools valkey-server valkey-tools
bring valkey-8 'Valkey server v=8' "${VALKEY_8:-}" valkey-server valkey-check-aof trixie \
  redis-server redis-tools valkey-server valkey-tools
