"""What the gateway knows: documents cut into passages, two ways to find them, and one to fuse both.

`passages` cuts what `parsers` reads; `files`, `stores` and `documents` keep it, by tenant, store
and snapshot; `arms` are keywords and vectors in each database; `index` searches; `ingest` fills;
`augment` and `citations` are what the spine does with what was `found`; `api`, `document_api` and
`shapes` are OpenAI's face of it.
"""
