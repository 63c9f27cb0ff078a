"""Larkfield Books: a fictitious company whose agents call LLM providers through the real SDKs.

`python -m tests.fakes.company --openrouter URL` is its app: an ordinary program with one added line,
spendwatch.instrument(). The providers it calls are on loopback; everything else is as a customer's.
"""
