"""The room that runs untrusted WebAssembly: ``Supervisor.execute(module, request)`` is all its users see."""
