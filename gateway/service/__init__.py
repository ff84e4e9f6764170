"""The service: every job goes in and out here."""
