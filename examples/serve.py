"""Texts -> codes -> an index -> the service, asked over HTTP.

    python examples/serve.py            # asks a few questions, then ends
    python examples/serve.py --stay     # leaves the page open at http://127.0.0.1:8000/

Texts and classes are those of examples/texts.py: docstrings of standard modules.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
with contextlib.redirect_stdout(io.StringIO()):
    from texts import modules, texts

import ssbhash
from ssbhash.data import Items, TextFeatures
from ssbhash.models import Pipeline

URL = "http://127.0.0.1:8000"


def call(path: str, body: object = None) -> dict:
    """Ask the service."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


with tempfile.TemporaryDirectory() as place:
    folder = Path(place)
    few = [name if number % 5 == 0 else None for number, name in enumerate(modules)]
    model = Pipeline(ssbhash.SSBVAE(n_bits=64, n_epochs=30), TextFeatures(ngrams=2))
    model.fit(Items(texts=texts, labels=few))
    model.save(folder / "model")
    with ssbhash.HammingIndex.open(folder / "index", "a", n_bits=64) as index:
        index.add(model.transform(texts))
    lines = [
        json.dumps({"text": text, "label": name}) for text, name in zip(texts, modules, strict=True)
    ]
    (folder / "texts.jsonl").write_text("\n".join(lines))

    command = [sys.executable, "-m", "ssbhash", "serve", str(folder / "index")]
    command += ["--model", str(folder / "model"), "--items", str(folder / "texts.jsonl")]
    server = subprocess.Popen(command)
    try:
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError):
                call("/ready")
                break
            time.sleep(0.1)
        found = call("/search", {"texts": ["compress a file into an archive"], "k": 3})
        for item in call("/items", {"ids": found["ids"][0]})["items"]:
            print(f"{item['label']}: {item['text'].splitlines()[0]}")
        added = call("/add", {"texts": ["Squeeze a folder into one small file."]})
        print("added", added["ids"], "of", call("/stats")["index"]["n"])
        if "--stay" in sys.argv:
            server.wait()
    finally:
        server.terminate()
        server.wait()
