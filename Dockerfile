# SPDX-License-Identifier: Apache-2.0
# Built by docker and by buildah, without BuildKit. How to build and run it: docs/containers.md
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS interpreter
RUN python3 --version 2>/dev/null \
    || { apt-get update \
         && apt-get install --yes --no-install-recommends python3 \
         && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/*; }

FROM interpreter AS build
RUN python3 -c 'import ensurepip' 2>/dev/null \
    || { apt-get update \
         && apt-get install --yes --no-install-recommends python3-venv \
         && rm -rf /var/lib/apt/lists/*; }
# The tools that build stay in /build; /opt/ctpprep has neither them nor pip.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/ctpprep
WORKDIR /src
# The dependencies first: this layer outlives every change of the code. Their hashes are checked when
# the wheels are fetched; the few that have none are built with the tools of the other lock file.
COPY requirements.lock requirements-build.lock ./
RUN /build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock \
    && /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --use-pep517 \
        --require-hashes -r requirements.lock --wheel-dir /wheels \
    && /build/bin/pip --python /opt/ctpprep/bin/python install --no-index --no-deps \
        /wheels/*.whl \
    && rm -r /wheels
# The tool that lists what is in the image, which also stays here.
COPY requirements-sbom.lock ./
RUN python3 -m venv --without-pip /sbom \
    && /build/bin/pip --python /sbom/bin/python install --no-cache-dir --require-hashes \
        -r requirements-sbom.lock
COPY setup.cfg pyproject.toml LICENSE README.md ./
COPY ctpprep ctpprep
ARG VERSION=0
RUN SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION} \
    /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation . --wheel-dir /wheels \
    && /build/bin/pip --python /opt/ctpprep/bin/python install --no-index --no-deps /wheels/*.whl
RUN /sbom/bin/cyclonedx-py environment --output-reproducible --no-validate --output-format JSON \
        --output-file /opt/ctpprep/sbom.cdx.json /opt/ctpprep/bin/python
# A TemplateFlow home that is complete and empty: nothing is looked up, nothing is written.
RUN mkdir /opt/templateflow \
    && echo '{"Name": "no templates", "BIDSVersion": "1.9.0"}' > /opt/templateflow/dataset_description.json

FROM interpreter
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
