#!/bin/sh
# A playground for fail-overs: a master, two replicas and three sentinels on this machine, and a command that works with them. All of
# them end with the command.
#   playground.sh FOLDER COMMAND ARGUMENTS...
# The command gets the URL in REDIS_URL. The data is in FOLDER, and a later run goes on with it. REDIS_PORTS and SENTINEL_PORTS are three
# ports each, the same in each run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
server=${REDIS_SERVER:-redis-server}
redis_ports=${REDIS_PORTS:-7001 7002 7003}
sentinel_ports=${SENTINEL_PORTS:-27001 27002 27003}
master=${redis_ports%% *}

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

for port in $redis_ports; do
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
      [ "$port" = "$master" ] || echo "replicaof 127.0.0.1 $master"
    } >"$place/redis.conf"
  fi
  sh "$here/trim-aof.sh" "$place"
  (cd "$place" && exec "$server" redis.conf >>redis.log 2>&1) &
  started="$! $started"
done
sentinels=
for port in $sentinel_ports; do
  place=$folder/sentinel-$port
  mkdir -p "$place"
  (cd "$place" && MASTER_HOST=127.0.0.1 MASTER_PORT=$master exec sh "$here/start-sentinel.sh" \
    "port $port" "bind 127.0.0.1" >>sentinel.log 2>&1) &
  started="$! $started"
  sentinels=$sentinels${sentinels:+,}127.0.0.1:$port
done

# Until they know each other and the replicas, they could not agree on a new master.
knows_all() {
  redis-cli -p "$1" SENTINEL CKQUORUM shop 2>/dev/null | grep -q '^OK 3' &&
    redis-cli -p "$1" SENTINEL MASTER shop | grep -A 1 '^num-slaves$' | grep -q '^2$'
}
for port in $sentinel_ports; do
  until knows_all "$port"; do
    for process in $started; do
      kill -0 "$process" 2>/dev/null || { echo "a server has ended, perhaps because its port is in use: see the logs in $folder" >&2; exit 1; }
    done
    sleep 0.2
  done
done
REDIS_URL="redis+sentinel://$sentinels/?master=shop"
export REDIS_URL

cat <<TOLD
Redis listens on the ports $redis_ports, sentinels on $sentinel_ports.
Kill a master:     kill -9 \$(cat $folder/redis-$master/redis.pid)
Fail over by hand: redis-cli -p ${sentinel_ports%% *} SENTINEL FAILOVER shop
Who is the master: redis-cli -p ${sentinel_ports%% *} SENTINEL GET-MASTER-ADDR-BY-NAME shop
TOLD
"$@" &
command=$!
started="$command $started"
wait "$command"
