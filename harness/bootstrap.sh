#!/bin/sh
# Installs what a make target needs and is missing, on Debian and Ubuntu as root; elsewhere it says what is needed.
# It must run where neither Python nor any package of the project is there yet, hence a shell script.
#
# usage: harness/bootstrap.sh lint|docs|demo|bench|test
#        harness/bootstrap.sh fetch REFERENCE FILE    (an image of a registry, as a docker archive)
set -eu

target=$1
# Those that need Python, and neither daemons nor file systems.
case $target in lint | docs) python_alone=yes ;; *) python_alone= ;; esac
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
suite=trixie
rootfs=.cache/debian-$suite.tar
slim_rootfs=.cache/debian-$suite-slim.tar
newest_docker=27

say() { printf 'bootstrap: %s\n' "$*"; }
fail() {
    printf 'bootstrap: %s\n' "$*" >&2
    exit 1
}

# --- what is missing -------------------------------------------------------------------------------------------------

missing= # one "program (package)" a line, for people
packages=
need() { # need PACKAGE PROGRAM-OR-FILE...: any of the programs or files will do
    package=$1
    shift
    for thing; do
        case $thing in
        /*) [ -e "$thing" ] && return ;;
        *) command -v "$thing" >/dev/null && return ;;
        esac
    done
    missing="$missing    $1 (package $package)
"
    packages="$packages $package"
}

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }
# A Debian without python3-venv has the venv module, but cannot fill a new environment.
makes_environments() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# An environment that is there stays; for a new one the newest Python is taken, and the system's before others of the
# same version: 3.13 as Debian builds it runs the tests in a third less time than 3.11 built without optimizations.
python=
find_python() {
    if fits .venv/bin/python && [ -x .venv/bin/pip ]; then
        python=.venv/bin/python
        return
    fi
    for candidate in /usr/bin/python3.13 python3.13 /usr/bin/python3.12 python3.12 /usr/bin/python3.11 python3.11 python3; do
        if fits "$candidate" && makes_environments "$candidate"; then
            python=$candidate
            return
        fi
    done
}

find_missing() {
    find_python
    [ -n "$python" ] || need python3-venv "Python 3.11 to 3.13 with venv and ensurepip"
    [ -z "$python_alone" ] || return 0
    if [ -n "$python" ] && [ "$python" != .venv/bin/python ] && fits /usr/bin/python3; then
        makes_environments /usr/bin/python3 || need python3-venv "ensurepip for /usr/bin/python3"
    fi
    need util-linux unshare
    need mount mount
    need iproute2 ip
    need ca-certificates /etc/ssl/certs/ca-certificates.crt
    need docker.io dockerd
    need containerd containerd
    need runc runc
    need docker-cli docker
    need docker-buildx /usr/libexec/docker/cli-plugins/docker-buildx /usr/lib/docker/cli-plugins/docker-buildx \
        /usr/local/lib/docker/cli-plugins/docker-buildx
    need mmdebstrap mmdebstrap
    need docker-registry docker-registry
    [ "$target" != fetch ] || need skopeo skopeo
    if [ "$target" = bench ]; then
        need e2fsprogs mkfs.ext4
        need skopeo skopeo
        need podman podman
        need netavark /usr/lib/podman/netavark /usr/libexec/podman/netavark
        need busybox /bin/busybox
    fi
    [ "$target" = test ] || return 0
    need docker-compose /usr/libexec/docker/cli-plugins/docker-compose /usr/lib/docker/cli-plugins/docker-compose \
        /usr/local/lib/docker/cli-plugins/docker-compose
    need slirp4netns slirp4netns
    need promtool promtool
    need umoci umoci
    need skopeo skopeo
    need buildah buildah
    need netavark /usr/lib/podman/netavark /usr/libexec/podman/netavark
    need openssl openssl
    need cosign cosign
    need zstd zstd
    need systemd systemd-analyze
    need procps pgrep
    need podman podman
    need fuse-overlayfs fuse-overlayfs
    need uidmap newuidmap
    need fuse3 fusermount3
    need bindfs bindfs
    need bubblewrap bwrap
    need busybox /bin/busybox
    need containernetworking-plugins /usr/lib/cni/ptp
    need chromium chromium
    need kustomize kustomize
    need postgresql /usr/lib/postgresql/*/bin/postgres
    need ceph-mon ceph-mon
    need ceph-osd ceph-osd
    need radosgw radosgw
    need ceph-common ceph
}

# --- Debian packages -------------------------------------------------------------------------------------------------

is_debian_like() {
    # shellcheck source=/dev/null
    [ -r /etc/os-release ] && case $(. /etc/os-release && echo "$ID") in debian | ubuntu) true ;; *) false ;; esac
}

# Ubuntu has no docker-cli package (docker.io holds it), and newer releases of it have a Docker without graphdrivers.
available_packages() {
    for package; do
        case $package in
        docker.io)
            apt-cache madison docker.io | awk -F' *[|] *' -v newest=$newest_docker \
                '!found && int($2) <= newest { print "docker.io=" $2; found = 1 }'
            ;;
        docker-cli)
            ! apt-cache show docker-cli >/dev/null 2>&1 || echo docker-cli
            ;;
        *) echo "$package" ;;
        esac
    done
}

install_packages() {
    [ "$(id -u)" -eq 0 ] || fail "not root, so nothing can be installed. Needed, and missing here:
$missing    Install them and call again as root."
    is_debian_like || fail "this is neither Debian nor Ubuntu, so nothing is installed. Needed, and missing here:
$missing    Install them and call again. Docker is needed in a version up to $newest_docker."
    say "updating the package lists"
    # One list of a third party that fails makes this fail; what is needed may be in the others.
    apt-get update -q >.cache/apt-update.log 2>&1 || say "apt-get update complained, see .cache/apt-update.log; going on"
    # shellcheck disable=SC2086 # words are what is wanted
    set -- $(available_packages $packages)
    say "installing with apt-get: $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >.cache/apt.log 2>&1 ||
        fail "apt-get install failed:
$(tail -n 20 .cache/apt.log)"
}

