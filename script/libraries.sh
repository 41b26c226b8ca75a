# What a program needs of this host, for formats that bring it along. Sourced by bash after lib.sh.
# shellcheck shell=bash

# The shared libraries of a program as the loader of this host finds them, and the loader, one a line.
shared_libraries() {
    local found
    found=$(ldd "$1")
    [[ $found != *'not found'* ]] || die "$1 lacks a library: $found"
    awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' <<<"$found"
}

# The Debian package that a file is from. Since /lib became a link it is recorded by either path.
package_of() {
    { dpkg-query --search "$1" 2>/dev/null || dpkg-query --search "/usr$1"; } | cut -d : -f 1
}

# The licence of a package, into a folder for such.
copy_licence() {
    install -D -m 644 "/usr/share/doc/$1/copyright" "$2/$1/copyright"
}
