"""The chat page in a real browser: two windows talk, see each other, and see the alarm clear the room."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import create_task_group, from_thread

from partyroom.backends.file import FileBackend
from partyroom.backends.memory import MemoryBackend
from partyroom.examples import chat_page
from tests.hosts.driver import ask
from tests.hosts.servers import in_thread, serve

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def selenium(module: str) -> Any:
    """Give a module of what drives a browser, which takes long to import."""
    return import_module(f"selenium.{module}")


@contextmanager
def browser(folder: Path) -> Generator[Any]:
    assert BROWSER is not None
    assert DRIVER is not None
    options = selenium("webdriver").ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=700,600",
    ):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={folder}")
    service = selenium("webdriver.chrome.service").Service(DRIVER)
    with selenium("webdriver").Chrome(options=options, service=service) as driver:
        yield driver


def shown(driver: Any, what: str) -> str:
    return str(driver.find_element("id", what).text)


def wait_for(driver: Any, what: str, expected: str) -> None:
    def is_shown(found: Any) -> bool:
        return expected == shown(found, what)

    wait: Any = selenium("webdriver.support.ui").WebDriverWait(driver, 20, 0.05)
    check: Callable[[Any], bool] = is_shown
    wait.until(check, f"{what} does not show {expected!r}")


def say(driver: Any, text: str) -> None:
    driver.find_element("id", "text").send_keys(text + "\n")


def scenario(port: int, folder: Path) -> None:
    with browser(folder / "profile") as driver:
        address = f"http://127.0.0.1:{port}/?room=cats%20%26%20dogs&name="
        driver.get(address + "ann")
        wait_for(driver, "people", "Here: ann")
        ann = driver.current_window_handle
        driver.switch_to.new_window("window")
        bob = driver.current_window_handle
        driver.get(address + "bob")
        wait_for(driver, "people", "Here: ann, bob")
        say(driver, "hello <b>Ann</b>")
        wait_for(driver, "log", "bob: hello <b>Ann</b>")
        driver.switch_to.window(ann)
        wait_for(driver, "people", "Here: ann, bob")
        say(driver, "hello Bob")
        wait_for(driver, "log", "bob: hello <b>Ann</b>\nann: hello Bob")
        assert "cats & dogs" == shown(driver, "room")
        assert driver.save_screenshot(str(folder / "chat.png"))
        wait_for(driver, "log", "The room was cleared.")
        driver.switch_to.window(bob)
        wait_for(driver, "log", "The room was cleared.")
        driver.close()
        driver.switch_to.window(ann)
        wait_for(driver, "people", "Here: ann")


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="there is no chromium with its chromedriver")
async def test_two_windows_chat_see_each_other_and_see_the_room_cleared(tmp_path: Path) -> None:
    app = chat_page.create_app(MemoryBackend(), clear_after=timedelta(seconds=3))
    async with serve("uvicorn", app) as port:
        await in_thread(scenario, port, tmp_path)


def retype(port: int, folder: Path, go_down: Callable[[], None], come_up: Callable[[], None]) -> None:
    """Be in the middle of a word when the server goes away."""
    with browser(folder / "profile") as driver:
        driver.get(f"http://127.0.0.1:{port}/?name=ann")
        wait_for(driver, "people", "Here: ann")
        say(driver, "first")
        wait_for(driver, "log", "ann: first")
        field = driver.find_element("id", "text")
        field.send_keys("half a th")
        go_down()
        wait_for(driver, "people", "Connecting again…")
        field.send_keys("ought\n")
        assert "half a thought" == field.get_property("value"), "it could not be sent, so it stays"
        come_up()
        wait_for(driver, "people", "Here: ann")
        wait_for(driver, "log", "ann: first")
        assert "half a thought" == field.get_property("value")
        field.send_keys("\n")
        wait_for(driver, "log", "ann: first\nann: half a thought")
        assert not field.get_property("value")


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="there is no chromium with its chromedriver")
async def test_what_was_typed_stays_while_the_page_connects_again(tmp_path: Path) -> None:
    down, up, over = anyio.Event(), anyio.Event(), anyio.Event()

    async def look() -> None:
        try:
            await in_thread(
                retype, port, tmp_path, partial(from_thread.run_sync, down.set), partial(from_thread.run_sync, up.set)
            )
        finally:
            for each in (down, up, over):
                each.set()

    async with create_task_group() as tasks:
        async with serve("uvicorn", chat_page.create_app(FileBackend(tmp_path / "rooms.db"))) as port:
            tasks.start_soon(look)
            await down.wait()
        await up.wait()
        async with serve("uvicorn", chat_page.create_app(FileBackend(tmp_path / "rooms.db")), port):
            await over.wait()


@pytest.mark.anyio
async def test_the_page_stands_at_the_root() -> None:
    answer = await ask(chat_page.create_app(MemoryBackend()), "GET", "/")
    assert (200, chat_page.PAGE) == (answer.status, answer.body.decode())


def test_it_is_served_by_uvicorn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    served: list[Any] = []

    def run(app: object, **options: object) -> None:
        served.append((app, options))

    monkeypatch.setattr("uvicorn.run", run)
    runpy.run_path(str(chat_page.__file__), run_name="__main__")
    assert [{"port": 8000, "log_level": "warning"}] == [options for _, options in served]
    assert "http://127.0.0.1:8000/" in capsys.readouterr().out
