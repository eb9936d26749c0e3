"""The build backend: setuptools, after the protocol's descriptor was made from client/proto.

A descriptor is data, not generated code: any protoc writes the same bytes, and any protobuf runtime
reads them. So a wheel is bound to no protobuf version, which *_pb2.py files would be. A source
distribution holds the descriptor and needs no protoc.
"""

import os
import shutil
import subprocess
import sys

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403: the hooks that are not replaced below

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROTO = os.path.join(os.path.dirname(HERE), "proto")
TARGET = os.path.join(HERE, "src", "corpusd", "protocol.desc")


def _in_checkout():
    return os.path.isdir(PROTO)


def _requirements():
    return ["grpcio-tools"] if _in_checkout() and shutil.which("protoc") is None else []


def _make_descriptor():
    if not _in_checkout():
        return
    compiler = ["protoc"]
    if shutil.which("protoc") is None:
        compiler = [sys.executable, "-m", "grpc_tools.protoc"]
    subprocess.run([*compiler, f"--proto_path={PROTO}", "--include_imports",
                    f"--descriptor_set_out={TARGET}", "corpusd/v1/corpusd.proto"], check=True)


def get_requires_for_build_wheel(config_settings=None):
    return build_meta.get_requires_for_build_wheel(config_settings) + _requirements()


def get_requires_for_build_sdist(config_settings=None):
    return build_meta.get_requires_for_build_sdist(config_settings) + _requirements()


def get_requires_for_build_editable(config_settings=None):
    return build_meta.get_requires_for_build_editable(config_settings) + _requirements()


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    _make_descriptor()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    _make_descriptor()
    return build_meta.build_sdist(sdist_directory, config_settings)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    _make_descriptor()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
