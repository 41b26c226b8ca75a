# A copy of this host that systemd has booted, for scripts that look at what is installed: an overlay in namespaces of its own,
# of which nothing is left. Sourced by bash after lib.sh; also the first process of the new namespaces.
# shellcheck shell=bash

# shellcheck source=script/holds.sh
source "${BASH_SOURCE[0]%/*}/holds.sh"

readonly LOG=/var/log/wg-edge-test

# Boots it, with these files in its /root. It ends with the script.
boot() {
    ((EUID == 0)) || die 'it makes namespaces and must run as root'
    [[ -x /lib/systemd/systemd ]] || die 'there is no systemd; on Debian: apt-get install systemd'
    scratch=$(mktemp -d)
    trap clean_up EXIT
    mkdir "$scratch/files" "$scratch/cgroup" "$scratch/copy"
    cp "$@" "$scratch/files/"
    # A control group of ours is the root of what systemd sees there.
    # shellcheck disable=SC2016
    unshare --mount bash -c '
        mount -t cgroup2 cgroup2 "$1/cgroup"
        mkdir "$1/cgroup/wg-edge-${1##*.}"
        echo $$ >"$1/cgroup/wg-edge-${1##*.}/cgroup.procs"
        exec unshare --pid --fork --kill-child --mount --net --ipc --uts --cgroup bash -euo pipefail -c ". \"\$1\"; inside \"\$2\"" bash "$2" "$1"
    ' bash "$scratch" "$PWD/script/booted-copy.sh" >"$scratch/log" 2>&1 &
    outside=$!
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        systemd=$(pgrep --parent "$outside" || true)
        [[ -z $systemd ]] || ! on_host systemctl is-system-running --quiet 2>/dev/null || return 0
        kill -0 "$outside" 2>/dev/null || break
        sleep 0.1
    done
    die "systemd does not come up: $(cat "$scratch/log")"
}

# The first process of the new namespaces: makes the copy and becomes systemd.
inside() {
    local scratch=$1 root="$1/copy/root" device name major minor
    mount --make-rprivate /
    mount -t tmpfs tmpfs "$scratch/copy"
    mkdir "$scratch/copy/upper" "$scratch/copy/work" "$root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/copy/upper,workdir=$scratch/copy/work" "$root"
    cp "$scratch"/files/* "$root/root/"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm" "$root/.old"
    for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 ptmx:5:2 net/tun:10:200 loop-control:10:237; do
        IFS=: read -r name major minor <<<"$device"
        mknod -m 666 "$root/dev/$name" c "$major" "$minor"
    done
    for minor in {0..7}; do
        mknod -m 660 "$root/dev/loop$minor" b 7 "$minor"
    done
    mount -t devpts devpts "$root/dev/pts"
    ip link set lo up
    ip link add eth0 type veth peer name internet
    ip address add 203.0.113.10/24 dev eth0
    ip link set eth0 up
    ip link set internet up
    ip route add default via 203.0.113.1
    # Only what is looked at: none of this host's services.
    rm -rf "$root"/etc/systemd/system/*.wants "$root"/lib/systemd/system/*.wants "$root/usr/sbin/policy-rc.d"
    printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' >"$root/etc/systemd/system/wg-edge-test.target"
    mkdir "$root/etc/systemd/system/service.d"
    printf '[Service]\nStandardError=append:%s\n' "$LOG" >"$root/etc/systemd/system/service.d/log.conf"
    : >"$root/etc/machine-id"
    cd "$root" || exit
    pivot_root . .old
    mount --make-rshared /
    umount -l /.old
    exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --system --unit=wg-edge-test.target --log-target=null --show-status=0
}

on_host() {
    nsenter --target "$systemd" --mount --uts --ipc --net --pid --root --wd \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_PAGER= DEBIAN_FRONTEND=noninteractive "$@"
}

clean_up() {
    # The first process takes all others of its namespaces along.
    [[ -z ${outside-} ]] || { kill -9 "$outside" && wait "$outside"; } 2>/dev/null || true
    # shellcheck disable=SC2016
    unshare --mount bash -c '
        mount -t cgroup2 cgroup2 "$1/cgroup"
        for tries in {1..50}; do
            find "$1/cgroup/wg-edge-${1##*.}" -depth -type d -exec rmdir {} + 2>/dev/null && break
            sleep 0.1
        done
    ' bash "$scratch" || true
    rm -rf "$scratch"
}

# For `holds`.
diagnose() {
    [[ -n ${systemd-} ]] || return 0
    on_host systemctl --no-pager --full status 'wg-edge-*'
    on_host tail -n 20 "$LOG"
}

code_of() { on_host "$@" >/dev/null 2>&1 && echo 0 || echo "$?"; }
show() { on_host systemctl show --value --property "$2" "wg-edge-$1"; }
process_field() { on_host sed -n "s/^$2:[[:space:]]*//p" "/proc/$(show "$1" MainPID)/status" | cut -f 1; }

# What a daemon's own file system says to a shell of its user.
as_daemon() {
    on_host nsenter --target "$(show "$1" MainPID)" --mount --root --wd \
        setpriv --reuid wg-edge --regid wg-edge --clear-groups sh -c "$2" 2>/dev/null || true
}
