"""The contracts of inferd: protocol stubs, and the tensor rules that a .proto cannot state."""
