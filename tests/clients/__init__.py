"""Clients in the languages of other people, built on gRPC's own libraries and our .proto files."""
