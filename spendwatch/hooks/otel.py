"""Zero code: `opentelemetry-instrument python app.py` finds spendwatch by the entry point that names this.

Imported by that command only, which brings opentelemetry-instrumentation along.
"""

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

import spendwatch


class SpendwatchInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """instrument() and uninstrument() in the shape that OpenTelemetry's launcher expects."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: a client that is not there is waited for."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:  # noqa: ARG002
        spendwatch.instrument()

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002
        spendwatch.uninstrument()
