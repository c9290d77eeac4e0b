"""The HTTP server of `bssl-tf-deploy serve`. All but `settings` needs the extra `serve` (Starlette, uvicorn)."""
