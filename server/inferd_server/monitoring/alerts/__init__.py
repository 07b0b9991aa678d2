"""Alerts: rules over metrics, and who is told."""
