"""The stores that the library supplies, each in a module of its own, so that using one never imports another's needs."""

from __future__ import annotations
