# https://just.systems: `just` lists the recipes. Nothing depends on just: each recipe is what the scripts do.

_default:
    @just --list

# everything that CI does
ci:
    .ci/run

# all tests (as root)
test:
    script/test

# tests that need no privileges, lints and format: what to run before a commit
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    script/test --unprivileged

# the demo (as root)
demo *arguments:
    script/demo {{ arguments }}

# property tests of the REST API out of its specification (as root)
schemathesis:
    script/schemathesis

# packages of both ends
package *arguments:
    script/package {{ arguments }}

# systemd runs Debian packages or RPMs on a copy of this host (as root)
test-package gateway lan_server:
    script/test-package {{ gateway }} {{ lan_server }}

# are packages the same, built twice in different places?
reproduce *arguments:
    script/reproduce {{ arguments }}

# crun runs the container images (as root)
test-image gateway lan_server:
    script/test-image {{ gateway }} {{ lan_server }}

# systemd merges the system extensions on a copy of this host (as root)
test-sysext gateway lan_server:
    script/test-sysext {{ gateway }} {{ lan_server }}

# cloud-init installs the gateway's package on a copy of this host (as root)
test-cloud-init gateway:
    script/test-cloud-init {{ gateway }}

# the README's two commands in a Debian 13 where nothing is installed (as root)
fresh *arguments:
    script/fresh {{ arguments }}

# how long nobody is served when an end is killed, restarted or reloaded (as root)
bench-restarts *arguments:
    script/bench-restarts {{ arguments }}

# from another revision, the last tag by default, to this one (as root)
test-upgrade *arguments:
    script/test-upgrade {{ arguments }}

# the data plane beside other implementations of WireGuard (as root)
bench *arguments:
    script/bench {{ arguments }}

# time, rate and memory of peer management, beside wireguard-go (as root)
bench-api *arguments:
    script/bench-api {{ arguments }}

# documentation of everything, private items included
doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --document-private-items --locked

# licences, sources and bans of dependencies; advisories too where the network allows it
deny:
    cargo deny check bans licenses sources

# compile with the oldest Rust that Cargo.toml promises
msrv:
    script/msrv

# look for inputs that break a fuzz target's promises, with coverage, on the stable compiler (needs a C++ compiler)
fuzz target seconds="60":
    script/fuzz {{ target }} {{ seconds }}
