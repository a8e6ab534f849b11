"""Pages that count their links, and links that ask the page they are on: two parties that call each other in a cycle.

Shows that a call which comes back along its own chain is let in: it is part of the event that waits, and cannot
deadlock with it.

    python -m partyroom.examples.link_counter
"""

from __future__ import annotations

import anyio

from partyroom import Room
from partyroom.testing import Harness


class Page(Room):
    """One page."""

    async def follow(self, target: str) -> str:
        """Follow a link; give what it says of itself."""
        clicks = await self.ctx.storage.get("clicks", 0) + 1
        await self.ctx.storage.put("clicks", clicks)
        return await self.ctx.parties["link"].get(target).call(Link.click, self.ctx.id)

    async def describe(self) -> str:
        """Say how often links of this page were followed, the one that is being followed included."""
        return f"{self.ctx.id} with {await self.ctx.storage.get('clicks', 0)} clicks"


class Link(Room):
    """One address that pages link to."""

    async def click(self, page: str) -> str:
        """Count a click, and ask the page, which is waiting for this very call, to describe itself."""
        count = await self.ctx.storage.get("count", 0) + 1
        await self.ctx.storage.put("count", count)
        return f"{self.ctx.id}: {count}, last from {await self.ctx.parties['page'].get(page).call(Page.describe)}"


async def main() -> None:
    """Follow links from two pages."""
    async with Harness({"page": Page, "link": Link}) as harness:
        for page in ("home", "home", "about"):
            print(await harness.parties["page"].get(page).call(Page.follow, "example.org"))


if __name__ == "__main__":
    anyio.run(main)
