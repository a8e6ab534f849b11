"""How fast partyroom is, beside what nothing could be faster than, and beside its rivals.

``python -m benchmarks`` asks every question, or those that are named, and prints one table. Each answer is a ratio of
two things measured in the same run, so that it means something on another machine too.
"""
