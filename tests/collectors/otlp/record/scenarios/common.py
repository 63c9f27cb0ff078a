"""What the scenarios share. They run in a virtual environment of their own, which has the recorded packages only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

CANARY = "canary-do-not-store"
SYSTEM = f"You know the weather. {CANARY}"
USER = f"How is the weather in Paris? {CANARY}"
PROVIDER = os.environ["PROVIDER"]


def exporter_provider(service: str):
    """A TracerProvider that exports to the recorder, as an app would set it up."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource({"service.name": service, "deployment.environment.name": "recording"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{PROVIDER}/v1/traces")))
    return provider


@contextmanager
def swallowing() -> Iterator[None]:
    """For the call that is meant to fail."""
    try:
        yield
    except Exception as error:
        print("failed as meant:", type(error).__name__)
    else:
        raise AssertionError("expected this call to fail")
