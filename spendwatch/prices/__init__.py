"""What calls cost: dated prices, and the valuation of a call with them.

`value(call, book)` is pure and exact; a `Lister` gives the part of it that an observer needs for every call. Books come
from the packaged files (`packaged()`), and on the server from OpenRouter's own price documents as well. Never here:
fetching.
"""

from spendwatch.prices.book import PriceBook
from spendwatch.prices.listing import Lister
from spendwatch.prices.packaged import packaged
from spendwatch.prices.value import value

__all__ = ["Lister", "PriceBook", "packaged", "value"]
