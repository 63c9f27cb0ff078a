"""Facts of the past, brought in once: files of calls, and a table that an OpenTelemetry Collector wrote."""
