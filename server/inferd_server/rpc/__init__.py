"""The methods of the services."""
