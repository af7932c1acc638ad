# The suite's images, one stage each. Nothing but packages comes from the network: Debian's and PyPI's.
#
#   suite        publisher, converter, set-up, docker2cvmfs and the operators' commands (the default)
#   suite-cvmfs  the same with cvmfs_server, from where the build argument CVMFS_SOURCE says
#   repository   serves the repository to CVMFS clients and caches
#   plugin       the managed plugin of worker nodes, as a directory: make plugin
#   snapshotter  the containerd snapshotter of Kubernetes nodes
#   cvmfs-client the CVMFS client of Kubernetes nodes, from where CVMFS_SOURCE says
#   seaweedfs    an object store from a wheel, where no image of one can be had
#
# docker build --target suite .
#
# Behind a proxy that re-signs TLS: --secret id=ca_bundle,src=/etc/ssl/certs/ca-certificates.crt

ARG BASE_IMAGE=debian:trixie-slim
# What images and plugin say that they were made of: the version of pyproject.toml, and the commit.
ARG VERSION=0.1.0
ARG REVISION=unknown


# --- what all Python images share ------------------------------------------------------------------------------------

FROM ${BASE_IMAGE} AS python
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
       -o Dpkg::Options::=--force-unsafe-io ca-certificates python3 \
    && rm -rf /var/log/* /var/cache/debconf/* /var/lib/dpkg/*-old
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1


# --- Python packages, as the lock has them ---------------------------------------------------------------------------

FROM python AS uv
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
       -o Dpkg::Options::=--force-unsafe-io python3-venv
WORKDIR /build
COPY uv.lock pyproject.toml ./
COPY docker/with-ca-bundle docker/prune-packages /usr/local/bin/
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/root/.cache/pip \
    version=$(sed -n '/^name = "uv"$/{n;s/^version = "\(.*\)"$/\1/p;}' uv.lock) \
    && python3 -m venv /opt/uv \
    && with-ca-bundle /opt/uv/bin/pip install -q --disable-pip-version-check "uv==$version"
ENV PATH=/opt/uv/bin:$PATH \
    UV_LINK_MODE=copy \
    UV_PYTHON=/usr/bin/python3 \
    UV_PYTHON_DOWNLOADS=never \
    UV_PROJECT_ENVIRONMENT=/opt/suite

FROM uv AS packages
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/root/.cache/uv \
    with-ca-bundle uv sync -q --frozen --no-default-groups --no-install-project --extra setup \
    && prune-packages /opt/suite/lib

FROM python AS code
COPY docker/make-commands pyproject.toml /
RUN /make-commands /pyproject.toml /code/bin
COPY services /code/services
RUN python3 -m compileall -q -j 0 -s /code -p /opt/code /code/services

# What worker nodes have of it: every one of them downloads it.
FROM code AS node-code
RUN rm -r /code/bin \
    && cd /code/services \
    && rm -r converter docker2cvmfs publisher repository setup thin_image thinctl


# --- what serves the repository --------------------------------------------------------------------------------------

FROM ${BASE_IMAGE} AS repository
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
       -o Dpkg::Options::=--force-unsafe-io nginx \
    && rm -rf /var/log/* /var/cache/debconf/* /var/lib/dpkg/*-old \
    && install -d -o 10001 -g 10001 /srv/cvmfs
COPY docker/nginx.conf docker/nginx-bucket.conf docker/nginx-common.conf /etc/nginx/
COPY docker/http-check /usr/local/bin/
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="CVMFS thin images: repository" \
      org.opencontainers.image.description="Serves a CernVM-FS repository to clients and caches" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
USER 10002:10002
EXPOSE 8000
ENTRYPOINT ["nginx"]
CMD ["-e", "stderr", "-g", "daemon off;"]


# --- an object store from a wheel ------------------------------------------------------------------------------------

FROM uv AS weed
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/root/.cache/uv \
    with-ca-bundle uv sync -q --frozen --only-group seaweedfs --no-install-project
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends busybox-static
RUN install -d -m 0700 /empty

# One program of 150 MB, which needs nothing else; busybox is there for the start and the health check.
FROM scratch AS seaweedfs
COPY --from=weed /bin/busybox /bin/busybox
COPY --from=weed /bin/busybox /bin/sh
COPY --from=weed /opt/suite/bin/weed /bin/weed
COPY --from=weed --chown=10003:10003 /empty /data
COPY docker/seaweedfs /bin/start
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="SeaweedFS" \
      org.opencontainers.image.description="SeaweedFS from its wheel, with one bucket and two users" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
USER 10003:10003
EXPOSE 9000
ENTRYPOINT ["/bin/start"]


# --- the managed plugin of worker nodes ------------------------------------------------------------------------------

FROM uv AS plugin-packages
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/root/.cache/uv \
    with-ca-bundle uv sync -q --frozen --only-group graphdriver --no-install-project \
    && prune-packages /opt/suite/lib

FROM python AS plugin-files
# A CVMFS client in the plugin, for nodes that have none: see docker/install-cvmfs for what the source can be.
ARG CVMFS_SOURCE=
ARG CVMFS_PACKAGES="cvmfs"
COPY docker/install-cvmfs /usr/local/bin/
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
       -o Dpkg::Options::=--force-unsafe-io fuse3 tini \
    && if [ -n "$CVMFS_SOURCE" ]; then install-cvmfs "$CVMFS_SOURCE" $CVMFS_PACKAGES; fi \
    && rm -rf /var/log/* /var/cache/debconf/* /var/lib/dpkg/*-old /usr/share/doc/* /usr/share/man/* \
       /usr/lib/*-linux-gnu/gconv /usr/lib/python3*/test /usr/lib/python3*/pydoc_data \
    # What config.json mounts.
    && install -d /cvmfs /etc/cvmfs /var/lib/cvmfs /var/lib/docker-layers /run/secrets
