# hierseg and everything that it needs; no compiler, no data. From the root of the repository:
#   docker build --tag hierseg .                              # computes on the CPU
#   docker build --tag hierseg:cuda --build-arg DEVICE=cuda . # torch's CUDA build, 2.7 GB more to download
# The current folder is where data and results go; loader workers share memory, of which Docker gives too little:
#   docker run --rm --shm-size 2g --volume "$PWD:/data" hierseg bash /hierseg/tools/quickstart.sh
#   docker run --rm --shm-size 2g --volume "$PWD:/data" --gpus all hierseg:cuda bash /hierseg/tools/quickstart.sh
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm

ARG DEVICE=cpu
# The environment is active, so that tools/setup.sh installs into it. Caches of any user, not only of root, go to /tmp.
ENV VIRTUAL_ENV=/opt/hierseg \
    PATH=/opt/hierseg/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# What OpenCV is linked to. Debian keeps only the newest version of a package, so that none can be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /hierseg
COPY . .
# No GPU is visible while an image is built, so the set-up takes torch's CPU build unless a torch is there already.
RUN case "$DEVICE" in cpu | cuda) ;; *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 1 ;; esac \
    && python -m venv "$VIRTUAL_ENV" \
    && if [[ $DEVICE == cuda ]]; then pip install --constraint constraints.txt torch; fi \
    && bash tools/setup.sh

WORKDIR /data
CMD ["bash"]
