"""The methods of the services: from request bytes to an admitted job, and back."""