check_docker() {
    version=$(dockerd --version | sed -n 's/^Docker version \([0-9]*\).*/\1/p')
    [ "${version:-0}" -le $newest_docker ] ||
        fail "Docker $version has no graphdriver plugins any more: Docker up to $newest_docker is needed (Debian 13 has 26.1)"
}

# --- Python environment ----------------------------------------------------------------------------------------------

# The mirrors and certificates that pip is told to use hold for uv too, which reads neither pip's settings nor its file.
pip_setting() { .venv/bin/pip config get "global.$1" 2>/dev/null || true; }

sync_environment() {
    stamp=.venv/.bootstrap
    state=$(cat uv.lock pyproject.toml | cksum)
    [ "$python" = .venv/bin/python ] && [ "$(cat $stamp 2>/dev/null)" = "$state" ] && return
    uv_version=$(sed -n '/^name = "uv"$/{n;s/^version = "\(.*\)"$/\1/p;}' uv.lock)
    if [ "$python" != .venv/bin/python ]; then
        say "making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
    fi
    say "installing uv $uv_version and what uv.lock names into .venv"
    .venv/bin/pip install -q --disable-pip-version-check "uv==$uv_version" || fail "pip could not install uv"
    certificate=${SSL_CERT_FILE:-${PIP_CERT:-$(pip_setting cert)}}
    [ -z "$certificate" ] || export SSL_CERT_FILE="$certificate"
    if [ -n "${PIP_INDEX_URL:-$(pip_setting index-url)}" ]; then
        # The lock names files of pypi.org; pip fetches the same ones, by their hashes, from the mirror it is set to.
        .venv/bin/uv export -q --frozen --no-emit-project --format requirements-txt >.cache/requirements.txt
        .venv/bin/pip install -q --require-hashes -r .cache/requirements.txt || fail "pip install failed"
        .venv/bin/pip install -q --no-deps -e . || fail "pip install failed"
    else
        VIRTUAL_ENV=$PWD/.venv .venv/bin/uv sync -q --frozen --active --compile-bytecode || fail "uv sync failed"
    fi
    printf '%s\n' "$state" >$stamp
}

# What makes the site is not in .venv: tests do without it.
sync_docs_environment() {
    docs=.cache/docs-environment
    stamp=$docs/.bootstrap
    .venv/bin/uv export -q --frozen --only-group docs --no-emit-project --format requirements-txt >.cache/docs.txt ||
        fail "uv could not tell what the documentation's site is made with"
    state=$(cksum <.cache/docs.txt)
    [ "$(cat $stamp 2>/dev/null)" != "$state" ] || return 0
    say "installing what makes the documentation's site into $docs"
    .venv/bin/python -m venv --clear $docs
    $docs/bin/pip install -q --disable-pip-version-check --require-hashes -r .cache/docs.txt || fail "pip install failed"
    printf '%s\n' "$state" >$stamp
}

# --- base image ------------------------------------------------------------------------------------------------------

# No registry is asked, so the file systems that come from outside are made here, once.
make_rootfs() { # make_rootfs FILE OPTION...: with the options of mmdebstrap
    [ ! -e "$1" ] || return 0
    [ "$(id -u)" -eq 0 ] || fail "not root: mmdebstrap needs it"
    file=$1
    shift
    say "making a Debian $suite root file system with mmdebstrap, once: $file"
    apt-config dump | grep -i '^Acquire::https\?::\(proxy\|ca\)' >"$file.apt-options" || true
    set -- "$@" "--aptopt=$PWD/$file.apt-options" $suite "$file.new"
    # shellcheck source=/dev/null
    if [ "$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" = $suite ]; then
        # The machine's own mirrors.
        for sources in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
            if grep -qs '^[^#]' "$sources"; then set -- "$@" "$sources"; fi
        done
    fi
    mmdebstrap --quiet --variant=minbase --format=tar "$@" >"$file.log" 2>&1 ||
        fail "mmdebstrap failed:
$(tail -n 20 "$file.log")"
    mv "$file.new" "$file"
}

make_rootfs_with_python() { make_rootfs $rootfs --include=python3; }

# As debian:trixie-slim, what the images are built from: without what nobody reads in a container, and without Python.
make_slim_rootfs() {
    set --
    for left_out in doc info lintian linda locale man groff; do
        set -- "$@" "--dpkgopt=path-exclude=/usr/share/$left_out/*"
    done
    make_rootfs $slim_rootfs "$@" --dpkgopt=path-include=/usr/share/doc/*/copyright
}

mkdir -p .cache
find_missing
if [ -n "$packages" ]; then
    install_packages
    packages= missing=
    find_missing
    [ -z "$packages" ] || fail "still missing:
$missing"
fi
[ -n "$python_alone" ] || check_docker
sync_environment
[ "$target" != docs ] || sync_docs_environment
if [ "$target" = test ]; then
    # At the same time: each waits for the network and the disk most of the time.
    make_rootfs_with_python &
    with_python=$!
    make_slim_rootfs &
    slim=$!
    wait $with_python
    wait $slim
elif [ -z "$python_alone" ]; then
    make_rootfs_with_python
fi
if [ "$target" = fetch ]; then
    say "fetching $2"
    rm -f "$3"
    skopeo copy --quiet "docker://$2" "docker-archive:$3:$2" || fail "skopeo could not fetch $2"
fi
