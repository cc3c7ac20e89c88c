# Shared by scripts/demo, scripts/test and benches/cost: messages and missing packages.
# Source it from bash; it defines functions only.
# shellcheck shell=bash

# Colours only where a person reads them.
if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
  bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'
else
  bold='' red='' plain=''
fi

heading() { printf '\n%s== %s ==%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s\n' "$*"; }
warn() { printf '%snote:%s %s\n' "$bold" "$plain" "$*" >&2; }
die() {
  printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
  exit 2
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: directly, or with sudo, which may ask for the password only if someone is there.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif have sudo; then
    if [[ -t 0 ]]; then sudo "$@"; else sudo -n "$@"; fi
  else
    return 1
  fi
}

# install_packages PACKAGE...: installs Debian packages; 1 if that can't be done, with the reason on
# stderr. Package lists are brought up to date once per script, and only when something is missing.
package_lists_fresh=
install_packages() {
  if ! have apt-get; then
    warn "this system has no apt-get; please install by other means: $*"
    return 1
  fi
  if ((EUID != 0)) && ! have sudo; then
    warn "neither root nor sudo is there to install packages; please run as root: apt-get install $*"
    return 1
  fi
  local log
  log=$(mktemp)
  note "installing: $*"
  if [[ -z $package_lists_fresh ]]; then
    # A stale or partly unreachable list may still serve: the install decides.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >"$log" 2>&1 ||
      warn "apt-get update failed; trying with the package lists that are there"
    package_lists_fresh=yes
  fi
  if ! as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -q install --yes --no-install-recommends "$@" >>"$log" 2>&1; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    warn "apt-get could not install: $*"
    return 1
  fi
  rm -f "$log"
}

# need COMMAND PACKAGE: makes sure that a command is there.
need() {
  have "$1" && return 0
  install_packages "$2" && hash -r && have "$1"
}

# A C compiler that can build a program. Debian's gcc only recommends the C library's headers, so its
# being there is not enough.
need_cc() {
  local tried
  tried=$(mktemp -d)
  echo 'int main(void) { return 0; }' >"$tried/a.c"
  if cc -include stdio.h -o "$tried/a" "$tried/a.c" >/dev/null 2>&1; then
    rm -r "$tried"
    return 0
  fi
  rm -r "$tried"
  install_packages gcc libc6-dev && hash -r && have cc
}

# Makes sure of cargo and of the least Rust version that the workspace names.
need_cargo() {
  local root=$1 wanted found
  if ! have cargo && [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH    # installed, but not for this shell
  fi
  wanted=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$root/Cargo.toml" | head -n 1)
  have cargo || die "cargo was not found. Install Rust $wanted or newer, for example with rustup (https://rustup.rs), and start this again."
  found=$(cargo --version | cut -d ' ' -f 2)
  if [[ $(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1) != "$wanted" ]]; then
    die "cargo is $found, and $wanted or newer is needed. With rustup: rustup update stable"
  fi
  # zstd and the linker need a C compiler.
  need_cc || die "a C compiler (cc) is needed to build"
}

# Where cargo puts its results: the environment or a configuration file may say otherwise than target/.
target_directory() {
  (cd "$1" && cargo metadata --no-deps --offline --format-version 1 2>/dev/null) |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# file_url PATH: an absolute path as a file: URL; every byte outside the plain ones is escaped.
file_url() {
  local LC_ALL=C path=$1 out='' c i
  for ((i = 0; i < ${#path}; i++)); do
    c=${path:i:1}
    case $c in
    [A-Za-z0-9._~/-]) out+=$c ;;
    # %d of a byte above 127 is negative in some locales' printf: keep its low eight bits.
    *) out+=$(printf '%%%02X' "$(($(printf '%d' "'$c") & 255))") ;;
    esac
  done
  printf 'file://%s\n' "$out"
}
