# shellcheck shell=bash
# shellcheck disable=SC2154 # root comes from common.sh; version and cache from scripts/setup
# What scripts/setup asks of this machine. To be sourced after common.sh, not run.
#
# Each check says what it found in one line, or adds a problem; report_problems then prints all of them at once.

# The driver's version where an NVIDIA driver works, else nothing.
driver_version() {
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
        nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed q
    elif [ -r /proc/driver/nvidia/version ] && PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'; then
        sed -n 's/.*Kernel Module[^0-9]*\([0-9.]*\).*/\1/p' /proc/driver/nvidia/version | sed q
    fi
}

problems=()
problem() { problems+=("$1"); }

check_system() {
    local os machine libc
    os=$(uname -s) machine=$(uname -m)
    case $os/$machine in
    Linux/x86_64 | Linux/aarch64) ;;
    *)
        problem "libtorch is fetched for Linux on x86_64 and aarch64 only, this is $os on $machine; set LIBTORCH to a libtorch $version of your own"
        return
        ;;
    esac
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/glibc //') || true
    if [ -z "$libc" ]; then
        problem "this Linux has no glibc, which libtorch needs; use a distribution with glibc 2.28 or newer, such as Debian 12"
    elif [ "$(printf '%s\n' 2.28 "$libc" | sort -V | sed q)" != 2.28 ]; then
        problem "glibc $libc is too old for libtorch $version; use a distribution with glibc 2.28 or newer, such as Debian 12"
    else
        say "   system: $os, $machine, glibc $libc"
    fi
}

check_compiler() {
    local compiler=${CXX:-c++} directory ok=yes
    if ! command -v "${compiler%% *}" >/dev/null; then
        problem "no C++ compiler ($compiler); install g++ 10 or newer (Debian: apt-get install g++), or set CXX"
        return
    fi
    directory=$(mktemp -d)
    printf '#include <concepts>\n#include <span>\ntemplate <std::integral T> T one() { return 1; }\nint main() { return one<int>() - 1; }\n' >"$directory/a.cpp"
    # shellcheck disable=SC2086 # CXX may carry arguments
    $compiler -std=c++20 -o "$directory/a" "$directory/a.cpp" 2>"$directory/log" && "$directory/a" || ok=no
    rm -rf "$directory"
    if [ $ok = no ]; then
        problem "$compiler cannot compile and link C++20; install g++ 10 or newer (Debian: apt-get install g++), or set CXX"
    else
        # shellcheck disable=SC2086
        say "   C++: $($compiler --version | sed q)"
    fi
    command -v cc >/dev/null || problem "no C compiler named cc, which Rust links with; install gcc (Debian: apt-get install gcc)"
}

check_cargo() {
    local have
    if ! command -v cargo >/dev/null; then
        problem "no cargo; install Rust $(wanted_rust) with rustup"
        return
    fi
    choose_toolchain
    if ! have=$(cd "$root" && cargo --version); then
        problem "cargo does not start; rustup toolchain install $(wanted_rust)"
    elif [ "$(printf 'cargo %s\n%s\n' "$(wanted_rust)" "$have" | sort -V | sed q)" != "cargo $(wanted_rust)" ] &&
        [ "${have#cargo "$(wanted_rust)"}" = "$have" ]; then
        problem "$have is too old; rustup toolchain install $(wanted_rust)"
    else
        say "   Rust: $have"
    fi
}

# Python and pip are needed for a download only.
check_python() {
    local pip
    if ! command -v python3 >/dev/null; then
        problem "no python3, which fetches libtorch; install Python 3.8 or newer with pip (Debian: apt-get install python3-pip)"
    elif ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))'; then
        problem "$(python3 --version) is too old to fetch libtorch; install Python 3.8 or newer"
    elif ! pip=$(python3 -m pip --version 2>/dev/null | sed 's/ from.*//') || [ -z "$pip" ]; then
        problem "python3 has no pip, which fetches libtorch; install it (Debian: apt-get install python3-pip, elsewhere: python3 -m ensurepip --user)"
    elif [ "$(printf '%s\n' 'pip 20.3' "$pip" | sort -V | sed q)" != 'pip 20.3' ]; then
        problem "$pip is too old to fetch libtorch; python3 -m pip install --user --upgrade pip"
    else
        say "   Python: $(python3 --version | sed 's/Python //'), $pip"
    fi
}

# Megabytes free where directory $1 is or would be.
free_mb() {
    local directory=$1
    while [ ! -d "$directory" ]; do directory=$(dirname "$directory"); done
    df -Pm "$directory" | awk 'NR == 2 { print $4 }'
}

check_cache() { # $1: megabytes needed
    local free
    if [ "$cache" = /.cache/collimate ]; then
        problem "neither HOME nor XDG_CACHE_HOME is set; set one of them to a directory you can write to"
    elif ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then
        problem "cannot write to $cache; set XDG_CACHE_HOME to a directory you can write to"
    else
        free=$(free_mb "$cache")
        if [ "$free" -lt "$1" ]; then
            problem "libtorch needs $1 MB while it is unpacked, $cache has $free MB free; make room, or set XDG_CACHE_HOME to a directory on a larger disk"
        else
            say "   disk: $free MB free for $cache, $1 MB needed"
        fi
    fi
}

check_build_space() {
    local free
    free=$(free_mb "$root")
    [ "$free" -ge 3000 ] || warn "$root has $free MB free; a build takes about 3000 MB"
}

report_problems() {
    [ ${#problems[@]} -eq 0 ] && return
    for one in "${problems[@]}"; do printf 'error: %s\n' "$one" >&2; done
    exit 1
}

check_build_tools() {
    check_compiler
    check_cargo
    check_build_space
}
