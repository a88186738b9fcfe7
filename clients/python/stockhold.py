"""Hold, extend, confirm, release and adjust stock, and buy carts, from Python, by the scripts' SHA-1s and nothing but redis-py.

    python stockhold.py hold CART TTL_MS SKU QUANTITY ID [SKU QUANTITY ID ...]
    python stockhold.py cart-hold CART TTL_MS OPERATION SKU QUANTITY ID [SKU QUANTITY ID ...]
    python stockhold.py cart-confirm TOKEN SKU ID [SKU ID ...]
    python stockhold.py extend SKU ID TTL_MS
    python stockhold.py confirm SKU ID TOKEN
    python stockhold.py release SKU ID TOKEN
    python stockhold.py adjust SKU UNITS OPERATION REASON [VERSION]

REDIS_URL says where (redis+cluster:// for a cluster), and REDIS_CA whom to trust with rediss://. SHARDS is the number of shards
if the stock has several: a call is then about SKUs of one shard, and an id carries its number.
Exit status: 0 done, 1 refused, 2 not possible, 75 no answer (run the same command again).
"""

import binascii
import os
import re
import sys
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

AUDIT, DUE = "inventory:audit", "stockhold:due"
SKUS, SETTINGS = "stockhold:skus", "stockhold:settings"
SHARDS = int(os.environ.get("SHARDS", "1"))

# The connection or the server is in a state that passes.
PASSING = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.RedisClusterException,
    redis.exceptions.TryAgainError,
)


class OutcomeUnknown(Exception):
    """No answer in time. It may have been done: the same call, with the same id, token or operation, finds out."""


