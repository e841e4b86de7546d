// What an author of a driver needs beside the façade: the protocols, what they speak of, and the drivers that there are.

@_exported public import class VarveLayers.ContentDigests
@_exported public import struct VarveLayers.LowerLayer
@_exported public import struct VarveLayers.RecordedTree
@_exported public import class VarveLayers.StandaloneLayer
@_exported public import enum VarveLayers.WhiteoutStyle
@_exported public import struct VarveOCI.DiffID
@_exported public import struct VarveOCI.ResolvedImage
@_exported public import struct VarveStore.BundleFile
@_exported public import protocol VarveStore.BundleUnpack
@_exported public import protocol VarveStore.CumulativeUnpack
@_exported public import struct VarveStore.DirectoryDriver
@_exported public import struct VarveStore.ExtractionTarget
@_exported public import protocol VarveStore.FrozenBundle
@_exported public import struct VarveStore.LayerDirectory
@_exported public import struct VarveStore.RepackContext
@_exported public import protocol VarveStore.StackingUnpack
@_exported public import protocol VarveStore.StorageDriver
@_exported public import struct VarveStore.UnpackContext
@_exported public import enum VarveStore.UnpackTransaction
@_exported public import class VarveSystem.Cancellation
@_exported public import class VarveSystem.SharedDescriptor
@_exported public import Varve
