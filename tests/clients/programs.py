"""How the client of each language is built, with what the system's packages bring."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2

from tests.conformance.tools import NODE_MODULES, require

HERE = Path(__file__).parent
PROTO = HERE.parents[1] / "proto"
OIP = ("inferd/oip/v2/inference.proto", "inferd/oip/v2/model_config.proto")
HEALTH = "grpc_health/v1/health.proto"
GO_PACKAGES = Path("/usr/share/gocode")
JARS = Path("/usr/share/java")
JAVA_LIBRARIES = (
    *("grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-protobuf", "grpc-protobuf-lite"),
    *("grpc-stub", "protobuf", "guava", "perfmark-api", "gson", "geronimo-annotation-1.3-spec"),
    *("netty-buffer", "netty-codec", "netty-codec-http", "netty-codec-http2", "netty-common"),
    *("netty-handler", "netty-resolver", "netty-transport", "netty-transport-native-unix-common"),
    "netty-tcnative",
)
MACHINE = sysconfig.get_config_var("MULTIARCH") or ""
TCNATIVE = Path("/usr/lib") / MACHINE / "jni/libnetty-tcnative.so"
"""Without it Debian's netty cannot agree on HTTP/2 over TLS."""
BUILD_TIMEOUT = 300.0


@dataclass(frozen=True)
class Program:
    """A client that is ready to be started."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def needs(reason: str, *paths: Path | str) -> None:
    """Skip the test where a file is missing, or a program that is named without a folder."""
    for path in paths:
        there = path.exists() if isinstance(path, Path) else shutil.which(path) is not None
        if not there:
            pytest.skip(f"no {path}: apt-get install {reason}")


def ran(*command: str | Path, **environment: str) -> None:
    """Run a step of a build.

    Raises:
        AssertionError: it failed; the text is what it said.
    """
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def health_descriptors(folder: Path) -> Path:
    """Write what describes grpc.health.v1, whose .proto file no package brings."""
    described = descriptor_pb2.FileDescriptorSet()
    health_pb2.DESCRIPTOR.CopyToProto(described.file.add())
    path = folder / "health.pb"
    path.write_bytes(described.SerializeToString())
    return path


def generate(folder: Path, *flags: str, health: bool = True) -> None:
    """Generate the stubs of a language into a folder."""
    ran("protoc", f"-I{PROTO}", *flags, *OIP)
    if health:
        ran("protoc", f"--descriptor_set_in={health_descriptors(folder)}", *flags, HEALTH)


def build_cpp(folder: Path) -> Program:
    """Compile and link against the shared libraries, without optimising."""
    packages = "g++ pkg-config libgrpc++-dev protobuf-compiler protobuf-compiler-grpc"
    needs(packages, "g++", "pkg-config", "protoc", "grpc_cpp_plugin", Path("/usr/include/grpcpp"))
    plugin = f"--plugin=protoc-gen-grpc={shutil.which('grpc_cpp_plugin')}"
    generate(folder, f"--cpp_out={folder}", f"--grpc_out={folder}", plugin)
    libraries = subprocess.run(
        ["pkg-config", "--libs", "grpc++", "protobuf"], capture_output=True, text=True, check=True
    ).stdout.split()
    sources = sorted(folder.rglob("*.cc"))
    binary = folder / "client"
    compiler = ("g++", "-std=c++17", "-O0", f"-I{folder}", "-o", binary)
    ran(*compiler, HERE / "cpp/client.cc", *sources, *libraries)
    return Program([str(binary)])


def build_go(folder: Path) -> Program:
    """Build in GOPATH mode, because Debian's packages are no modules."""
    packages = "golang-go golang-google-grpc-dev golang-goprotobuf-dev protobuf-compiler"
    needs(packages, "go", "protoc", "protoc-gen-go", GO_PACKAGES / "src/google.golang.org/grpc")
    sources = folder / "src"
    (sources / "client").mkdir(parents=True)
    shutil.copy(HERE / "go/client.go", sources / "client")
    options = ["plugins=grpc", "paths=source_relative", *(f"M{name}=inferd/oip/v2" for name in OIP)]
    generate(folder, f"--go_out={','.join(options)}:{sources}", health=False)
    binary = folder / "client"
    ran(
        *("go", "build", "-o", binary, "client"),
        GO111MODULE="off",
        GOPATH=f"{folder}:{GO_PACKAGES}",
        GOCACHE=str(folder / "cache"),
    )
    return Program([str(binary)])


def build_java(folder: Path) -> Program:
    """Compile against the system's jars."""
    packages = (
        "default-jdk-headless libgrpc-java libnetty-java libperfmark-java libgoogle-gson-java "
        "libgeronimo-annotation-1.3-spec-java libnetty-tcnative-java protobuf-compiler "
        "protobuf-compiler-grpc-java-plugin"
    )
    jars = [JARS / f"{name}.jar" for name in JAVA_LIBRARIES]
    needs(packages, "javac", "java", "protoc", "grpc_java_plugin", TCNATIVE, *jars)
    plugin = f"--plugin=protoc-gen-grpc={shutil.which('grpc_java_plugin')}"
    generate(folder, f"--java_out={folder}", f"--grpc_out={folder}", plugin)
    classes = folder / "classes"
    path = ":".join(map(str, jars))
    sources = sorted(folder.rglob("*.java"))
    ran("javac", "-nowarn", "-d", classes, "-cp", path, *sources, HERE / "java/Client.java")
    # Netty looks for it by this name, and Debian has it by another.
    shutil.copy(TCNATIVE, folder / "libnetty_tcnative.so")
    java = ("java", f"-Djava.library.path={folder}")
    return Program([*java, "-cp", f"{classes}:{path}", "Client"])


def build_node(folder: Path) -> Program:
    """Nothing is built: the contract is read from our .proto files."""
    needs("nodejs", "node")
    environment = {
        "NODE_PATH": str(require(NODE_MODULES)),
        "HEALTH_DESCRIPTORS": str(health_descriptors(folder)),
    }
    return Program(["node", str(HERE / "node/client.js")], environment)


BUILDERS: Mapping[str, Callable[[Path], Program]] = {
    "cpp": build_cpp,
    "go": build_go,
    "java": build_java,
    "node": build_node,
}
