"""Wire formats: what LLM providers' HTTP exchanges say about tokens, cost and outcome.

`recognise` decides by host, path and body shape which format an exchange speaks; the format's reader is fed the bytes
of the reply as they pass and gives one Reply at the end. Pure: the same bytes give the same Reply in any split, no
bytes make a reader raise, and nothing of the content outlives the exchange. Never here: network, prices, spans.
"""

from spendwatch.wire.formats import may_be_call, recognise
from spendwatch.wire.reader import Reader, WireFormat
from spendwatch.wire.reply import Reply, Request

__all__ = ["Reader", "Reply", "Request", "WireFormat", "may_be_call", "recognise"]
