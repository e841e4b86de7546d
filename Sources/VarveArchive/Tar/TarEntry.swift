public import VarveSystem

/// What an entry of a tar archive is (POSIX.1-2017, pax, "ustar Interchange Format", `typeflag`).
public enum TarKind: Hashable, Sendable, CaseIterable {
    case regular, directory, symbolicLink, hardLink, characterDevice, blockDevice, fifo
}

/// A run of bytes of a sparse file that the archive holds; what lies between two runs is a hole.
public struct TarSegment: Hashable, Sendable {
    /// Bytes from the start of the file.
    public var offset: Int64
    /// Bytes, more than 0.
    public var length: Int64

    public init(offset: Int64, length: Int64) {
        self.offset = offset
        self.length = length
    }
}

/// A file as a tar archive describes it: header and extended headers put together, content left out.
public struct TarEntry: Hashable, Sendable {
    /// As the archive has it: not made relative, `..` not resolved, the slash at the end of a directory kept.
    public var path: BytePath
    public var kind: TarKind
    /// What a symbolic link holds, or the path of the entry that a hard link is another name of; else empty.
    public var linkTarget: BytePath
    /// The low twelve bits of the mode.
    public var mode: UInt32
    public var uid: UInt32
    public var gid: UInt32
    /// Bytes of the content as extracted, the holes of a sparse file included; 0 for all but regular files.
    public var size: Int64
    public var modificationTime: Timestamp
    public var accessTime: Timestamp?
    public var changeTime: Timestamp?
    /// 0 for all but devices.
    public var deviceMajor: UInt32
    public var deviceMinor: UInt32
    /// In byte order of their names, each name once.
    public var extendedAttributes: [ExtendedAttribute]
    /// The record `SCHILY.acl.access`, the text form of acl(5), as it stands.
    public var accessACL: [UInt8]?
    /// The record `SCHILY.acl.default`.
    public var defaultACL: [UInt8]?
    /// What the archive holds of a sparse file, in rising order and never overlapping; nil for a file stored
    /// whole.
    public var sparse: [TarSegment]?

    /// True for a file that is stored with holes.
    public var isSparse: Bool { sparse != nil }

    public init(
        path: BytePath, kind: TarKind, linkTarget: BytePath = .empty, mode: UInt32 = 0o644, uid: UInt32 = 0,
        gid: UInt32 = 0, size: Int64 = 0, modificationTime: Timestamp = .epoch, accessTime: Timestamp? = nil,
        changeTime: Timestamp? = nil, deviceMajor: UInt32 = 0, deviceMinor: UInt32 = 0,
        extendedAttributes: [ExtendedAttribute] = [], accessACL: [UInt8]? = nil, defaultACL: [UInt8]? = nil,
        sparse: [TarSegment]? = nil
    ) {
        self.path = path
        self.kind = kind
        self.linkTarget = linkTarget
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.modificationTime = modificationTime
        self.accessTime = accessTime
        self.changeTime = changeTime
        self.deviceMajor = deviceMajor
        self.deviceMinor = deviceMinor
        self.extendedAttributes = extendedAttributes
        self.accessACL = accessACL
        self.defaultACL = defaultACL
        self.sparse = sparse
    }
}

/// How much an archive may make its reader remember. The defaults allow everything that Linux can store.
public struct TarLimits: Sendable {
    /// Bytes of one extended header: the records of a pax header, or a GNU long name.
    public var extendedHeader = 8 << 20
    /// Bytes of the pax records that hold for all entries to come, together.
    public var globalRecords = 64 << 10
    /// Bytes of a path or a link target: PATH_MAX without the NUL.
    public var path = 4095
    /// Segments of one sparse file, 16 bytes of memory each.
    public var sparseSegments = 1 << 20

    public init() {}
}
