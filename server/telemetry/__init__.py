"""Errors to Sentry, traces to OpenTelemetry, where settings say so."""
