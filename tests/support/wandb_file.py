"""What a run of wandb wrote offline, read back from its own files."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class Logged:
    """project, group, name, tags, job_type, config: of the run. history: its rows. summary: the last of each key.

    artifacts: by name their type, their files and their metadata. files: the folder of media.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    exit_code: int | None = None
    files: Path = Path()

    def table(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table that was logged."""
        content = json.loads((self.files / self.summary[name]["path"]).read_text())
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def read_offline(folder: Path) -> Logged:
    """The only run that was logged offline into a folder (WANDB_DIR)."""
    import wandb
    from wandb.proto import wandb_internal_pb2 as proto

    wandb.teardown()  # its service has written everything when it has ended
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = Logged(files=path.parent / "files")
    for content in _records(path.read_bytes()):
        record = proto.Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.settings |= {
                **{"project": run.project, "entity": run.entity, "group": run.run_group, "name": run.display_name},
                **{"job_type": run.job_type, "tags": list(run.tags), "id": run.run_id},
            }
            found.config |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "config":
            found.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            found.history.append(_plain(record.history.item))
        elif kind == "summary":
            found.summary |= _plain(record.summary.update)
        elif kind == "artifact":
            _add_artifact(found, record.artifact)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            _add_artifact(found, record.request.log_artifact.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _add_artifact(found: Logged, artifact: Any) -> None:
    entries = {entry.path: entry.size for entry in artifact.manifest.contents}
    metadata = json.loads(artifact.metadata or "{}")
    found.artifacts[artifact.name] = {"type": artifact.type, "files": entries, "metadata": metadata}


def _plain(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *above, last = item.nested_key or [item.key]
        inner = found
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return found


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, after wandb's header of seven bytes."""
    assert data[:4] == b":W&B"
    at, parts = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part = data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind == FULL:
            yield part
        elif kind == FIRST:
            parts = part
        elif kind in (MIDDLE, LAST):
            parts += part
            if kind == LAST:
                yield parts
