"""Token counts of one call: the two totals include their parts."""

import msgspec


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """prompt includes cached (reads) and cache_write, which includes cache_write_1h; completion includes reasoning."""

    prompt: int
    completion: int
    cached: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
