"""The demonstration: the whole service, and a fictitious company around it on loopback.

    world   the company's app, the OpenRouter it calls, the Slack it reads; each a process of its own
    seed    what an administrator would have typed in: project, token, account, channel, budget
    tour    what there is to see, each sentence checked against the world that made it

Invariant: the calls, statements and messages take the same way through the same code as a customer's; nothing is
written into a table to be shown. The company is made from tests/fakes, so the demo runs from a checkout only.
"""