COPY --from=plugin-packages /opt/suite /opt/suite
COPY --from=node-code /code /opt/code

FROM plugin-files AS plugin-config
WORKDIR /opt/code
ARG VERSION
ARG REVISION
RUN /opt/suite/bin/python -m services.graphdriver.managed.config "$VERSION" "$REVISION" >/config.json

FROM scratch AS plugin
COPY --from=plugin-config /config.json /
COPY --from=plugin-files / /rootfs/


# --- Kubernetes nodes: the snapshotter -------------------------------------------------------------------------------

FROM uv AS snapshotter-packages
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/root/.cache/uv \
    with-ca-bundle uv sync -q --frozen --only-group snapshotter --no-install-project \
    && prune-packages /opt/suite/lib

FROM python AS snapshotter
COPY --from=snapshotter-packages /opt/suite /opt/suite
COPY --from=node-code /code /opt/code
ENV PATH=/opt/suite/bin:$PATH \
    PYTHONPATH=/opt/code
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="CVMFS thin images: snapshotter" \
      org.opencontainers.image.description="containerd's snapshotter for images whose layers are in CernVM-FS" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
ENTRYPOINT ["python", "-m", "services.snapshotter"]


# --- Kubernetes nodes: the CVMFS client ------------------------------------------------------------------------------

# On what the snapshotter stands, too: nodes have both.
FROM python AS cvmfs-client
ARG CVMFS_SOURCE
ARG CVMFS_PACKAGES="cvmfs"
COPY docker/install-cvmfs /usr/local/bin/
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
       -o Dpkg::Options::=--force-unsafe-io fuse3 tini \
    && install-cvmfs "$CVMFS_SOURCE" $CVMFS_PACKAGES \
    && rm -rf /var/log/* /var/cache/debconf/* /var/lib/dpkg/*-old \
    # What is mounted there. The client reads a site's settings, and these where its keys are.
    && install -d /cvmfs /etc/cvmfs/site /var/lib/cvmfs /run/cvmfs \
    && ln -sf site/default.local /etc/cvmfs/default.local
COPY docker/cvmfs-client /usr/local/bin/
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="CernVM-FS client" \
      org.opencontainers.image.description="Mounts CernVM-FS repositories for the machine that it runs on" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
ENTRYPOINT ["tini", "--", "cvmfs-client"]


# --- publisher, converter, set-up, docker2cvmfs ----------------------------------------------------------------------

FROM python AS suite-files
COPY --from=packages /opt/suite /opt/suite
COPY --from=code /code /opt/code
COPY docker/http-check docker/make-secrets docker/hand-out-secrets docker/create-repository /usr/local/bin/
ENV PATH=/opt/code/bin:/opt/suite/bin:$PATH \
    PYTHONPATH=/opt/code

FROM suite-files AS suite
# Volumes get the owner of the directory that they are first mounted on.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin thin \
    && install -d -o thin -g thin -m 0700 /var/lib/cvmfs-thin-publisher /var/spool/cvmfs-thin-publisher /etc/cvmfs/keys \
       /var/lib/cvmfs-thin-converter \
    && install -d -o thin -g thin /srv/cvmfs
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="CVMFS thin images" \
      org.opencontainers.image.description="Publishes layers of Docker images to CernVM-FS repositories as they are uploaded" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
USER 10001:10001
CMD ["python", "-m", "services.publisher"]


# --- the same, with a real cvmfs_server ------------------------------------------------------------------------------

FROM suite AS suite-cvmfs
USER root
COPY docker/install-cvmfs /usr/local/bin/
ARG CVMFS_SOURCE
RUN --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    install-cvmfs "$CVMFS_SOURCE" cvmfs cvmfs-server apache2 libcap2-bin tini \
    # With systemctl, cvmfs_server would ask systemd for its web server.
    && rm -f /bin/systemctl \
    # mkfs would give them these, and cannot in a file system that is read-only.
    && find /usr/bin -name cvmfs_swissknife -o -name cvmfs_publish \
       | xargs -r setcap cap_dac_read_search,cap_sys_admin+p \
    && cd /etc/apache2 \
    && ln -sf ../mods-available/headers.load ../mods-available/expires.load mods-enabled/ \
    && rm -f sites-enabled/* \
    && echo "Listen 127.0.0.1:80" >ports.conf \
    # The program adds the repository's mounts to this file, and needs them at every start.
    && ln -sf /etc/cvmfs/repositories.d/.fstab /etc/fstab \
    && rm -rf /var/log/* /var/cache/debconf/* /var/lib/dpkg/*-old
COPY docker/apache.conf /etc/apache2/conf-enabled/cvmfs-storage.conf
COPY docker/cvmfs-stratum0 docker/cvmfs-publisher /usr/local/bin/
USER 10001:10001


# What `docker build .` makes.
FROM suite
