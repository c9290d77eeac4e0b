"""`bssl-tf deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bssl_tf.cli import completion
from bssl_tf.cli._deployments import deployment_lines, next_steps, plain_deployment
from bssl_tf.cli.devices import complete_devices
from bssl_tf.cli.options import json_option, prose
from bssl_tf_deploy.text import show, show_json

if TYPE_CHECKING:
    from bssl_tf.workflows.deploy import Action

_HERE_ALONE = ("host", "port", "threads", "head", "keep", "trust_bundle_library")


@click.command("deploy")
@click.argument("bundle", required=False, shell_complete=completion.folders)
@click.option(
    "--device",
    "devices",
    multiple=True,
    required=True,
    metavar="DEVICE",
    shell_complete=complete_devices,
    help="ssh://user@host[:port], or a name from the devices file; may be repeated.",
)
@click.option("--status", "action", flag_value="status", help="Show what runs on the devices, and whether it answers.")
@click.option("--rollback", "action", flag_value="rollback", help="Go back to the release before.")
@click.option("--remove", "action", flag_value="remove", help="Stop the service and remove everything it consists of.")
@click.option(
    "--service", "service", default="server", metavar="NAME", help="Name of the service, where a device has several."
)
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    shell_complete=completion.words("127.0.0.1", "0.0.0.0"),
    help="Where the service listens; 0.0.0.0 lets in other machines, which need its token.",
)
@click.option("--port", default=8000, type=click.IntRange(1024, 65535), help="At which port.")
@click.option("--threads", default=1, type=click.IntRange(1, 64), help="Threads for one image.")
@click.option("--head", default="", show_default="none", metavar="NAME", help="Answer by a head of BUNDLE.")
@click.option(
    "--health-timeout",
    default=60.0,
    type=click.FloatRange(1, 3600),
    metavar="SECONDS",
    help="How long the service may take to answer after the switch.",
)
@click.option("--keep", default=3, type=click.IntRange(2, 100), help="Releases to keep on the device.")
@click.option(
    "--devices-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File that names devices.  [default: ~/.config/bssl-tf/devices.toml]",
)
@click.option(
    "--remote-dir",
    metavar="DIR",
    help="Folder on the devices, to which -NAME is added.  [default: ~/.local/share/bssl-tf]",
)
@click.option(
    "--trust-bundle-library",
    is_flag=True,
    help="If no library can be made here, send the one in BUNDLE, which is its author's code.",
)
@json_option("Print the results as a JSON list.")
def command(
    bundle: str | None,
    devices: tuple[str, ...],
    action: Action | None,
    service: str,
    health_timeout: float,
    devices_file: Path | None,
    remote_dir: str | None,
    trust_bundle_library: bool,
    as_json: bool,
    **served: Any,
) -> None:
    """Run BUNDLE as a service on boards: `bssl-tf-deploy serve` under the user's own systemd, nothing as root.

    Each release has its own folder and virtual environment. It must reproduce its golden outputs there before the
    service is switched to it; if the service does not answer afterwards, the last good release runs again. A failing
    device does not stop the others. Exit status: that of the error for one device, 20 for several.
    """
    context = click.get_current_context()
    _refuse_mixture(context, bundle, action)
    from bssl_tf.devices.services import ServiceSettings
    from bssl_tf.workflows import deploy as workflow

    settings = ServiceSettings(name=service, health_s=health_timeout, **served)
    where: dict[str, Any] = {"devices_file": devices_file, "remote_dir": remote_dir}
    if action is None:
        given = workflow.deploy(str(bundle), devices, settings, trust_bundle_library=trust_bundle_library, **where)
    else:
        given = workflow.manage(action, devices, settings, **where)
    found = []
    for one in given:
        found.append(one)
        if one.error is not None:
            for line in getattr(one.error, "log", ()):
                prose(f"{one.device}: {line}")
            prose(str(one.error))
    if as_json:
        show_json([plain_deployment(one) for one in found])
    else:
        show(*deployment_lines(found))
        for line in next_steps(found):
            prose(line)
    failed = [one.error.exit_status for one in found if one.error is not None]
    if failed:
        from bssl_tf.errors import DeploymentError

        context.exit(failed[0] if len(found) == 1 else DeploymentError.exit_status)


def _refuse_mixture(context: click.Context, bundle: str | None, action: str | None) -> None:
    """Raises `click.UsageError` for a bundle too many or too few, and for an option that would do nothing."""
    if (bundle is None) == (action is None):
        raise click.UsageError("give BUNDLE to deploy it, or one of --status, --rollback and --remove")
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE
        if action is not None and given and option.name in _HERE_ALONE:
            raise click.UsageError(f"{option.opts[0]} does nothing with --{action}; omit it")
