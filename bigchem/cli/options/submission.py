"""Options of every verb that submits: changes to the cluster profile, and jobs to wait for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bigchem.base.errors import UserError

if TYPE_CHECKING:
    from bigchem.launch.cluster.profile import ClusterProfile
    from bigchem.launch.slurm.options import OneShot

OPTIONS: dict[str, Any] = {
    "nodes": Annotated[str | None, typer.Option(metavar="N[-MAX]", help="Nodes, or a range from which Slurm chooses.")],
    "gpus_per_node": Annotated[int | None, typer.Option(min=0, help="GPUs per node.")],
    "time": Annotated[
        str | None, typer.Option(metavar="TIME", help="Time limit in Slurm's format: 90, 4:00:00, 2-12.")
    ],
    "partition": Annotated[str | None, typer.Option(metavar="NAME", help="Slurm partition.")],
    "account": Annotated[str | None, typer.Option(metavar="NAME", help="Slurm account.")],
    "qos": Annotated[str | None, typer.Option(metavar="NAME", help="Slurm quality of service.")],
    "set_cluster": Annotated[
        list[str] | None,
        typer.Option(
            "--set-cluster",
            metavar="FIELD=VALUE",
            help="Override a field of the cluster profile: --set-cluster sbatch.mail-type=END (repeatable).",
        ),
    ],
    "after": Annotated[
        list[str] | None,
        typer.Option(metavar="RUN|JOBID", help="Start only once this run or Slurm job has succeeded (repeatable)."),
    ],
    "after_any": Annotated[bool, typer.Option("--after-any", help="With --after: start however it ended.")],
}
SHAPE = ("nodes", "gpus_per_node")
AFTER = ("after", "after_any")
FIELDS = ("partition", "account", "qos")
"""Options named after the profile field that they set."""


@dataclass(frozen=True)
class Requested:
    """Values of these options. changes: fields of the cluster profile."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    after_any: bool = False

    def resolve(self, cluster: str) -> tuple[ClusterProfile, OneShot]:
        """The profile of that name or path with the changes, and what applies to this submission only."""
        from bigchem.launch.cluster.profile import for_submission

        profile, once = for_submission(cluster, self.changes)
        if not self.after:
            return profile, once
        from bigchem.launch.dependencies import waited_for

        if profile.executor == "local":
            hint = f"bigchem submit FIRST --wait && bigchem ..., or --cluster with a profile of Slurm (not {cluster})"
            raise UserError("only Slurm can start one job after another", "--after", hint)
        return profile, replace(once, after=waited_for(self.after, any_end=self.after_any), after_any=self.after_any)

    def refuse(self) -> None:
        """UserError if any option was given: without --cluster there is no profile to change."""
        if self.changes or self.after:
            first = next(iter(self.changes), "after")
            named = {"time_min": "time"}.get(first, first).replace("_", "-")
            option = f"--{named if named.replace('-', '_') in OPTIONS else 'set-cluster'}"
            raise UserError(f"{option} goes with --cluster", None, "add --cluster PROFILE")


def cluster_options(*, shape: bool = True, after: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that adds the options above to a verb, which gets them as `requested`.

    shape: include nodes and GPUs. after: include jobs to wait for.
    """
    hidden = {*(() if shape else SHAPE), *(() if after else AFTER)}
    ours = {name: kind for name, kind in OPTIONS.items() if name not in hidden}

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @wraps(verb)
        def with_options(**given: Any) -> None:
            options = read_options(**{name: given.pop(name) for name in ours})
            verb(**given, requested=options)

        def parameter(name: str, kind: Any) -> inspect.Parameter:
            default = False if name == "after_any" else None
            return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)

        signature = inspect.signature(verb, eval_str=True)
        own = [p.replace(kind=p.KEYWORD_ONLY) for name, p in signature.parameters.items() if name != "requested"]
        every = [*own, *(parameter(*each) for each in ours.items())]
        with_options.__signature__ = signature.replace(parameters=every)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in every}
        return with_options

    return decorate


def read_options(
    nodes: str | None = None,
    gpus_per_node: int | None = None,
    time: str | None = None,
    set_cluster: list[str] | None = None,
    after: list[str] | None = None,
    *,
    after_any: bool = False,
    **fields: str | None,
) -> Requested:
    """The options' values, checked. fields: see FIELDS."""
    from bigchem.base import toml
    from bigchem.launch.slurm import options

    changes: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if nodes is not None:
        changes["nodes"], changes["nodes_max"] = options.node_range(nodes)
    if gpus_per_node is not None:
        changes |= {"gpus_per_node": gpus_per_node, "tasks_per_node": max(1, gpus_per_node)}
    if time is not None:
        changes["time_min"] = options.minutes(time)
    for override in set_cluster or ():
        name, value = toml.parse_override(override, "--set-cluster", "sbatch.mail-type=END")
        changes[name] = value
    if after_any and not after:
        raise UserError("--after-any goes with --after", None, "name the run or job: --after RUN --after-any")
    return Requested(changes, tuple(after or ()), after_any)
