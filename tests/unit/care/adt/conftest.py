from __future__ import annotations

import pytest
from ward import CARE, Ward

from engine.care.dispositions import Dispositions, load_dispositions
from engine.yamlfile import parse


@pytest.fixture(scope="session")
def dispositions() -> Dispositions:
    file = CARE / "dispositions.yaml"
    return load_dispositions(parse(file.read_text(), file.name))


@pytest.fixture
def ward(dispositions: Dispositions) -> Ward:
    return Ward(dispositions)
