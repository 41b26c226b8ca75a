#!/usr/bin/env python3
"""What becomes of a Butane file of variant flatcar 1.0.0, as far as those of packaging/flatcar go: Butane itself is no Debian package.

usage: butane.py ignition FILE           the Ignition configuration, version 3.3.0, as butane would write it
       butane.py lay FILE ROOT [IMAGE]   what Ignition would then write below ROOT, with IMAGE in the place of what it downloads
"""

import json
import pathlib
import shutil
import sys
import urllib.parse

import yaml


def ignition(butane):
    """Names in camel case, and contents as URLs, are all that differs between the two formats."""
    sections = {key: value for key, value in butane.items() if key not in ("variant", "version")}
    config = {"ignition": {"version": "3.3.0"}, **camel(sections)}
    for file in config["storage"]["files"]:
        inline = file["contents"].pop("inline", None)
        if inline is not None:
            file["contents"]["source"] = "data:," + urllib.parse.quote(inline)
    return config


def camel(value):
    if isinstance(value, list):
        return [camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {camel_name(key): camel(item) for key, item in value.items()}


def camel_name(name):
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


def lay(butane, root, image):
    for file in butane["storage"]["files"]:
        path = below(root, file["path"])
        if "inline" in file["contents"]:
            path.write_text(file["contents"]["inline"])
        else:
            shutil.copyfile(image, path)
        path.chmod(file["mode"])
    for link in butane["storage"]["links"]:
        below(root, link["path"]).symlink_to(link["target"])
    for unit in butane["systemd"]["units"]:
        for dropin in unit["dropins"]:
            path = below(root, f"/etc/systemd/system/{unit['name']}.d/{dropin['name']}")
            path.write_text(dropin["contents"])


def below(root, path):
    path = pathlib.Path(root + path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def main(what, file, *rest):
    butane = yaml.safe_load(pathlib.Path(file).read_text())
    assert (butane["variant"], butane["version"]) == ("flatcar", "1.0.0"), "another version of the format"
    if what == "ignition":
        json.dump(ignition(butane), sys.stdout, indent=2)
    else:
        lay(butane, *rest)


main(*sys.argv[1:])
