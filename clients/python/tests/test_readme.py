"""The example of README.md works as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from conftest import Corpus

README = Path(__file__).parents[1] / "README.md"


def test_the_ten_lines_of_the_readme_run(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found
    code = found.group(1)
    assert len([line for line in code.splitlines() if line]) == 10
    shutil.copy(corpus.image(4), tmp_path / "pa.png")
    monkeypatch.chdir(tmp_path)
    # Its own collection: the other tests count what is in the default one.
    assert 'Client("127.0.0.1:7700")' in code
    code = code.replace('Client("127.0.0.1:7700")', f'Client("{corpus.address}", collection="readme")')
    exec(compile(code, str(README), "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "['created']"
    assert said[1].startswith("case-1 ") and "'age': 63" in said[1]
    assert len(said[2].split(", ")) == 3
    assert said[3] == "Left effusion."
    assert re.fullmatch(r"\(1, \d+\)", said[4])