class Stockhold:
    def __init__(self, client: redis.Redis, patience: float = 10.0):
        self._redis, self._patience = client, patience
        self._sha1s: dict[str, str] = {}

    def hold(self, cart: str, ttl_ms: int, lines: list[tuple[str, int, str]]) -> list[list[str]]:
        """Holds every line (sku, quantity, id) or none. The caller makes up the ids, and keeps them before it calls."""
        keys, args = shared(lines, AUDIT, DUE), ["all"]
        for sku, quantity, id in lines:
            keys += item_keys(sku, id)
            args += [cart, quantity, ttl_ms]
        return self._call_and_sweep("hold", keys, args, [sku for sku, _, _ in lines])

    def cart_hold(
        self, cart: str, ttl_ms: int, operation: str, lines: list[tuple[str, int, str]]
    ) -> list[list[str]]:
        """Holds every line (sku, quantity, id) or none, each SKU once, and lists them under the cart. The caller makes up
        the operation and the ids, UUIDs, and keeps them before it calls."""
        keys = shared(lines, AUDIT, DUE, SETTINGS, f"cart:{cart}", f"operation:{operation}")
        for sku, _, id in lines:
            keys += item_keys(sku, id)
        args = ["once", ttl_ms, "", *(quantity for _, quantity, _ in lines)]
        return self._call_and_sweep("cart_hold", keys, args, [sku for sku, _, _ in lines])

    def cart_confirm(self, token: str, lines: list[tuple[str, str]]) -> list[list[str]]:
        """Sells every line (sku, id) or none."""
        keys = shared(lines, AUDIT, DUE, SETTINGS)
        for sku, id in lines:
            keys += item_keys(sku, id)
        return self._call("confirm", keys, ["all", *(token for _ in lines)])

    def extend(self, sku: str, id: str, ttl_ms: int) -> list[str]:
        """More time, from now: while the customer pays. A hold is never shortened, so a repeat is harmless."""
        return self._call_for_one("extend", sku, id, ttl_ms)

    def confirm(self, sku: str, id: str, token: str) -> list[str]:
        return self._call_for_one("confirm", sku, id, token)

    def release(self, sku: str, id: str, token: str) -> list[str]:
        return self._call_for_one("release", sku, id, token)

    def adjust(self, sku: str, units: int, operation: str, reason: str = "", version: str = "") -> list[str]:
        """Adds units, or takes them away; what is held or sold stays. The caller makes up the operation, a UUID, and keeps
        it before it calls. With a version: only if the SKU still has it."""
        stock = [f"inventory:{sku}", f"inventory:{sku}:active", f"operation:{operation}"]
        keys = shared([(sku,)], AUDIT, SKUS, SETTINGS, *stock)
        (reply,) = self._call_and_sweep("adjust", keys, ["each", "add", units, version, "", reason, "once"], [sku])
        return reply

    def _call_for_one(self, script: str, sku: str, id: str, argument: str | int) -> list[str]:
        keys = shared([(sku,)], AUDIT, DUE, SETTINGS) + item_keys(sku, id)
        (reply,) = self._call(script, keys, ["each", argument])
        return reply

    def _call_and_sweep(self, script: str, keys: list, args: list, skus: list[str]) -> list[list[str]]:
        """Calls again when units were on holds that are due: there is one reply for each of the SKUs."""
        deadline = time.monotonic() + self._patience
        while True:
            replies = self._call(script, keys, args)
            lapsed = [sku for sku, reply in zip(skus, replies) if reply[0] == "INSUFFICIENT" and reply[2] != "0"]
            if not lapsed or time.monotonic() > deadline:
                return replies
            for sku in lapsed:
                self._sweep(sku)

    def _sweep(self, sku: str) -> None:
        """Gives back the units of the holds that are due: up to 100 of them, the earliest first."""
        stock = shared([(sku,)], f"inventory:{sku}", f"inventory:{sku}:active")
        listed = self._call("inventory", stock, [100])[1:]
        reservations = shared([(sku,)], *(f"reservation:{id}" for _, id, _ in listed))
        self._call("sweep", shared([(sku,)], AUDIT, DUE, SETTINGS) + stock + reservations, [])

    def _call(self, script: str, keys: list, args: list) -> list[list[str]]:
        """Calls until there is an answer. That is safe: a repeat with the same id, token or operation has no second effect."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self._redis.evalsha(self._sha1(script), len(keys), *keys, *args)
            except redis.AuthenticationError:
                raise
            except redis.exceptions.NoScriptError as error:
                # Redis restarted, or another version is out: look again. Whoever runs stockhold loads it in seconds.
                self._sha1s.clear()
                cause = error
            except PASSING as error:
                cause = error
            except redis.ResponseError as error:
                if not str(error).startswith(("BUSY", "MISCONF")):
                    raise  # BADARGS, BADKEY, NOPERM: a defect of the caller
                cause = error
            if time.monotonic() > deadline:
                raise OutcomeUnknown(str(cause)) from cause
            time.sleep(0.1)

    def _sha1(self, script: str) -> str:
        if not self._sha1s:
            self._sha1s = self._redis.hgetall("stockhold:scripts")
        if script not in self._sha1s:
            raise redis.exceptions.NoScriptError(f"{script} is not published")
        return self._sha1s[script]


def prefix(sku: str) -> str:
    """What the keys of a SKU begin with; ids of its reservations carry the same number in hexadecimal."""
    return f"{{{binascii.crc_hqx(sku.encode(), 0) % SHARDS}}}:" if SHARDS > 1 else ""


def shared(lines: list[tuple], *keys: str) -> list[str]:
    """Keys in the shard of the lines, each of which begins with its SKU."""
    prefixes = {prefix(line[0]) for line in lines}
    if len(prefixes) > 1:
        raise ValueError("these SKUs are in several shards: make a call for each")
    own = "".join(prefixes)
    return [own + key for key in keys]


def item_keys(sku: str, id: str) -> list[str]:
    return shared([(sku,)], f"inventory:{sku}", f"inventory:{sku}:active", f"reservation:{id}")


def in_words(reply: list[str]) -> str:
    match reply:
        case ["HELD", expires_at, _]:
            return f"until {expires_at}"
        case ["ADJUSTED", available, *_]:
            return f"{available} available"
        case ["REPLAYED", available, _reserved, _confirmed, _updated_at, _version]:
            return f"done before; it left {available} available"
        case ["REPLAYED", _cart, _sku, _quantity, state, *_]:
            return f"done before; it is {state}"
        case ["EXTENDED", _cart, _sku, _quantity, _state, _reason, expires_at, *_]:
            return f"until {expires_at}"
        case ["LIMITED", max_expires_at]:
            return f"not after {max_expires_at}"
        case ["CONFIRMED", *_]:
            return "sold"
        case ["RELEASED", *_]:
            return "back on sale"
        case ["INSUFFICIENT", available, _]:
            return f"{available} left"
        case ["UNKNOWN_SKU"]:
            return "never on sale"
        case ["STALE", version]:
            return f"it has version {version}"
        case ["EXCESSIVE"]:
            return "more than there can be"
        case ["FULL"]:
            return "the cart lists 100 reservations"
        case ["BY_CART"]:
            return "held with its cart only"
        case ["UNSEEN"]:
            return "the cart has more of it"
        case ["CART_LIMIT", per_cart, units]:
            return f"{per_cart} a cart, and it has {units}"
        case ["TOO_LONG", max_ttl_ms]:
            return f"{max_ttl_ms} ms at most"
        case ["WITHDRAWN"]:
            return "another line was refused"
        case ["CONFLICT", field]:
            return f"used with another {field}"
        case ["NOT_ACTIVE", state, _reason]:
            return f"it is {state} already"
        case ["EXPIRED"]:
            return "too late, back on sale"
        case ["NOT_FOUND"]:
            return "no such reservation"
    raise ValueError(f"not a reply of today's contract: {reply}")


def connect() -> Stockhold:
    url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6390")
    # _call repeats; a second loop inside the client would only make it late.
    once = Retry(NoBackoff(), 0)
    limits = {"socket_timeout": 1, "socket_connect_timeout": 1, "retry": once}
    trust = {"ssl_ca_certs": os.environ["REDIS_CA"]} if "REDIS_CA" in os.environ else {}
    # Of the nodes of a cluster, the first finds the others.
    first = re.sub(r",[^/]*", "", url).replace("+cluster", "")
    kind = redis.RedisCluster if "+cluster" in url else redis.Redis
    return Stockhold(kind.from_url(first, decode_responses=True, **limits, **trust))


def main(command: str, *words: str) -> int:
    shop = connect()
    match command, *words:
        case "hold", cart, ttl_ms, *lines:
            grouped = zip(lines[0::3], map(int, lines[1::3]), lines[2::3], strict=True)
            replies = shop.hold(cart, int(ttl_ms), list(grouped))
        case "cart-hold", cart, ttl_ms, operation, *lines:
            grouped = zip(lines[0::3], map(int, lines[1::3]), lines[2::3], strict=True)
            replies = shop.cart_hold(cart, int(ttl_ms), operation, list(grouped))
        case "cart-confirm", token, *lines:
            replies = shop.cart_confirm(token, list(zip(lines[0::2], lines[1::2], strict=True)))
        case "extend", sku, id, ttl_ms:
            replies = [shop.extend(sku, id, int(ttl_ms))]
        case "confirm", sku, id, token:
            replies = [shop.confirm(sku, id, token)]
        case "release", sku, id, token:
            replies = [shop.release(sku, id, token)]
        case "adjust", sku, units, operation, reason, *version:
            replies = [shop.adjust(sku, int(units), operation, reason, *version)]
        case _:
            sys.exit(__doc__)
    for reply in replies:
        print(f"{reply[0]}: {in_words(reply)}")
    done = ("HELD", "REPLAYED", "EXTENDED", "CONFIRMED", "RELEASED", "ADJUSTED")
    return 0 if all(reply[0] in done for reply in replies) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(*(sys.argv[1:] or ["help"])))
    except (redis.ResponseError, ValueError) as refused:
        print(f"not possible: {refused}", file=sys.stderr)
        sys.exit(2)
    except OutcomeUnknown as unknown:
        print(f"no answer: {unknown}", file=sys.stderr)
        sys.exit(75)
