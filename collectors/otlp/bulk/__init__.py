"""Many spans at once: the same calls as the general way (collectors.otlp.call) makes of them, as finished columns."""
