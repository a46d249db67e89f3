"""Publishes as OpenTelemetry spans. Imported only where somebody follows."""
