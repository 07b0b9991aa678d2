"""Open Request Cost Aggregation: load reports of xDS."""
