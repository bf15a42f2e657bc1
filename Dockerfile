# collimate for a machine with an NVIDIA GPU. The image brings libtorch and CUDA's libraries, the host its driver
# (580 or newer) and the NVIDIA container toolkit:
#
#   docker build -t collimate .
#   docker run --rm --init --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" collimate dpo configs/dpo.toml
#
# Without --gpus the same image runs on the CPU.

FROM rust:1.95.0-slim-bookworm AS build
# The toolchain that rust-toolchain.toml names is the one in this image; without this rustup would add rustfmt and clippy.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# libtorch first: a change of the sources does not fetch it again. It goes to /opt/collimate, the same path as below,
# because the binary finds it there.
ENV XDG_CACHE_HOME=/opt
COPY rust-toolchain.toml ./
COPY scripts/common.sh scripts/machine.sh scripts/setup scripts/unpack_libtorch.py scripts/
RUN scripts/setup --cuda
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
# The base already holds libstdc++6 and libgcc-s1; libgomp comes with libtorch, root certificates are in the binary.
RUN useradd --create-home --uid 1000 collimate && install -d -o collimate -g collimate /work
COPY --from=build /opt/collimate/libtorch-2.13.0-cuda13/torch/lib /opt/collimate/libtorch-2.13.0-cuda13/torch/lib
COPY --from=build /opt/collimate/libtorch-2.13.0-cuda13/nvidia /opt/collimate/libtorch-2.13.0-cuda13/nvidia
COPY --from=build /opt/collimate/libtorch-2.13.0-cuda13/licenses /opt/collimate/libtorch-2.13.0-cuda13/licenses
COPY --from=build /src/target/release/collimate /usr/local/bin/collimate
# To try an example: docker run ... -w /opt/collimate/examples collimate sft configs/sft.toml train.output=/work/run
COPY data /opt/collimate/examples/data
COPY configs /opt/collimate/examples/configs
# What the container toolkit mounts of the driver, and where models from the hub are kept: below /work, so that a mounted
# directory keeps them.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HOME=/work/.cache/huggingface
USER collimate
WORKDIR /work
ENTRYPOINT ["collimate"]
CMD ["--help"]
