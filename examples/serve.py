"""Texts -> codes -> an index -> the service, asked over HTTP.

    python examples/serve.py            # asks a few questions, then ends
    python examples/serve.py --stay     # leaves the page open at http://127.0.0.1:8000/

The texts are docs/notes.csv: 45 notes on tea, ants and stone, every second one with a label.
"""

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import ssbhash
from ssbhash.data import TextFeatures, read_items
from ssbhash.models import Pipeline

NOTES = Path(__file__).parent.parent / "docs" / "notes.csv"
with socket.socket() as free:  # a port that nobody uses
    free.bind(("127.0.0.1", 8000 if "--stay" in sys.argv else 0))
    PORT = free.getsockname()[1]


def call(path: str, body: object = None) -> dict:
    """Ask the service."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}{path}", content, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


with tempfile.TemporaryDirectory() as place:
    folder = Path(place)
    notes = read_items(NOTES, id="id")
    model = Pipeline(ssbhash.SSBVAE(n_bits=32, n_epochs=60), TextFeatures(min_df=1)).fit(notes)
    model.save(folder / "model")
    with ssbhash.HammingIndex.open(folder / "index", "a", n_bits=32) as index:
        index.add(model.transform(notes.texts), ids=notes.ids)

    command = [sys.executable, "-m", "ssbhash", "serve", str(folder / "index"), "--port", str(PORT)]
    command += ["--model", str(folder / "model"), "--items", str(NOTES), "--id-field", "id"]
    server = subprocess.Popen(command)
    try:
        while server.poll() is None:
            with contextlib.suppress(urllib.error.URLError):
                call("/ready")
                break
            time.sleep(0.1)
        found = call("/search", {"texts": ["a cup of tea"], "k": 3})
        for item in call("/items", {"ids": found["ids"][0]})["items"]:
            print(f"{item['id']}: {item['text']}")
        call("/add", {"texts": ["a second cup of green tea"], "ids": ["mine"]})
        print("items now:", call("/stats")["index"]["n"])
        if "--stay" in sys.argv:
            server.wait()
    finally:
        server.terminate()
        server.wait()
