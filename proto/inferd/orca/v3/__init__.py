"""Version 3 of the load reports of xDS."""
