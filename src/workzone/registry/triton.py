"""The network of a bundle as a model repository of Triton, and a bundle as an InferenceService of KServe.

Triton and KServe's model servers run the network alone: decoding, views, calibration and the policy are not in it, and
the certificate says nothing about its log-odds. The service that keeps the promise is ``workzone serve``.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from workzone.bundle import schema
from workzone.bundle.chain import MEMBERS
from workzone.bundle.verify import verify_bundle
from workzone.errors import CheckFailedError, ConfigError
from workzone.files import write_atomic

MODELS = ("backbone", "head")
MAX_BATCH = 32
_TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32", "tensor(bool)": "TYPE_BOOL"}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?")


def write_triton(bundle: Path, out: Path, *, instances: int = 1) -> list[Path]:
    """Write ``NAME_backbone`` and ``NAME_head`` with ``config.pbtxt`` into the model repository ``out``.

    Raises:
        CheckFailedError: the bundle does not verify.
        ConfigError: it is a cascade of several models, its engine is not ONNX Runtime, or a model of that name is there
            already.
    """
    if schema.is_cascade(bundle):
        raise ConfigError(
            "who answers in a cascade of several models is decided by its calibrators, and Triton runs networks alone",
            where=str(bundle),
            fix="answer with workzone serve (registry kserve runs it), or write the networks one by one: "
            f"workzone registry triton {bundle / MEMBERS / '1'}",
        )
    failed = [c for c in verify_bundle(bundle) if not c.passed]
    if failed:
        raise CheckFailedError(f"the bundle does not verify: {failed[0].name}: {failed[0].detail}", where=str(bundle))
    manifest = schema.read_manifest(bundle)
    if manifest.engine.name != "onnxruntime":
        fix = "take the onnxruntime variant of the bundle"
        raise ConfigError(f"Triton's onnxruntime backend cannot run {manifest.engine.name}", where=str(bundle), fix=fix)
    stem = re.sub(r"[^A-Za-z0-9_]", "_", manifest.name) or "workzone"
    taken = [out / f"{stem}_{m}" for m in MODELS if (out / f"{stem}_{m}").exists()]
    if taken:
        raise ConfigError("a model of this name is already there", where=str(taken[0]), fix="give an empty --out")
    made = []
    for model in MODELS:
        folder = out / f"{stem}_{model}"
        (folder / "1").mkdir(parents=True)
        network = bundle / schema.ENGINE / f"{model}.onnx"
        shutil.copyfile(network, folder / "1" / "model.onnx")
        write_atomic(folder / "config.pbtxt", _config(folder.name, network, manifest.sha256, instances))
        made += [folder / "config.pbtxt", folder / "1" / "model.onnx"]
    return made


def _config(name: str, network: Path, sha: str, instances: int) -> str:
    import onnxruntime as ort

    session = ort.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    parts = [f'name: "{name}"', 'backend: "onnxruntime"', f"max_batch_size: {MAX_BATCH}"]
    parts += [_tensor("input", i) for i in session.get_inputs()]
    parts += [_tensor("output", o) for o in session.get_outputs()]
    if any("v" in map(str, i.shape) for i in session.get_inputs()):
        # Requests with unlike numbers of views cannot share a batch.
        parts.append("dynamic_batching { }")
    else:
        parts.append("dynamic_batching { preferred_batch_size: [ 4, 8, 16 ] max_queue_delay_microseconds: 2000 }")
    parts.append(f"instance_group [ {{ count: {instances} kind: KIND_AUTO }} ]")
    parts.append(f'parameters {{ key: "bundle_sha256" value {{ string_value: "{sha}" }} }}')
    return "\n".join(parts) + "\n"


def _tensor(kind: str, tensor: Any) -> str:
    if tensor.type not in _TYPES:
        raise ConfigError(f"{tensor.name} has the type {tensor.type}, which is not expected here")
    dims = [str(d) if isinstance(d, int) else "-1" for d in tensor.shape[1:]]
    # A score of an image has no dimension but that of the batch, which Triton writes as one that is taken away again.
    shape = f"dims: [ {', '.join(dims)} ]" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    return f'{kind} [ {{ name: "{tensor.name}" data_type: {_TYPES[tensor.type]} {shape} }} ]'


def kserve_yaml(name: str, image: str, storage: str) -> str:
    """An InferenceService that runs ``workzone serve``, which speaks the Open Inference Protocol under /v2.

    Args:
        name: of the service.
        image: of deploy/docker.
        storage: URI of the bundle, for example ``pvc://bundles/1.4.0``.

    Raises:
        ConfigError: the name is no DNS label, or image or storage hold what does not belong there.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name[:60]!r} is no name of a service", fix="use lower-case letters, digits and -")
    for value, what in ((image, "image"), (storage, "storage")):
        if not re.fullmatch(r"[A-Za-z0-9._:/@-]{1,400}", value):
            raise ConfigError(f"this is no {what}: {value[:60]!r}", fix="give a plain URI")
    return _KSERVE.format(name=name, image=image, storage=storage)


_KSERVE = """apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
  annotations:
    serving.kserve.io/deploymentMode: RawDeployment
spec:
  predictor:
    minReplicas: 2
    maxReplicas: 8
    securityContext:
      runAsNonRoot: true
      runAsUser: 10001
      fsGroup: 10001
      seccompProfile:
        type: RuntimeDefault
    containers:
      - name: kserve-container
        image: "{image}"
        args: ["serve", "/mnt/models", "--host", "0.0.0.0", "--port", "8000", "--api-key-file", "/etc/workzone/keys"]
        env:
          - name: STORAGE_URI
            value: "{storage}"
        ports:
          - name: http1
            containerPort: 8000
            protocol: TCP
        readinessProbe:
          httpGet:
            path: /readyz
            port: 8000
          periodSeconds: 5
        livenessProbe:
          httpGet:
            path: /healthz
            port: 8000
          periodSeconds: 10
        resources:
          requests:
            cpu: "1"
            memory: 1Gi
          limits:
            cpu: "2"
            memory: 2Gi
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop: ["ALL"]
        volumeMounts:
          - name: keys
            mountPath: /etc/workzone
            readOnly: true
          - name: tmp
            mountPath: /tmp
    volumes:
      - name: keys
        secret:
          secretName: workzone-keys
          defaultMode: 288
      - name: tmp
        emptyDir: {{}}
"""
