"""A bundle as a service on a board: what `bssl-tf deploy` runs there. Standard library only.

The harness sends these files to a device by themselves, before anything is installed there, so they import nothing of
the rest of this package. `command` answers requests, `releases` makes releases and switches between them, `folder` is
what lies on the disk, `manager` is systemd, `unit` writes its file, and `health` finds out whether the service answers.

    FOLDER/.bssl-tf-device        marks the folder as ours; see `bssl_tf_deploy.agent`
    FOLDER/env-HASH/              packages, for one or more releases
    FOLDER/releases/ID/           bundle/, environment/ (a virtual environment), service (systemd's file), release.json
    FOLDER/current                a link to the release that runs
    FOLDER/history.json           the releases that have run, the newest last
    FOLDER/pending.json           while a switch is not decided
    FOLDER/token                  what clients beyond loopback have to show

Everything belongs to the user and runs as the user, under the user's own systemd.
"""
