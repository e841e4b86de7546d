// What the signatures of the façade speak of, so that a program that embeds the store needs one import. What only an
// author of a driver needs is in `VarveDrivers`.

// Paths and times.
@_exported public import struct VarveSystem.BytePath
@_exported public import enum VarveSystem.FileType
@_exported public import struct VarveSystem.Timestamp

// Errors.
@_exported public import struct VarveSystem.VarveError

// Images.
@_exported public import struct VarveOCI.ChainID
@_exported public import struct VarveOCI.CollectionReport
@_exported public import struct VarveOCI.Descriptor
@_exported public import struct VarveOCI.Digest
@_exported public import struct VarveOCI.IDMapping
@_exported public import struct VarveOCI.ImageConfigEdit
@_exported public import struct VarveOCI.ImageStat
@_exported public import enum VarveOCI.LayerCompression
@_exported public import struct VarveOCI.Platform

// Trees and what changed in them.
@_exported public import struct VarveLayers.ApplyOptions
@_exported public import struct VarveLayers.Change
@_exported public import enum VarveLayers.ChangeKind
@_exported public import struct VarveLayers.DeltaResult
@_exported public import enum VarveLayers.DeltaSource
@_exported public import struct VarveLayers.OwnerMapping

// Options, progress and results of calls.
@_exported public import struct VarveStore.ChainName
@_exported public import enum VarveStore.ChainPolicy
@_exported public import struct VarveStore.ChainUsage
@_exported public import struct VarveStore.GarbageCollection
@_exported public import struct VarveStore.ImageEditing
@_exported public import struct VarveStore.LayerName
@_exported public import struct VarveStore.NamedSnapshot
@_exported public import enum VarveStore.Progress
@_exported public import typealias VarveStore.ProgressHandler
@_exported public import struct VarveStore.Repacking
@_exported public import struct VarveStore.StoreCheck
@_exported public import struct VarveStore.StoredBundle
@_exported public import struct VarveStore.UnpackLimits
@_exported public import struct VarveStore.Unpacking
@_exported public import class VarveStore.Workshop
