"""The stratum-0 agent: from notification to published layer."""
