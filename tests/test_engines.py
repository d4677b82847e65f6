"""Which engine and which instruction set run, and what happens without them."""

import os
import subprocess
import sys
import textwrap
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import ssbhash
from ssbhash.config import config
from ssbhash.engines import available, get, native_module

needs_native = pytest.mark.skipif(native_module() is None, reason="no native engine here")


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


NO_EXTENSION = """
    import sys
    sys.modules["ssbhash._core"] = None  # importing it fails, as where it was not built
    import numpy as np, ssbhash
    codes = np.arange(40, dtype=np.uint8).reshape(20, 2)
    for _ in range(2):
        print(ssbhash.search(codes, codes[3], 1).ids.tolist())
    print(ssbhash.backends())
"""


def test_without_the_extension_another_engine_serves_and_says_so_once() -> None:
    done = run_python(NO_EXTENSION, SSBHASH_BACKEND="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["[3]", "[3]"]
    assert "native" not in done.stdout.splitlines()[2]
    assert done.stderr.count("ssbhash's native engine is absent") == 1


def test_a_chosen_engine_is_no_cause_for_a_warning() -> None:
    done = run_python(NO_EXTENSION, SSBHASH_BACKEND="reference")
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_missing_engine_is_named() -> None:
    done = run_python(
        """
        import sys
        sys.modules["ssbhash._core"] = None
        import numpy as np, ssbhash
        codes = np.zeros((1, 1), np.uint8)
        ssbhash.search(codes, codes, 1, backend="native")
        """
    )
    assert "backend 'native' needs ssbhash._core, which is not installed" in done.stderr


def test_a_source_folder_without_the_engine_points_to_the_installed_one(tmp_path: Path) -> None:
    information = tmp_path / "ssbhash-0.1.0.dist-info" / "METADATA"
    information.parent.mkdir()
    information.write_text("Metadata-Version: 2.1\nName: ssbhash\nVersion: 0.1.0\n")
    engine = tmp_path / "ssbhash" / f"_core{EXTENSION_SUFFIXES[0]}"
    engine.parent.mkdir()
    engine.touch()
    place = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    shown = "sys.modules['ssbhash._core'] = None; ssbhash.show_config()"
    for program in (NO_EXTENSION, f"import sys, ssbhash; {shown}"):
        done = run_python(program, SSBHASH_BACKEND="", PYTHONPATH=place)
        message = f"hides the ssbhash that is installed in {tmp_path.resolve()} with its engine"
        assert message in done.stderr + done.stdout
        assert "start Python in another folder" in done.stderr + done.stdout


def test_import_needs_numpy_alone() -> None:
    done = run_python(
        """
        import sys, ssbhash, numpy as np
        codes = np.zeros((10, 4), np.uint8)
        ssbhash.search(codes, codes[0], 2)
        heavy = {"torch", "numba", "faiss", "scipy", "sklearn"} & set(sys.modules)
        assert not heavy or ssbhash.backends()[0] == "numba", heavy
        """
    )
    assert done.returncode == 0, done.stderr


def test_config_names_engines(capsys: pytest.CaptureFixture[str]) -> None:
    assert config()["engines"] == list(available())
    assert config()["version"] == ssbhash.__version__
    ssbhash.show_config()
    assert "engines" in capsys.readouterr().out


@needs_native
@pytest.mark.parametrize("isa", config()["isas"] or [])
def test_forced_instruction_set_is_active(isa: str) -> None:
    done = run_python("from ssbhash.config import config; print(config()['isa'])", SSBHASH_ISA=isa)
    assert done.stdout.strip() == isa


@needs_native
def test_unknown_instruction_set_is_refused() -> None:
    done = run_python("from ssbhash.config import config; config()", SSBHASH_ISA="mmx")
    assert "SSBHASH_ISA must be one of" in done.stderr
    assert "baseline" in done.stderr


def test_environment_chooses_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSBHASH_BACKEND", "reference")
    assert get("auto").__name__ == "ssbhash.engines.reference"
    monkeypatch.setenv("SSBHASH_BACKEND", "nothing")
    with pytest.raises(ValueError, match="backend must be one of"):
        get("auto")
