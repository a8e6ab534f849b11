"""Decisions without effects: synchronous objects that are told what happened and say what is to be done.

Owns the rules of the library: keys and ranges, what an event has written, what a room knows of its store, when an
alarm rings again.

Promises that time and randomness are arguments here, so that every rule can be tested by the thousand.

Must never await, read a clock, roll a die, log, or import anyio.
"""
