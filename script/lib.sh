# Functions shared by the scripts of this folder and by .ci/run; sourced by bash, in the root of the repository.
# shellcheck shell=bash

# Daemons and administration tools stand there, also where the user's PATH leaves them out.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# What building and testing need: program, Debian package.
readonly NEEDED_PROGRAMS='
cc            build-essential
pkg-config    pkg-config
nft           nftables
ip            iproute2
wg            wireguard-tools
wireguard-go  wireguard-go
iperf3        iperf3
haproxy       haproxy
keepalived    keepalived
nginx         nginx-light
curl          curl
conntrack     conntrack
iptables      iptables
tcpdump       tcpdump
ping          iputils-ping
ethtool       ethtool
jq            jq
openssl       openssl
socat         socat
strace        strace
groff         groff-base
script        bsdutils
unshare       util-linux
sysctl        procps
systemd-analyze  systemd
promtool      prometheus
'
# The same for libraries: name for pkg-config, Debian package.
readonly NEEDED_LIBRARIES='
libnftnl  libnftnl-dev
libmnl    libmnl-dev
'

# What .ci/run needs besides, for packages.
# shellcheck disable=SC2034
readonly PACKAGING_PROGRAMS='
rpmbuild           rpm
patchelf           patchelf
mksquashfs         squashfs-tools
skopeo             skopeo
umoci              umoci
crun               crun
ignition-validate  ignition
'

# Tools from crates.io for packages, in the versions that our files were written for.
# shellcheck disable=SC2034
readonly CARGO_DEB_VERSION=3.7.0
# shellcheck disable=SC2034
readonly CARGO_CYCLONEDX_VERSION=0.5.9

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# A heading, so that a long log can be read by its steps.
step() {
    printf '\n==> %s\n' "$*"
}

# Debian packages that are missing, one a line; of more programs than those above, when they are given.
missing_packages() {
    local name package programs="$NEEDED_PROGRAMS${1-}"
    # Of modules of Python no program's name tells; Debian's python3 comes without what makes environments.
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    [[ -z ${1-} ]] || python3 -c 'import yaml' 2>/dev/null || echo python3-yaml
    while read -r name package; do
        [[ -z $name ]] || command -v "$name" >/dev/null || echo "$package"
    done <<<"$programs"
    while read -r name package; do
        [[ -z $name ]] || pkg-config --exists "$name" 2>/dev/null || echo "$package"
    done <<<"$NEEDED_LIBRARIES"
}

# Installs Debian packages. Debian starts daemons when it installs them; haproxy, keepalived, nginx and prometheus must not
# run on this host, so policy-rc.d (see invoke-rc.d(8)) forbids it meanwhile.
install_packages() {
    local policy=/usr/sbin/policy-rc.d ours='' status=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        ours=yes
    fi
    {
        apt-get update -qq &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    } || status=$?
    [[ -z $ours ]] || rm -f "$policy"
    return "$status"
}

# Puts a tool from crates.io on the PATH, in this version: one that is installed, or of our own in the folder that $TOOLS names.
cargo_tool() {
    local tool=$1 wanted=$2
    export PATH="$TOOLS/bin:$PATH"
    [[ $(cargo "${tool#cargo-}" --version 2>/dev/null) != *" $wanted" ]] || return 0
    step "install $tool $wanted" >&2
    # Unoptimised: built in less than half the time.
    cargo install --locked --debug --quiet --jobs "${CARGO_BUILD_JOBS:-2}" --root "$TOOLS" --version "$wanted" "$tool"
}

# Files as a listing by tar, on standard input, tells: mode, owner, size, path.
listed_files() {
    awk '!/^d/ { sub(/^\.\//, "", $6); print $1, $2, $3, $6 }' | LC_ALL=C sort
}

# The same of a tree that is to be packed, where everything belongs to root.
files_of_tree() {
    tar --create --owner=root:0 --group=root:0 --directory "$1" . | tar --list --verbose --numeric-owner | listed_files
}

# Fails when a package does not hold the files that it should, or others, by lists as above.
same_files() {
    local package=$1 expected=$2 found=$3
    diff <(cat <<<"$expected") <(cat <<<"$found") >&2 || die "$package does not hold what it should (< is missing, > is too much)"
}

# Name and version of each crate that is compiled into a program, itself included; none that only builds or tests it.
crates_of() {
    cargo tree --package "$1" --edges normal --prefix none --format '{p}' --locked |
        awk '{ print $1, substr($2, 2) }' | LC_ALL=C sort --unique
}
