"""The one method that `perf_analyzer` asks for and that KServe and MLServer lack."""

import grpc

METHOD = "/inference.GRPCInferenceService/ModelConfig"


class ModelConfigHandler(grpc.GenericRpcHandler):
    """Answers ModelConfig with a name and the largest batch."""

    def __init__(self, name, max_batch):
        self.answer = encode(name.encode(), max_batch)

    def service(self, call_details):
        """Return the handler of ModelConfig, and none for any other method."""
        if call_details.method != METHOD:
            return None

        async def handle(_request, _context):
            return self.answer

        return grpc.unary_unary_rpc_method_handler(handle)


def encode(name, max_batch):
    """Return the bytes of ModelConfigResponse(config(name=1, max_batch_size=4)), both below 128."""
    config = bytes((0x0A, len(name))) + name + bytes((0x20, max_batch))
    return bytes((0x0A, len(config))) + config
