"""All questions, in the order of the table: importing this asks none of them."""

from __future__ import annotations

from benchmarks import alarms, by_hand, dbos_rival, durable_objects, engine, footprint, hosts, rivals, storage
from benchmarks.measure import REGISTERED

__all__ = ["FILES", "QUESTIONS"]

FILES = (engine, storage, alarms, footprint, hosts, durable_objects, rivals, dbos_rival, by_hand)
QUESTIONS = {
    name: asked for file in FILES for name, asked in REGISTERED.items() if asked.measure.__module__ == file.__name__
}
