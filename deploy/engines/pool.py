"""Beam's worker pool, as one machine with several task managers needs it: pool.py PORT.

Beam's own (apache_beam.runners.worker.worker_pool_main) is made for one task manager beside it.
"""

import sys
import threading

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.utils import thread_pool_executor


class Pool(BeamFnExternalWorkerPoolServicer):
    """Leaves it to workers to end: they do when their task manager hangs up."""

    def StopWorker(self, stop_worker_request, unused_context):
        # Each task manager counts its workers from 1: to stop one's would end another's.
        return beam_fn_api_pb2.StopWorkerResponse()


server = grpc.server(thread_pool_executor.shared_unbounded_instance())
beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(Pool(use_process=True), server)
# Beam's listens on all of the machine's addresses.
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
threading.Event().wait()
