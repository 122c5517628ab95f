"""Beam's worker pool on loopback alone: its own main listens on all of the machine's addresses."""

import sys
import threading

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.utils import thread_pool_executor

server = grpc.server(thread_pool_executor.shared_unbounded_instance())
beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(
    BeamFnExternalWorkerPoolServicer(use_process=True), server
)
if not server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}"):
    sys.exit(f"port {sys.argv[1]} is taken")
server.start()
threading.Event().wait()
