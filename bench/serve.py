"""Single queries of many clients: the service with gathering, beside itself without.

    python bench/serve.py                                # 10 million codes of 64 bits
    python bench/serve.py --n 100000 --layout flat --seconds 2
    python bench/serve.py --codes uniform -k 100

"bare" is an application that reads the body and answers a constant: what uvicorn and the
sockets take, so no service is faster. Each client waits for its answer, then asks again, over one connection that stays open. All
clients are one asyncio process, on the same machine. Every answer is compared with what the
index finds in this process before anything is timed. Codes are those of `bench/hamming.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import uvloop

import ssbhash

sys.path.insert(0, str(Path(__file__).parent))
from hamming import make_codes

BARE = """
import sys, uvicorn
async def app(scope, receive, send):
    if scope["type"] == "http":
        await receive()
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
body = sys.argv[2].encode()
uvicorn.run(app, port=int(sys.argv[1]), access_log=False, proxy_headers=False, lifespan="off")
"""


class Client(asyncio.Protocol):
    """Asks one query after the other and keeps the seconds of each."""

    def __init__(self, queries: list[bytes], first: int, answers: dict[int, bytes]) -> None:
        self.queries, self.number, self.answers = queries, first, answers
        self.seconds: list[float] = []
        self.until = 0.0
        self.received = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send a query."""
        self.asked = time.perf_counter()
        self.transport.write(self.queries[self.number % len(self.queries)])

    def data_received(self, data: bytes) -> None:
        """Take an answer, or a part of one; after a whole one ask again, or stop."""
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        assert head.startswith(b"HTTP/1.1 200"), self.received
        now = time.perf_counter()
        self.seconds.append(now - self.asked)
        self.answers[self.number % len(self.queries)] = body
        self.received = b""
        self.number += 1
        if now < self.until:
            self.ask()
        else:
            self.transport.close()
            self.done.set_result(None)


async def load(
    port: int, queries: list[bytes], n_clients: int, seconds: float
) -> tuple[np.ndarray, float, dict[int, bytes]]:
    """Return the seconds of each request, those of all, and the answers."""
    loop = asyncio.get_running_loop()
    answers: dict[int, bytes] = {}
    until = time.perf_counter() + seconds
    clients = []
    started = time.perf_counter()
    for number in range(n_clients):
        first = number * len(queries) // n_clients
        client = Client(queries, first, answers)
        client.until = until
        clients.append(client)
    await asyncio.gather(
        *(loop.create_connection(lambda c=client: c, "127.0.0.1", port) for client in clients)
    )
    await asyncio.gather(*(client.done for client in clients))
    taken = np.concatenate([client.seconds for client in clients])
    return taken, time.perf_counter() - started, answers


def request(code: np.ndarray, k: int) -> bytes:
    body = json.dumps({"codes": [code.tobytes().hex()], "k": k}).encode()
    head = f"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def start(command: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server; `PORT` in the command is replaced by a free one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *(str(port) if part == "PORT" else part for part in command)]
    # Not in the source folder, whose ssbhash may have no extension.
    place, nowhere = Path(__file__).parent, subprocess.DEVNULL
    server = subprocess.Popen(command, cwd=place, stderr=nowhere, stdout=nowhere)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert server.poll() is None, "the server ended"
            time.sleep(0.05)
        else:
            return server, port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000_000)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--codes", default="learned", choices=["learned", "uniform"])
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--layout", default="auto", choices=["auto", "flat"])
    parser.add_argument("--gather-us", type=float, nargs="+", default=[0, 200])
    parser.add_argument("--index", type=Path, help="Keep the index here, for the next time.")
    options = parser.parse_args()
    codes = make_codes(options.n, options.bits, options.codes, False)
    queries = make_codes(1024, options.bits, options.codes, True)
    with tempfile.TemporaryDirectory() as place:
        folder = (options.index or Path(place) / "index").resolve()
        if not folder.exists():
            index = ssbhash.HammingIndex(options.bits, layout=options.layout)
            index.add(codes)
            index.save(folder)
        with ssbhash.HammingIndex.open(folder) as index:
            expected = index.search(queries, options.k)
            flat = ssbhash.search(codes, queries[:50], options.k)
            assert (expected.ids[:50] == flat.ids).all()
            n, layout = len(index), index.stats()["segments"][0]["layout"]
        requests = [request(code, options.k) for code in queries]
        print(
            f"{n:,} {options.codes} codes of {options.bits} bits ({layout}), k = {options.k}, "
            f"{options.clients} clients, {os.cpu_count()} cores"
        )
        print(f"{'gathered in':>12} {'requests/s':>10} {'p50 ms':>7} {'p99 ms':>7}")
        serve = ["-m", "ssbhash", "serve", str(folder), "--read-only", "--port", "PORT"]
        commands = {"bare": ["-c", BARE, "PORT", "x" * 10 * options.k]}
        for gather_us in options.gather_us:
            name = f"{gather_us:g} us" if gather_us else "not"
            options_of_it = ["--gather-us", str(gather_us), "--workers", str(options.workers)]
            commands[name] = [*serve, *options_of_it]
        for name, command in commands.items():
            server, port = start(command)
            try:
                answers = uvloop.run(load(port, requests, options.clients, 1.5))[2]
                for number, body in answers.items() if name != "bare" else ():
                    found = json.loads(body)
                    assert found["ids"] == [expected.ids[number].tolist()]
                    assert found["distances"] == [expected.distances[number].tolist()]
                taken, seconds, _ = uvloop.run(
                    load(port, requests, options.clients, options.seconds)
                )
            finally:
                server.terminate()
                server.wait()
            middle, late = np.percentile(taken * 1e3, [50, 99])
            equal = f"  equal: {len(answers)}" if name != "bare" else ""
            print(f"{name:>12} {len(taken) / seconds:10.0f} {middle:7.1f} {late:7.1f}{equal}")


if __name__ == "__main__":
    main()
