#!/usr/bin/env bash
# Hold, extend, confirm, release and adjust stock, and buy carts, from a shell, by the scripts' SHA-1s and nothing but redis-cli.
#
#     stockhold.sh hold CART TTL_MS SKU QUANTITY ID
#     stockhold.sh cart-hold CART TTL_MS OPERATION SKU QUANTITY ID [SKU QUANTITY ID ...]
#     stockhold.sh cart-confirm TOKEN SKU ID [SKU ID ...]
#     stockhold.sh extend SKU ID TTL_MS
#     stockhold.sh confirm SKU ID TOKEN
#     stockhold.sh release SKU ID TOKEN
#     stockhold.sh adjust SKU UNITS OPERATION REASON [VERSION]
#
# REDIS_URL says where (redis+cluster:// for a cluster), and REDIS_CA whom to trust with rediss://; REDISCLI_AUTH is a password that does
# not show in the list of processes. SHARDS is the number of shards if the stock has several: a call is then about SKUs of one shard, and an
# id carries its number.
# Exit status: 0 done, 1 refused, 2 not possible, 75 no answer (run the same command again).
set -euo pipefail

shards=${SHARDS:-1}
patience=10 # seconds

usage() {
  sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

# Of the nodes of a cluster, the first finds the others.
url=${REDIS_URL:-redis://127.0.0.1:6390} follow=()
if [[ $url == *+cluster:* ]]; then url=${url/+cluster/} url=${url%%,*} follow=(-c); fi

ask() { timeout 2 redis-cli -e "${follow[@]}" --no-auth-warning -u "$url" ${REDIS_CA:+--cacert "$REDIS_CA"} "$@" 2>&1; }

# prefix SKU: what its keys begin with; ids of its reservations carry the same number in hexadecimal.
prefix() {
  local LC_ALL=C crc=0 at bit
  if [ "$shards" = 1 ]; then return; fi
  for ((at = 0; at < ${#1}; at++)); do
    crc=$((crc ^ ($(printf '%d' "'${1:at:1}") & 255) << 8))
    for bit in 1 2 3 4 5 6 7 8; do crc=$((crc << 1 ^ (crc & 0x8000 ? 0x11021 : 0))); done
  done
  echo "{$((crc % shards))}:"
}

# in_shard SKU: from now on, calls are about the shard of this SKU. They cannot be about two.
in_shard() {
  local own
  own=$(prefix "$1")
  if [ "${shard-$own}" != "$own" ]; then
    echo "these SKUs are in several shards: make a call for each" >&2
    exit 2
  fi
  shard=$own audit=${own}inventory:audit due=${own}stockhold:due skus=${own}stockhold:skus settings=${own}stockhold:settings
}

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
  call inventory 2 "${shard}inventory:$1" "${shard}inventory:$1:active" 100
  # STOCK and its nine fields; then ACTIVE, id and expiry of each reservation.
  for ((listed = 12; listed < ${#reply[@]}; listed += 3)); do reservations+=("${shard}reservation:${reply[listed]}"); done
  call sweep $((5 + ${#reservations[@]})) "$audit" "$due" "$settings" "${shard}inventory:$1" "${shard}inventory:$1:active" \
    "${reservations[@]}"
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
  in_shard "$sku"
  call_and_sweep "$sku" hold 5 "$audit" "$due" "${shard}inventory:$sku" "${shard}inventory:$sku:active" "${shard}reservation:$id" \
    each "$cart" "$quantity" "$ttl_ms"
}

# cart_hold CART TTL_MS OPERATION SKU QUANTITY ID...: holds every line or none, each SKU once, and lists them under the
# cart. The caller makes up the operation and the ids, UUIDs, and keeps them before it calls.
cart_hold() {
  local cart=$1 ttl_ms=$2 operation=$3 keys=() quantities=() names=() deadline=$((SECONDS + patience)) sku at lapsed
  shift 3
  while [ $# -gt 0 ]; do
    in_shard "$1"
    names+=("$1") quantities+=("$2") keys+=("${shard}inventory:$1" "${shard}inventory:$1:active" "${shard}reservation:$3")
    shift 3
  done
  while true; do
    call cart_hold $((5 + ${#keys[@]})) "$audit" "$due" "$settings" "${shard}cart:$cart" "${shard}operation:$operation" "${keys[@]}" \
      once "$ttl_ms" "" "${quantities[@]}"
    at=0 lapsed=()
    for sku in "${names[@]}"; do
      if [ "${reply[at]}" = INSUFFICIENT ] && [ "${reply[at + 2]}" != 0 ]; then lapsed+=("$sku"); fi
      at=$((at + $(width $at)))
    done
    [ ${#lapsed[@]} -gt 0 ] && [ $SECONDS -lt $deadline ] || break
    for sku in "${lapsed[@]}"; do sweep "$sku"; done
  done
}

# cart_confirm TOKEN SKU ID...: sells every line or none.
cart_confirm() {
  local token=$1 keys=() tokens=()
  shift
  while [ $# -gt 0 ]; do
    in_shard "$1"
    keys+=("${shard}inventory:$1" "${shard}inventory:$1:active" "${shard}reservation:$2") tokens+=("$token")
    shift 2
  done
  call confirm $((3 + ${#keys[@]})) "$audit" "$due" "$settings" "${keys[@]}" all "${tokens[@]}"
}

# width AT: how many elements the reply at this place has.
width() {
  case "${reply[$1]}" in
    # What an adjustment left has five fields; a reservation has more.
    REPLAYED) if [ ${#reply[@]} = 6 ]; then echo 6; else echo 9; fi ;;
    CONFIRMED | RELEASED | EXTENDED) echo 9 ;;
    ADJUSTED) echo 6 ;;
    HELD | INSUFFICIENT | CART_LIMIT | NOT_ACTIVE) echo 3 ;;
    CONFLICT | LIMITED | TOO_LONG | STALE) echo 2 ;;
    *) echo 1 ;;
  esac
}

# Adds units, or takes them away, once; what is held or sold stays. With a version: only if the SKU still has it.
adjust() {
  local sku=$1 units=$2 operation=$3 reason=$4 version=${5:-}
  in_shard "$sku"
  call_and_sweep "$sku" adjust 6 "$audit" "$skus" "$settings" "${shard}inventory:$sku" "${shard}inventory:$sku:active" \
    "${shard}operation:$operation" each add "$units" "$version" '' "$reason" once
}

# call_for_one SCRIPT SKU ID ARGUMENT: the argument is a token, or the time from now until the hold lapses.
call_for_one() {
  in_shard "$2"
  call "$1" 6 "$audit" "$due" "$settings" "${shard}inventory:$2" "${shard}inventory:$2:active" "${shard}reservation:$3" each "$4"
}

# Prints a reply, and says whether it is done.
tell() {
  local words
  case "$1" in
    HELD) words="until $2" ;;
    ADJUSTED) words="$2 available" ;;
    REPLAYED) if [ $# = 6 ]; then words="done before; it left $2 available"; else words="done before; it is $5"; fi ;;
    EXTENDED) words="until $7" ;;
    LIMITED) words="not after $2" ;;
    CONFIRMED) words="sold" ;;
    RELEASED) words="back on sale" ;;
    INSUFFICIENT) words="$2 left" ;;
    UNKNOWN_SKU) words="never on sale" ;;
    STALE) words="it has version $2" ;;
    EXCESSIVE) words="more than there can be" ;;
    FULL) words="the cart lists 100 reservations" ;;
    BY_CART) words="held with its cart only" ;;
    UNSEEN) words="the cart has more of it" ;;
    CART_LIMIT) words="$2 a cart, and it has $3" ;;
    TOO_LONG) words="$2 ms at most" ;;
    WITHDRAWN) words="another line was refused" ;;
    CONFLICT) words="used with another $2" ;;
    NOT_ACTIVE) words="it is $2 already" ;;
    EXPIRED) words="too late, back on sale" ;;
    NOT_FOUND) words="no such reservation" ;;
    *) echo "not a reply of today's contract: $1" >&2; exit 2 ;;
  esac
  echo "$1: $words"
  case "$1" in HELD | REPLAYED | EXTENDED | CONFIRMED | RELEASED | ADJUSTED) ;; *) return 1 ;; esac
}

case "$#-${1:-}" in
  6-hold) hold "${@:2}" ;;
  5-adjust | 6-adjust) adjust "${@:2}" ;;
  4-extend | 4-confirm | 4-release) call_for_one "$@" ;;
  *-cart-hold)
    if [ $# -lt 7 ] || [ $(($# % 3)) != 1 ]; then usage; fi
    cart_hold "${@:2}"
    ;;
  *-cart-confirm)
    if [ $# -lt 4 ] || [ $(($# % 2)) != 0 ]; then usage; fi
    cart_confirm "${@:2}"
    ;;
  *) usage ;;
esac

status=0
for ((at = 0; at < ${#reply[@]}; at += size)); do
  size=$(width $at)
  tell "${reply[@]:at:size}" || status=1
done
exit $status
