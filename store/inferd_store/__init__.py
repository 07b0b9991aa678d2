"""The store of models as releases: versions, labels, the audit log, and what servers follow."""
