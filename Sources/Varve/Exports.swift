// What the façade's signatures speak of (paths, digests, changes, options, errors), so that an embedder needs one import.
@_exported public import VarveLayers
@_exported public import VarveOCI
@_exported public import VarveStore
@_exported public import VarveSystem
