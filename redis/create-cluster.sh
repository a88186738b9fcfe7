#!/bin/sh
# Makes Redis servers a cluster, unless they are one: for containers, and for the playground.
#   create-cluster.sh HOST:PORT...   the first three become primaries, the others replicas of these in turn; a HOST is an address
# One call goes as far as it can now, and fails until the cluster is ready: repeat it until it succeeds. A cluster that is
# complete is only looked at. CLUSTER_USER and REDISCLI_AUTH are for Redis, if it wants them.
set -eu

# ask HOST:PORT COMMAND...
ask() {
  place=$1
  shift
  redis-cli -h "${place%:*}" -p "${place##*:}" ${CLUSTER_USER:+--user "$CLUSTER_USER"} "$@" | tr -d '\r'
}

# Slots are assigned last: where all of them are, the rest has been done.
if ! ask "$1" CLUSTER INFO | grep -q '^cluster_slots_assigned:16384$'; then
  for node in "$@"; do
    if [ "$(ask "$node" CLUSTER NODES | grep -vc handshake)" -lt $# ]; then
      for other in "$@"; do ask "$1" CLUSTER MEET "${other%:*}" "${other##*:}" >/dev/null; done
      exit 1
    fi
  done
  first=$1 second=$2 third=$3
  number=0
  for node in "$@"; do
    number=$((number + 1))
    [ $number -gt 3 ] || continue
    ask "$node" CLUSTER REPLICATE "$(ask "$first" CLUSTER MYID)" | grep -q '^OK$'
    next=$first first=$second second=$third third=$next
  done
  # Some may be assigned already, by a call that was interrupted.
  ask "$1" CLUSTER ADDSLOTSRANGE 0 5460 >/dev/null
  ask "$2" CLUSTER ADDSLOTSRANGE 5461 10922 >/dev/null
  ask "$3" CLUSTER ADDSLOTSRANGE 10923 16383 >/dev/null
fi

# A primary whose replicas are not there yet may refuse changes.
for node in "$@"; do
  ask "$node" CLUSTER INFO | grep -q '^cluster_state:ok$'
  ask "$node" CLUSTER INFO | grep -q '^cluster_slots_assigned:16384$'
  ask "$node" INFO replication | grep -Eq '^(role:master|master_link_status:up)$'
done
