"""A JSON workload: nested objects are built, written and read back, several times over.

usage: json_work.py [ROUNDS]

Deterministic; with PYTHONMALLOC=malloc every object is a call of malloc. Prints a digest.
"""

import json
import sys
import zlib


def numbers(state):
    """A 32-bit xorshift generator."""
    while True:
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        yield state


def record(source, depth):
    kind = next(source) % 8
    if depth == 0 or kind < 3:
        value = next(source)
        return [value, value / 7, "name-%d" % value, value % 2 == 0, None, "x" * (value % 60)][kind % 6]
    if kind < 6:
        return {"key%d" % (next(source) % 500): record(source, depth - 1) for _ in range(next(source) % 9)}
    return [record(source, depth - 1) for _ in range(next(source) % 9)]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    source = numbers(20080714)
    digest = 0
    for turn in range(rounds):
        table = {"turn": turn, "rows": [record(source, 5) for _ in range(800)]}
        text = json.dumps(table, sort_keys=True)
        back = json.loads(text)
        assert back == json.loads(json.dumps(back, indent=1)), "a round trip changed the data"
        words = sorted(set(text.replace('"', " ").split()))
        digest = zlib.crc32(" ".join(words).encode(), zlib.crc32(text.encode(), digest))
    print("rounds %d digest %08x" % (rounds, digest))


if __name__ == "__main__":
    main()
