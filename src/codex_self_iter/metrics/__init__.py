"""Numbers for machines, in the forms that others read. Needs the extra [metrics]."""

EXTRA = ("metrics", "prometheus_client")
"""For `installed.lack`: the extra, and the module that is missing without it."""
OTLP = ("metrics", "opentelemetry")
"""The same for what `otlp` needs."""
