"""The page in a real Chromium, by keyboard, at the width of a desk and of a phone.

SSBHASH_SCREENSHOTS=FOLDER keeps pictures of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")

from serving import eventually, serving

import ssbhash
from ssbhash.serve import Settings, create_app

expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
WIDTHS = [1280, 390]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


@pytest.fixture
def new_page(browser: Any) -> Iterator[Any]:
    """Open a page of a width; whatever the browser complains about fails the test."""
    pages: list[tuple[Any, list[str]]] = []

    def open_page(client: Any, path: str = "/", width: int = 1280) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 844})
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        origin = str(client.base_url)
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((origin, "data:", "blob:"))
                else complaints.append(f"asks {request.url}")
            ),
        )
        page.on(
            "console",
            lambda line: (
                complaints.append(line.text)
                if line.type == "error" and "status of 4" not in line.text
                else None
            ),
        )
        page.goto(origin + path)
        pages.append((page, complaints))
        return page

    yield open_page
    for page, complaints in pages:
        page.close()
        assert complaints == []


def keep(page: Any, name: str) -> None:
    folder = os.environ.get("SSBHASH_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def fits(page: Any) -> bool:
    """Whether nothing reaches beyond the right edge."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Texts with a model, as docs/cli.md has them."""
    pytest.importorskip("torch")
    from ssbhash.data import TextFeatures, read_items
    from ssbhash.models import Pipeline

    path = Path(__file__).parent.parent / "docs" / "notes.csv"
    items = read_items(path, id="id")
    model = Pipeline(ssbhash.SSBVAE(n_bits=32, n_epochs=60, verbose=False), TextFeatures(min_df=1))
    model.fit(items)
    index = ssbhash.HammingIndex(32)
    index.add(model.transform(items.texts), ids=items.ids)
    with serving(
        create_app(index, model=model, settings=Settings(items=str(path), id_field="id"))
    ) as client:
        yield client


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Hand-written digits with pictures and a model of vectors."""
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    from matplotlib.image import imsave
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    X, y = load_digits(return_X_y=True)
    X, y = X[:400], y[:400]
    model = ssbhash.SSBVAE(n_bits=32, n_epochs=20, verbose=False).fit(
        X, np.where(np.arange(400) % 4 == 0, y, -1)
    )
    index = ssbhash.HammingIndex(32)
    index.add(model.transform(X))
    np.savez(folder / "items.npz", X=X, y=y)
    np.save(folder / "query.npy", X[7:9])
    for one in range(400):
        imsave(folder / f"{one}.png", X[one].reshape(8, 8), cmap="gray_r")
    settings = Settings(items=str(folder / "items.npz"), thumbnails=str(folder))
    with serving(create_app(index, model=model, settings=settings)) as client:
        client.folder = folder
        yield client


@pytest.mark.parametrize("width", WIDTHS)
def test_words_find_texts_by_keyboard_alone(notes: Any, new_page: Any, width: int) -> None:
    page = new_page(notes, width=width)
    page.wait_for_selector("text=45 items")
    expect(page.locator("#status")).to_contain_text("Some items to begin with")
    assert 3 <= page.locator("#results li").count() <= 12
    keep(page, f"start-{width}")
    page.keyboard.type("a cup of tea")  # the box has the focus from the start
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("The 20 nearest to")
    assert page.locator("#results li").count() == 20
    assert "tea" in page.locator("#results li .text").first.inner_text()
    assert page.locator("#asked meter").count() >= 1
    assert page.locator("#histogram rect").count() == 33
    assert page.locator("#results li svg.code").first.locator("rect").count() == 32
    assert fits(page)
    keep(page, f"texts-{width}")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.locator("#results li .text").nth(1).inner_text()
    page.keyboard.press("Enter")  # more like the second one
    page.wait_for_url("**/?id=*")
    expect(page.locator("#status")).to_contain_text("nearest to item")
    assert page.locator("#asked .text").inner_text() == second
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    page.go_back()
    expect(page.locator("#status")).to_contain_text("cup of tea")


@pytest.mark.parametrize("width", WIDTHS)
def test_ids_and_files_find_pictures(pictures: Any, new_page: Any, width: int) -> None:
    page = new_page(pictures, width=width)
    page.wait_for_selector("text=400 items")
    page.fill("#query", "5")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("The 20 nearest to item 5")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")  # pictures load when seen
    eventually(
        lambda: page.evaluate(
            "[...document.querySelectorAll('img')].every((i) => i.complete && i.naturalWidth === 8)"
        )
    )
    distances = [int(one) for one in page.locator("#results .distance b").all_inner_texts()]
    assert distances == sorted(distances)
    expected = pictures.post("/search", json={"ids": [5], "k": 20}).json()
    assert distances == expected["distances"][0]
    assert page.locator("#results rect.differs").count() == sum(distances)
    assert fits(page)
    keep(page, f"pictures-{width}")
    page.set_input_files("#file", pictures.folder / "query.npy")
    expect(page.locator("#status")).to_contain_text("query.npy")
    assert page.locator("#results .meta").first.inner_text().startswith("id 7 ")
    assert "first of 2 queries" in page.locator("#status").inner_text()
    page.click("#random")
    expect(page.locator("#status")).to_contain_text("nearest to item")


def test_what_is_wrong_is_said(pictures: Any, new_page: Any) -> None:
    page = new_page(pictures, "/?id=4000")
    page.wait_for_selector("#status.wrong")
    assert page.locator("#status").inner_text() == "id 4000 is not in the index"


def test_a_key_is_asked_for(new_page: Any) -> None:
    index = ssbhash.HammingIndex(16)
    index.add(np.arange(20, dtype=np.uint8).reshape(10, 2))
    with serving(create_app(index, settings=Settings(read_keys=("open sesame",)))) as client:
        page = new_page(client, "/?id=3", width=390)
        page.wait_for_selector("#unlock", state="visible")
        keep(page, "key-390")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=this key is not known")
        page.fill("#key", "open sesame")
        page.keyboard.press("Enter")
        page.wait_for_selector("#results li")
        assert page.locator("#results li").count() == 9
        assert not page.locator("#unlock").is_visible()


def test_texts_are_never_markup(tmp_path: Path, new_page: Any) -> None:
    (tmp_path / "items.csv").write_text(
        "text,label\n<img src=x onerror=alert(1)>,<b>bold</b>\nother,\n"
    )
    index = ssbhash.HammingIndex(8)
    index.add(np.array([[1], [2]], np.uint8))
    with serving(create_app(index, settings=Settings(items=str(tmp_path / "items.csv")))) as client:
        page = new_page(client, "/?id=1")
        page.wait_for_selector("#results li")
        assert page.locator("#results .text").inner_text() == "<img src=x onerror=alert(1)>"
        assert page.locator("#results img").count() == 0


def test_ids_that_look_like_numbers_may_be_strings(new_page: Any) -> None:
    index = ssbhash.HammingIndex(8)
    index.add(np.array([[1], [2]], np.uint8), ids=["7", "8"])
    with serving(create_app(index)) as client:
        page = new_page(client, "/?id=7")
        page.wait_for_selector("#results li")
        assert page.locator("#results .meta").inner_text() == "id 8"
