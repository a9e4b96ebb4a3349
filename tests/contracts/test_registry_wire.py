"""The registry's messages: pullers of today must understand registries of later years, and the other way round."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from brainunet.registry import registry_pb2
from brainunet.registry.registry_pb2_grpc import RegistryServicer

ROOT = Path(__file__).resolve().parents[2]
PROTO = "brainunet/registry/registry.proto"

# Message -> its fields by number. A number is never given to another field; new ones are added.
FIELDS = {
    "ListRequest": {},
    "ListReply": {1: "federation", 2: "releases"},
    "Release": {
        1: "name",
        2: "run",
        3: "round",
        4: "size_bytes",
        5: "sha256",
        6: "weights_sha256",
        7: "published_at",
        8: "notes",
        9: "withdrawn",
        10: "withdrawn_reason",
    },
    "DescribeRequest": {1: "name"},
    "Description": {1: "release", 2: "card", 3: "signature"},
    "DownloadRequest": {1: "name", 2: "offset", 3: "sha256"},
    "Chunk": {1: "offset", 2: "data"},
}


def test_the_fields_of_the_messages_keep_their_numbers() -> None:
    messages = registry_pb2.DESCRIPTOR.message_types_by_name

    assert registry_pb2.DESCRIPTOR.package == "brainunet.registry.v1"
    assert {name: {field.number: field.name for field in message.fields} for name, message in messages.items()} == FIELDS


def test_the_service_has_three_methods_of_which_one_streams() -> None:
    service = registry_pb2.DESCRIPTOR.services_by_name["Registry"]

    told = {method.name: (method.client_streaming, method.server_streaming) for method in service.methods}
    assert told == {"List": (False, False), "Describe": (False, False), "Download": (False, True)}
    assert set(told) == {name for name in vars(RegistryServicer) if name[0].isupper()}


def test_the_committed_stubs_are_those_of_the_proto(tmp_path: Path) -> None:
    if find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed: only who changes the protocol needs it")
    made = tmp_path / "registry.descriptor"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT}", f"--descriptor_set_out={made}", PROTO]
    subprocess.run(command, check=True, cwd=tmp_path)

    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

    (file,) = FileDescriptorSet.FromString(made.read_bytes()).file
    for message in file.message_type:
        for one in message.field:
            one.ClearField("json_name")  # which the stubs leave to be worked out from the name
    committed = FileDescriptorProto.FromString(registry_pb2.DESCRIPTOR.serialized_pb)
    assert committed == file


def test_a_message_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    unknown_field = b"\x9a\x06\x03new"  # number 99
    release = registry_pb2.Release.FromString(registry_pb2.Release(name="v1").SerializeToString() + unknown_field)

    assert release.name == "v1"
