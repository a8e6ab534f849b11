"""Stateful rooms for any Python program: one event at a time, durable state, and alarms that wake them."""
from partyroom.errors import *
from partyroom.types import *
from partyroom.protocols import *
from partyroom.clock import SystemClock
from partyroom.codec import JsonCodec
from partyroom.runtime import Runtime
