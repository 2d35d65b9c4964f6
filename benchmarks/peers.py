"""The quantizers that are compared: each in an environment of its own, pinned, made when needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import CACHE, ROOT, Case


@dataclass(frozen=True)
class Peer:
    """`worker` is a module of benchmarks/workers; without requirements it runs in this venv."""

    name: str
    worker: str
    configs: Mapping[str, dict[str, Any]]
    requirements: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def python(self) -> str:
        """The interpreter that has this peer, installed on first use."""
        if not self.requirements:
            return sys.executable
        folder = CACHE / "peers" / self.name
        python = folder / "bin" / "python"
        stamp = folder / "requirements.txt"
        wanted = "\n".join(self.requirements)
        if not stamp.exists() or stamp.read_text() != wanted:
            venv.create(folder, with_pip=True, clear=True)
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, *self.requirements], check=True)
            stamp.write_text(wanted)
        return str(python)


ORT = ("onnx==1.23.2", "onnxruntime==1.32.0")
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "ptqc",
            "ptqc",
            {
                "w8a8": {"recipe": "w8a8"},
                "w8a8_more_float": {"recipe": "w8a8{share=0.3,enough=40}"},
                "w8a8_smooth": {"recipe": "w8a8_smooth"},
                "w8a8_dynamic": {"recipe": "w8a8_dynamic"},
                "smoothquant": {"recipe": "smoothquant"},
                "smoothquant_dynamic": {"recipe": "smoothquant_dynamic"},
                "os_plus": {"recipe": "os_plus"},
                "crossquant": {"recipe": "crossquant"},
                "pre_shift": {"recipe": "pre_shift"},
                "clean": {"recipe": "clean", "float": True},
                "clean_unchecked": {"recipe": "clean", "float": True, "unchecked": True},
            },
        ),
        Peer(
            "ort",
            "ort",
            {
                "s8s8": {"activation": "QInt8", "weight": "QInt8"},
                "u8u8": {"activation": "QUInt8", "weight": "QUInt8"},
                "u8s8_reduced": {"activation": "QUInt8", "weight": "QInt8", "reduce_range": True},
                "u8s8_conv_matmul": {
                    "activation": "QUInt8",
                    "weight": "QInt8",
                    "ops": ["Conv", "MatMul", "Gemm"],
                },
                "dynamic": {"dynamic": True},
                "dynamic_per_channel": {"dynamic": True, "per_channel": True},
                "basic": {"clean": True},
            },
        ),
        Peer(
            "nncf",
            "nncf",
            {"default": {}, "transformer": {"transformer": True}},
            ("nncf==3.4.0", "openvino==2026.4.1", "torch==2.13.0", *ORT),
        ),
        Peer(
            "onnxsim",
            "onnxsim",
            {
                "static": {},
                "static_mse": {"method": "mse"},
                "dynamic": {"dynamic": True},
                "simplify": {"simplify_only": True},
            },
            ("onnxsim==0.8.1", *ORT),
        ),
        Peer("onnxslim", "onnxslim", {"slim": {}}, ("onnxslim==0.1.98", *ORT)),
        Peer(
            "onnx-quantize",
            "onnx_quantize",
            {"static": {}, "dynamic": {"dynamic": True}},
            ("onnx-quantize==0.2.0", "onnxscript==0.5.7", "onnxruntime==1.32.0"),
        ),
    )
}


class Failed(Exception):
    """The last line that a script wrote before it failed."""


def quantize(
    peer: Peer, config: str, case: Case, out: Path, timeout: float, data: Path | None = None
) -> dict[str, Any]:
    """Runs one worker; returns its costs (see workers/protocol.py). Raises Failed.

    data: a file of feeds in place of the case's calibration.
    """
    options = json.dumps(peer.configs[config])
    module = f"benchmarks.workers.{peer.worker}"
    files = [case.model, data or case.feeds("calib"), out]
    return script([peer.python(), "-m", module, *files, options], timeout, peer.environment)


def script(
    command: list[Any], timeout: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs a script on one thread; returns the JSON object of its last line. Raises Failed."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    env = os.environ | threads | {"PYTHONPATH": str(ROOT)} | dict(environment or {})
    try:
        done = subprocess.run(
            [str(part) for part in command], env=env, cwd=CACHE, timeout=timeout,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"did not finish in {timeout:.0f} s") from None
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    raise Failed(errors[-1][:300] if errors else f"exit code {done.returncode}")
