"""The client's sub-commands of `inferd`, one module each."""
