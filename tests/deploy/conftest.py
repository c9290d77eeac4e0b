"""A real network in a bundle, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bssl_tf.data.load import load_data
from bssl_tf.data.preprocessing import evaluation_views, fit_preprocessing
from bssl_tf_deploy.library import host_target, library_for
from bssl_tf_deploy.manifest import Preprocessing
from tests.converters.networks import backbone, random_probe
from tests.deploy.bundles import write_real


@pytest.fixture(scope="session")
def real_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For this machine, with the runtime library in it. Not to be changed."""
    from bssl_tf_converters.lce.deployable import with_classifier
    from bssl_tf_converters.lce.export import convert_model

    pictures = load_data("embedded", image_size=28, limit=64).test
    assert pictures is not None
    host = fit_preprocessing(pictures, 28)
    images = evaluation_views(pictures, host, np.arange(len(pictures)))
    model = backbone(28, 1)
    converted = convert_model(with_classifier(model, *random_probe(model, images, 10)), images, host_target())
    library = library_for(host_target())
    out = tmp_path_factory.mktemp("real") / "bundle"
    return write_real(out, converted, Preprocessing(28, 28, 1, host.mean, host.std), library.content)
