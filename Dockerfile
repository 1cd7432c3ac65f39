# Training, export, TensorRT and benchmarks on NVIDIA GPUs, in NVIDIA's PyTorch container. CUDA, cuDNN,
# NCCL, PyTorch and TensorRT stay the container's own; .venv sees them and adds only what they lack.
#
# Not built yet: there was no container runtime where this was written.
FROM nvcr.io/nvidia/pytorch:26.09-py3

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /workspace/tinyunet_deploy
COPY . .

# PIP_CONSTRAINT, which the container sets, pins what it ships; pip then finds torch there and leaves
# it alone. The file touched at the end tells make that .venv is complete. pycuda is compiled here.
RUN python3 -m venv --system-site-packages .venv \
    && .venv/bin/pip install --no-cache-dir --editable '.[train,gpu,dev]' \
    && .venv/bin/python -c 'import torch; assert torch.version.cuda, torch.__version__' \
    && .venv/bin/python -c 'import tensorrt, pycuda; print("TensorRT", tensorrt.__version__)' \
    && touch .venv/.installed

ENV PATH=/workspace/tinyunet_deploy/.venv/bin:$PATH
# With a GPU: docker run --rm --gpus all IMAGE make gpu
CMD ["tinyunet", "doctor"]
