"""From healthy services to the documents that agents read: pure.

::

    discovered services ─► safety ─► holmesgpt.generate ─► overrides.apply ─► holmesgpt.serialize ─► custom_toolset.yaml
                                └──► generic.render ───────────────────────────────────────────────► toolset.json

``documents.render`` is the way in. What HolmesGPT can load, and what would cost it the whole file, is in ``loadable``.
"""
