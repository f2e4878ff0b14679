"""TensorBoard's HParams tab, read by the code of TensorBoard that serves it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context


class Row(NamedTuple):
    """A row of the tab. metrics: the last value of each, and its step."""

    hparams: dict[str, float | str]
    metrics: dict[str, tuple[float, int]]
    status: str


class Tab(NamedTuple):
    """The columns in their order, and the rows by the name of their TensorBoard run."""

    hparams: list[str]
    metrics: list[str]
    rows: dict[str, Row]


def hparams_tab(logdir: Path) -> Tab:
    """What `tensorboard --logdir` would show there."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    backend = Context(base_plugin.TBContext(logdir=str(logdir), multiplexer=multiplexer, data_provider=provider))
    request = context.RequestContext()
    experiment = get_experiment.Handler(request, backend, "", api_pb2.GetExperimentRequest()).run()
    wanted = api_pb2.ListSessionGroupsRequest(slice_size=99, allowed_statuses=api_pb2.Status.values())
    groups = list_session_groups.Handler(request, backend, "", wanted).run().session_groups
    return Tab(
        [info.name for info in experiment.hparam_infos],
        [info.name.tag for info in experiment.metric_infos],
        {group.name: _row(group) for group in groups},
    )


def _row(group: api_pb2.SessionGroup) -> Row:
    (session,) = group.sessions
    return Row(
        {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()},
        {value.name.tag: (value.value, value.training_step) for value in session.metric_values},
        api_pb2.Status.Name(session.status),
    )
