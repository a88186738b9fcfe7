#!/bin/sh
# To be run before Redis starts: cuts off what a crash left half written at the end of the append-only file.
#   trim-aof.sh FOLDER [CHECK]   the data folder, and the program to check it with: redis-check-aof
#
# What a script wrote is a transaction in that file. When its last one is cut short, Redis up to 8.0 and Valkey up to 8.1
# leave it in the file, and append to it: at the start after the next one, half a transaction is carried out.
set -eu
export LC_ALL=C
folder=$1/appendonlydir
manifest=$folder/appendonly.aof.manifest
check=${2:-redis-check-aof}

[ -e "$manifest" ] || exit 0
command -v "$check" >/dev/null || { echo "no $check: the append-only file is not checked" >&2; exit 0; }
report=$("$check" "$manifest" 2>&1) && exit 0
# The last file that was looked at is the one with the defect.
last=$(printf '%s\n' "$report" | grep '^AOF analyzed: ' | tail -n 1)
file=$folder/$(printf '%s' "$last" | sed 's/.*filename=\([^,]*\),.*/\1/')
rest=$(printf '%s' "$last" | sed 's/.*diff=//')
# Where a transaction comes to its end, none was cut short: the damage is elsewhere, and Redis will say so and stop.
if [ "${rest:-0}" -gt 0 ] && ! tail -c "$rest" "$file" | sed '$d' | grep -q '^EXEC'; then
  echo "a crash left $rest bytes of a transaction in $file: they are cut off" >&2
  echo y | "$check" --fix "$manifest" >/dev/null
else
  printf '%s\n' "$report" >&2
fi
