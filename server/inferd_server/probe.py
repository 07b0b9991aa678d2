"""`python -m inferd_server.probe`: ask a server for its health; the exit code answers.

In plaintext: of a server with TLS it asks the port for probes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2

from inferd_server.address import join_address

# A pod's proxy settings are not meant for a look at the pod itself.
OPTIONS = (("grpc.enable_http_proxy", 0),)
METHOD = "/grpc.health.v1.Health/Check"


def probe(address: str, service: str, timeout: float) -> str:
    """Return the status of a service, such as "SERVING", or the code of the failed call."""
    with grpc.insecure_channel(address, OPTIONS) as channel:
        check = channel.unary_unary(
            METHOD,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def default_port(environment: Mapping[str, str]) -> int:
    """Return the port where a server with these settings in its environment answers probes."""
    for name in ("INFERD_PROBE_PORT", "INFERD_GRPC_PORT"):
        text = environment.get(name, "")
        if text.isdecimal() and int(text):
            return int(text)
    return 8001


def main(arguments: list[str] | None = None) -> int:
    """Parse the flags, probe, and return 0 for SERVING."""
    parser = argparse.ArgumentParser("python -m inferd_server.probe", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--port",
        type=int,
        default=default_port(os.environ),
        help="INFERD_PROBE_PORT sets it, else INFERD_GRPC_PORT (default: %(default)s)",
    )
    parser.add_argument("--service", default="", help="empty: the server as a whole")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds")
    given = parser.parse_args(arguments)
    status = probe(join_address(given.host, given.port), given.service, given.timeout)
    sys.stdout.write(f"{status}\n")
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
