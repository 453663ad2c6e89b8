# SPDX-License-Identifier: Apache-2.0
# docker build --build-arg VERSION=0.1.0 --build-arg VCS_REF=$(git rev-parse HEAD) -t ctpprep .
# docker run --rm --read-only --network none --tmpfs /tmp -u $(id -u) -v BIDS:/data:ro -v OUT:/out -v WORK:/work \
#     ctpprep /data /out participant -w /work
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
RUN python3 -c 'import ensurepip' 2>/dev/null \
    || { apt-get update \
         && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
         && rm -rf /var/lib/apt/lists/*; }
RUN python3 -m venv /opt/ctpprep
# The dependencies first, around an empty package: this layer outlives every change of the code.
# In a folder of its own: setuptools would take the empty modules left in build/ for current ones.
WORKDIR /dependencies
COPY setup.cfg pyproject.toml LICENSE ./
RUN mkdir ctpprep && touch ctpprep/__init__.py README.md \
    && SETUPTOOLS_SCM_PRETEND_VERSION=0 /opt/ctpprep/bin/pip install --no-cache-dir .
WORKDIR /src
COPY setup.cfg pyproject.toml LICENSE README.md ./
COPY ctpprep ctpprep
ARG VERSION=0
RUN SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION} \
    /opt/ctpprep/bin/pip install --no-cache-dir --no-deps --force-reinstall .
# A TemplateFlow home that is complete and empty: nothing is looked up, nothing is written.
RUN mkdir /opt/templateflow \
    && echo '{"Name": "no templates", "BIDSVersion": "1.9.0"}' > /opt/templateflow/dataset_description.json

FROM ${BASE_IMAGE}
RUN python3 --version 2>/dev/null \
    || { apt-get update \
         && apt-get install --yes --no-install-recommends python3 \
         && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /opt/ctpprep /opt/ctpprep
COPY --from=build /opt/templateflow /opt/templateflow

# All that is written outside the output and work folders goes to /tmp, so that the image runs
# read-only, without network, and as a user the image does not know.
ENV PATH=/opt/ctpprep/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    TMPDIR=/tmp \
    LOGNAME=ctpprep \
    LANG=C.UTF-8 \
    MPLBACKEND=Agg \
    MPLCONFIGDIR=/tmp/matplotlib \
    NIPYPE_CONFIG_DIR=/tmp/nipype \
    NO_ET=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    TEMPLATEFLOW_AUTOUPDATE=0 \
    TEMPLATEFLOW_HOME=/opt/templateflow

ARG VERSION=0
ARG VCS_REF=unknown
# what dataset_description.json and prov/ name as the container
ENV CTPPREP_CONTAINER=ctpprep:${VERSION}
LABEL org.opencontainers.image.title="ctpprep" \
      org.opencontainers.image.description="CT perfusion of acute stroke, from BIDS to maps, infarct core and report" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${VCS_REF}"

WORKDIR /tmp
USER 1000:1000
ENTRYPOINT ["/opt/ctpprep/bin/ctpprep"]
CMD ["--help"]
