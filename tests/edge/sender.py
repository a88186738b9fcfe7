"""Sends the whole body before it reads anything, as most clients do; prints status and code of the answer.

    python3 sender.py ADDRESS METHOD PATH BYTES length|chunked [NAME VALUE ...]
"""

import http.client
import json
import sys

address, method, path, size, framing, *pairs = sys.argv[1:]
headers = dict(zip(pairs[::2], pairs[1::2]))
body = b"x" * int(size)
connection = http.client.HTTPConnection(address, timeout=30)
if framing == "chunked":
    pieces = (body[at : at + 10_000] for at in range(0, len(body), 10_000))
    connection.request(method, path, pieces, headers, encode_chunked=True)
else:
    connection.request(method, path, body, headers)
answer = connection.getresponse()
problem = json.loads(answer.read())
print(answer.status, problem["code"], answer.getheader("connection"))
