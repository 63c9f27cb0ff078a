"""What calls cost: dated prices, and the valuation of a call with them.

`value(call, book)` is pure and exact. Books come from the packaged files (`packaged()`), and on the server from
OpenRouter's own price documents as well. Never here: fetching.
"""

from spendwatch.prices.book import PriceBook
from spendwatch.prices.packaged import packaged
from spendwatch.prices.value import value

__all__ = ["PriceBook", "packaged", "value"]
