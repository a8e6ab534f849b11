"""A web page in which several windows chat in a room, see who is there, and see an alarm clear the room.

Shows rooms mounted around a Starlette application and served by uvicorn; plain HTML and JavaScript, no build step. Open
it in two windows; a minute after the last word the room is cleared. Needs the packages starlette, uvicorn and websockets.

    python -m partyroom.examples.chat_page
"""

from __future__ import annotations

import json
from datetime import timedelta

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from typing_extensions import override

from partyroom import Alarm, Connection, Room, RoomContext, Runtime, StorageBackend
from partyroom.asgi import PartyApp
from partyroom.backends.memory import MemoryBackend

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><title>partyroom chat</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
  h1 { font-size: 1.3rem } #people { color: #666 } #people b { color: #0a6 }
  #log { border: 1px solid #ccc; border-radius: .5rem; min-height: 12rem; padding: .5rem 1rem; list-style: none }
  #log .note { color: #999; font-style: italic }
  form { display: flex; gap: .5rem } input { flex: 1 } input, button { font: inherit; padding: .4rem .6rem }
</style>
<h1>Room <span id="room"></span></h1>
<p id="people">Nobody is here yet.</p>
<ul id="log"></ul>
<form><input id="text" placeholder="Say something" autocomplete="off" autofocus><button>Send</button></form>
<script>
  const query = new URLSearchParams(location.search);
  const room = query.get("room") || "lobby";
  const name = query.get("name") || "guest-" + Math.floor(Math.random() * 1000);
  const log = document.getElementById("log"), people = document.getElementById("people");
  document.getElementById("room").textContent = room;
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const address = `${scheme}//${location.host}/parties/chat/${encodeURIComponent(room)}?_pk=${encodeURIComponent(name)}`;
  let socket;
  function line(text, kind) {
    const item = document.createElement("li");
    item.textContent = text;
    item.className = kind;
    log.append(item);
  }
  function connect() {
    socket = new WebSocket(address);
    socket.onopen = () => log.replaceChildren();
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.people) people.textContent = "Here: " + message.people.join(", ");
      if (message.text) line(`${message.from}: ${message.text}`, "said");
      if (message.cleared) { log.replaceChildren(); line("The room was cleared.", "note"); }
    };
    socket.onclose = () => { people.textContent = "Connecting again…"; setTimeout(connect, 1000); };
  }
  document.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    const text = document.getElementById("text");
    if (!text.value || socket.readyState !== WebSocket.OPEN) return;  // what was typed stays until it can be sent
    socket.send(text.value);
    text.value = "";
  };
  connect();
</script>
</html>
"""


class Chat(Room):
    """One chat, whose alarm clears it when nobody has said anything for a while."""

    hibernate = True

    @override
    def __init__(self, ctx: RoomContext, clear_after: timedelta) -> None:
        super().__init__(ctx)
        self.clear_after = clear_after

    async def on_connect(self, connection: Connection) -> None:
        for said in (await self.ctx.storage.list(prefix="said:")).values():
            connection.send(said)
        self.tell_who_is_here()

    async def on_message(self, message: str | bytes, sender: Connection) -> None:
        said = json.dumps({"from": sender.id, "text": str(message)})
        count = await self.ctx.storage.get("count", 0)
        await self.ctx.storage.put_many({"count": count + 1, f"said:{count:09}": said})
        await self.ctx.storage.set_alarm(self.clear_after)
        self.ctx.broadcast(said)

    @override
    async def on_close(self, connection: Connection, code: int, reason: str, was_clean: bool) -> None:
        self.tell_who_is_here()

    async def on_alarm(self, alarm: Alarm) -> None:
        await self.ctx.storage.delete_all()
        self.ctx.broadcast(json.dumps({"cleared": True}))

    def tell_who_is_here(self) -> None:
        """Tell everybody who is here."""
        people = sorted({connection.id for connection in self.ctx.get_connections()})
        self.ctx.broadcast(json.dumps({"people": people}))


async def page(_request: Request) -> HTMLResponse:
    """Show the page."""
    return HTMLResponse(PAGE)


def create_app(backend: StorageBackend, clear_after: timedelta = timedelta(minutes=1)) -> PartyApp:
    """Make the application: rooms around a page."""
    runtime = Runtime({"chat": lambda ctx: Chat(ctx, clear_after)}, backend=backend)
    return PartyApp(runtime, app=Starlette(routes=[Route("/", page)]))


def main() -> None:
    """Serve the page."""
    print("Open http://127.0.0.1:8000/?name=ann and http://127.0.0.1:8000/?name=bob")
    uvicorn.run(create_app(MemoryBackend()), port=8000, log_level="warning")


if __name__ == "__main__":
    main()
