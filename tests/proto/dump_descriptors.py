"""Prints tritonclient's descriptors, for its own environment: a FileDescriptorSet in base64."""

from __future__ import annotations

import base64
import sys

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import model_config_pb2, service_pb2


def descriptors() -> FileDescriptorSet:
    """Return the files of the service and of the model configuration."""
    found = FileDescriptorSet()
    for module in (service_pb2, model_config_pb2):
        module.DESCRIPTOR.CopyToProto(found.file.add())
    return found


if __name__ == "__main__":
    sys.stdout.write(base64.b64encode(descriptors().SerializeToString()).decode())
