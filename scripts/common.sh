# shellcheck shell=bash
# What the scripts share: output, and the choice of the Rust toolchain. To be sourced by bash, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

say() { printf '%s\n' "$*"; }
heading() { printf '\n== %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The Chromium in which the page of `collimate annotate` is tested, or nothing. tests/annotate/browser.rs looks alike.
find_chromium() {
    local name
    if [ -n "${COLLIMATE_CHROMIUM:-}" ]; then
        say "$COLLIMATE_CHROMIUM"
        return 0
    fi
    for name in chromium chromium-browser google-chrome chrome; do
        if command -v "$name"; then
            return 0
        fi
    done
}

# The Rust release that rust-toolchain.toml asks for, such as 1.95.0.
wanted_rust() { sed -n 's/^channel *= *"\(.*\)"/\1/p' "$root/rust-toolchain.toml"; }

# Any installed toolchain of that release (1.95.x) that has rustfmt and clippy will do, so that rustup downloads
# nothing it need not. Where there is none, rustup gets the one that rust-toolchain.toml names, and shows that it does.
choose_toolchain() {
    local release name
    release=$(wanted_rust)
    if [ -n "${RUSTUP_TOOLCHAIN:-}" ] || ! command -v rustup >/dev/null; then
        return 0
    fi
    if rustup toolchain list | grep -q "^$release"; then
        return 0
    fi
    for name in $(rustup toolchain list | sed 's/ .*//'); do
        if RUSTUP_TOOLCHAIN=$name cargo --version 2>/dev/null | grep -q "^cargo ${release%.*}\." &&
            RUSTUP_TOOLCHAIN=$name cargo fmt --version >/dev/null 2>&1 &&
            RUSTUP_TOOLCHAIN=$name cargo clippy --version >/dev/null 2>&1; then
            say "Rust $release is not installed under that name; using the toolchain $name, which is the same release"
            export RUSTUP_TOOLCHAIN=$name
            return 0
        fi
    done
    return 0
}
