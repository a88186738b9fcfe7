"""Buyers in Python, until standard input ends. One line for each answer: its word, and the id that it is about."""

import os
import random
import sys
import threading
import traceback
import uuid

from stockhold import connect

BUYERS = 8
PAUSE = 0.002
closing = threading.Event()


def tell(word: str, id: str) -> None:
    sys.stdout.write(f"{word} {id}\n")


def buy() -> None:
    shop = connect()
    while not closing.wait(PAUSE):
        id, token = str(uuid.uuid4()), str(uuid.uuid4())
        ((word, *_),) = shop.hold("python", random.choice((20, 60_000)), [("tea", random.randint(1, 3), id)])
        tell(word, id)
        if word in ("HELD", "REPLAYED"):
            settle = shop.confirm if random.random() < 0.005 else shop.release
            tell(settle("tea", id, token)[0], id)


def guarded() -> None:
    try:
        buy()
    except BaseException:
        traceback.print_exc()
        os._exit(1)


buyers = [threading.Thread(target=guarded) for _ in range(BUYERS)]
for buyer in buyers:
    buyer.start()
sys.stdin.read()
closing.set()
for buyer in buyers:
    buyer.join()
