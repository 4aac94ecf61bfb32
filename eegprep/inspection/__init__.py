"""What a person asks of a store or an installation: describe, verify, report, doctor."""
