#!/usr/bin/env bash
# Hold, extend, confirm, release and adjust stock from a shell, by the scripts' SHA-1s and nothing but redis-cli.
#
#     stockhold.sh hold CART TTL_MS SKU QUANTITY ID
#     stockhold.sh extend SKU ID TTL_MS
#     stockhold.sh confirm SKU ID TOKEN
#     stockhold.sh release SKU ID TOKEN
#     stockhold.sh adjust SKU UNITS OPERATION REASON [VERSION]
#
# REDIS_URL says where; REDISCLI_AUTH is a password that does not show in the list of processes.
# Exit status: 0 done, 1 refused, 75 no answer (run the same command again).
set -euo pipefail

audit=inventory:audit due=stockhold:due skus=stockhold:skus settings=stockhold:settings
patience=10 # seconds

ask() { timeout 2 redis-cli -e --no-auth-warning -u "${REDIS_URL:-redis://127.0.0.1:6390}" "$@" 2>&1; }

# call SCRIPT NUMKEYS KEY... ARG...: sets the array `reply`. Calls until there is an answer, which is safe: a repeat with
# the same id, token or operation has no second effect.
call() {
  local script=$1 answer deadline=$((SECONDS + patience))
  shift
  while true; do
    if answer=$(ask HGET stockhold:scripts "$script"); then
      # No SHA-1: Redis was restarted. The stockhold server loads the scripts in seconds.
      if [ -z "$answer" ]; then answer="no script $script"; elif answer=$(ask EVALSHA "$answer" "$@"); then
        mapfile -t reply <<<"$answer"
        return
      fi
    fi
    case "$answer" in
      BADARGS* | BADKEY* | WRONGTYPE* | *NOPERM* | *NOAUTH* | *WRONGPASS*)
        echo "$answer" >&2 # a defect of the caller
        exit 2
        ;;
    esac
    if [ $SECONDS -ge $deadline ]; then
      echo "no answer: $answer" >&2
      exit 75
    fi
    sleep 0.1
  done
}

# sweep SKU: gives back the units of the holds that are due, up to 100 of them, the earliest first.
sweep() {
  local listed reservations=()
  call inventory 2 "inventory:$1" "inventory:$1:active" 100
  # STOCK and its nine fields; then ACTIVE, id and expiry of each reservation.
  for ((listed = 11; listed < ${#reply[@]}; listed += 3)); do reservations+=("reservation:${reply[listed]}"); done
  call sweep $((5 + ${#reservations[@]})) $audit $due $settings "inventory:$1" "inventory:$1:active" "${reservations[@]}"
}

# call_and_sweep SKU SCRIPT NUMKEYS KEY... ARG...: calls again when units of the SKU were on holds that are due.
call_and_sweep() {
  local sku=$1 deadline=$((SECONDS + patience))
  shift
  while true; do
    call "$@"
    [ "${reply[0]}" = INSUFFICIENT ] && [ "${reply[2]}" != 0 ] && [ $SECONDS -lt $deadline ] || break
    sweep "$sku"
  done
}

hold() {
  local cart=$1 ttl_ms=$2 sku=$3 quantity=$4 id=$5
  call_and_sweep "$sku" hold 5 $audit $due "inventory:$sku" "inventory:$sku:active" "reservation:$id" \
    each "$cart" "$quantity" "$ttl_ms"
}

# Adds units, or takes them away, once; what is held or sold stays. With a version: only if the SKU still has it.
adjust() {
  local sku=$1 units=$2 operation=$3 reason=$4 version=${5:-}
  call_and_sweep "$sku" adjust 6 $audit $skus $settings "inventory:$sku" "inventory:$sku:active" \
    "operation:$operation" each add "$units" "$version" '' "$reason" once
}

# call_for_one SCRIPT SKU ID ARGUMENT: the argument is a token, or the time from now until the hold lapses.
call_for_one() {
  call "$1" 6 $audit $due $settings "inventory:$2" "inventory:$2:active" "reservation:$3" each "$4"
}

case "$#-${1:-}" in
  6-hold) hold "${@:2}" ;;
  5-adjust | 6-adjust) adjust "${@:2}" ;;
  4-extend | 4-confirm | 4-release) call_for_one "$@" ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

case "${reply[0]}" in
  HELD) words="until ${reply[1]}" ;;
  ADJUSTED) words="${reply[1]} available" ;;
  REPLAYED)
    words="done before; it is ${reply[4]}"
    # What an adjustment left has five fields; a reservation has more.
    [ ${#reply[@]} -gt 6 ] || words="done before; it left ${reply[1]} available"
    ;;
  EXTENDED) words="until ${reply[6]}" ;;
  LIMITED) words="not after ${reply[1]}" ;;
  CONFIRMED) words="sold" ;;
  RELEASED) words="back on sale" ;;
  INSUFFICIENT) words="${reply[1]} left" ;;
  UNKNOWN_SKU) words="never on sale" ;;
  STALE) words="it has version ${reply[1]}" ;;
  EXCESSIVE) words="more than there can be" ;;
  CONFLICT) words="used with another ${reply[1]}" ;;
  NOT_ACTIVE) words="it is ${reply[1]} already" ;;
  EXPIRED) words="too late, back on sale" ;;
  NOT_FOUND) words="no such reservation" ;;
  *) echo "not a reply of today's contract: ${reply[0]}" >&2; exit 2 ;;
esac
echo "${reply[0]}: $words"
case "${reply[0]}" in HELD | REPLAYED | EXTENDED | CONFIRMED | RELEASED | ADJUSTED) ;; *) exit 1 ;; esac
