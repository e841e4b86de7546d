// What the façade's signatures speak of (paths, digests, changes, options, errors), so that an embedder needs one import.
@_exported public import Layers
@_exported public import OCI
@_exported public import Store
@_exported public import SystemCalls
