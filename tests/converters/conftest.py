"""Converted networks that several tests look at, made once."""

from __future__ import annotations

import functools

import pytest

from bssl_tf_converters.lce.deployable import with_classifier
from bssl_tf_converters.lce.export import Converted, convert_model
from tests.converters.networks import backbone, embedded_images, random_probe


@functools.cache
def student(image_size: int, channels: int) -> Converted:
    """A binary_resnet and a random probe, converted and compared on 200 embedded images."""
    model = backbone(image_size, channels)
    images = embedded_images(image_size, channels, 200)
    return convert_model(with_classifier(model, *random_probe(model, images, 10)), images, "arm64")


@pytest.fixture(scope="session", params=[(28, 1), (32, 3)], ids=["28px-grey", "32px-rgb"])
def converted(request: pytest.FixtureRequest) -> Converted:
    """A small network of each kind."""
    return student(*request.param)


@pytest.fixture(scope="session")
def grey() -> Converted:
    """The one for 28 px grey."""
    return student(28, 1)


@pytest.fixture(scope="session")
def flatbuffer(grey: Converted) -> bytes:
    """A small real LCE model."""
    return grey.model
