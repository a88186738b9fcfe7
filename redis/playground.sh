#!/bin/sh
# A playground for fail-overs: Redis servers on this machine, and a command that works with them. All of them end with the command.
#   playground.sh sentinel FOLDER COMMAND ARGUMENTS...   a master, two replicas and three sentinels
#   playground.sh cluster FOLDER COMMAND ARGUMENTS...    a cluster of three primaries, a replica of each, and one more to spare
# The command gets the URL in REDIS_URL. The data is in FOLDER, and a later run goes on with it. REDIS_PORTS are three ports, or seven
# for a cluster, which also uses each of them plus 10000. SENTINEL_PORTS are three. They are the same in each run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kind=$1
case $kind in
sentinel) ports=${REDIS_PORTS:-7001 7002 7003} ;;
cluster) ports=${REDIS_PORTS:-7011 7012 7013 7014 7015 7016 7017} ;;
*) echo "$kind is neither sentinel nor cluster" >&2; exit 2 ;;
esac
mkdir -p "$2"
folder=$(cd "$2" && pwd)
shift 2
server=${REDIS_SERVER:-redis-server}
first=${ports%% *}

# The last that was started ends first.
started=
end() {
  trap '' INT TERM
  for process in $started; do
    # More than once: a replica that has just copied its master does not end before its file is written.
    (while kill "$process" 2>/dev/null; do sleep 1; done) &
    wait "$process" || true
  done
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start_redis PORT LINES...: with these lines in its configuration, from its first start on.
start_redis() {
  port=$1
  shift
  place=$folder/redis-$port
  if [ ! -d "$place" ]; then
    mkdir "$place"
    {
      echo "port $port"
      echo "bind 127.0.0.1"
      echo "pidfile $place/redis.pid"
      echo "appendonly yes"
      echo "maxmemory-policy noeviction"
      # A master that has lost its replicas takes no changes after two seconds: they would be lost with the fail-over.
      echo "min-replicas-to-write 1"
      echo "min-replicas-max-lag 2"
      echo "repl-diskless-sync-delay 0"
      for line in "$@"; do echo "$line"; done
    } >"$place/redis.conf"
  fi
  sh "$here/trim-aof.sh" "$place"
  (cd "$place" && exec "$server" redis.conf >>redis.log 2>&1) &
  started="$! $started"
}

# repeat COMMAND...: until it succeeds. It will not if a server has ended.
repeat() {
  until "$@"; do
    for process in $started; do
      kill -0 "$process" 2>/dev/null || { echo "a server has ended, perhaps because its port is in use: see the logs in $folder" >&2; exit 1; }
    done
    sleep 0.2
  done
}

with_sentinels() {
  for port in $ports; do
    if [ "$port" = "$first" ]; then start_redis "$port"; else start_redis "$port" "replicaof 127.0.0.1 $first"; fi
  done
  sentinel_ports=${SENTINEL_PORTS:-27001 27002 27003}
  sentinels=
  for port in $sentinel_ports; do
    place=$folder/sentinel-$port
    mkdir -p "$place"
    (cd "$place" && MASTER_HOST=127.0.0.1 MASTER_PORT=$first exec sh "$here/start-sentinel.sh" \
      "port $port" "bind 127.0.0.1" >>sentinel.log 2>&1) &
    started="$! $started"
    sentinels=$sentinels${sentinels:+,}127.0.0.1:$port
  done
  # Until they know each other and the replicas, they could not agree on a new master.
  knows_all() {
    redis-cli -p "$1" SENTINEL CKQUORUM shop 2>/dev/null | grep -q '^OK 3' &&
      redis-cli -p "$1" SENTINEL MASTER shop | grep -A 1 '^num-slaves$' | grep -q '^2$'
  }
  for port in $sentinel_ports; do repeat knows_all "$port"; done
  REDIS_URL="redis+sentinel://$sentinels/?master=shop"
  cat <<TOLD
Redis listens on the ports $ports, sentinels on $sentinel_ports.
Kill a master:     kill -9 \$(cat $folder/redis-$first/redis.pid)
Fail over by hand: redis-cli -p ${sentinel_ports%% *} SENTINEL FAILOVER shop
Who is the master: redis-cli -p ${sentinel_ports%% *} SENTINEL GET-MASTER-ADDR-BY-NAME shop
TOLD
}

with_cluster() {
  nodes=
  for port in $ports; do
    # While the slots of one primary are nobody's, those of the others go on.
    start_redis "$port" "cluster-enabled yes" "cluster-node-timeout 2000" "cluster-require-full-coverage no"
    nodes="$nodes${nodes:+ }127.0.0.1:$port"
  done
  is_ready() {
    # shellcheck disable=SC2086
    sh "$here/create-cluster.sh" $nodes 2>/dev/null
  }
  repeat is_ready
  REDIS_URL="redis+cluster://$(echo "$nodes" | tr ' ' ,)"
  # shellcheck disable=SC2086
  set -- $ports
  cat <<TOLD
Redis listens on the ports $ports.
Who has what:      redis-cli --cluster check 127.0.0.1:$1
Kill a primary:    kill -9 \$(cat $folder/redis-$2/redis.pid)
                   A replica takes its place some 2 s later, and takes changes when it has a replica itself: after some 8 s.
                   The killed one starts with the next run.
Fail over by hand: redis-cli -p $5 CLUSTER FAILOVER
Move 1000 slots:   redis-cli --cluster reshard 127.0.0.1:$3 --cluster-from \$(redis-cli -p $3 CLUSTER MYID) \\
                     --cluster-to \$(redis-cli -p $1 CLUSTER MYID) --cluster-slots 1000 --cluster-yes
TOLD
}

case $kind in
sentinel) with_sentinels ;;
cluster) with_cluster ;;
esac
export REDIS_URL
"$@" &
command=$!
started="$command $started"
wait "$command"
