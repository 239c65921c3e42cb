"""Exported models and published checkpoints.

Runtimes: `backend` chooses between torch and ONNX Runtime, where `onnx_ranker` and `onnx_fuser` run what was exported.
Tools: `onnx_export` exports with `quantization`, `parity` and `optimum_configs`; `hub` and `cards` publish.
`graph` and `provenance` say for both where ONNX files lie and which weights they were made of.
"""
