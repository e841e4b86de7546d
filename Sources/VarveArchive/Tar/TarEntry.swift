package import VarveSystem

/// What an entry of a tar archive is (POSIX.1-2017, pax, "ustar Interchange Format", `typeflag`).
package enum TarKind: Hashable, Sendable, CaseIterable {
    case regular, directory, symbolicLink, hardLink, characterDevice, blockDevice, fifo
}

/// A run of bytes of a sparse file that the archive holds; what lies between two runs is a hole.
package struct TarSegment: Hashable, Sendable {
    /// Bytes from the start of the file.
    package var offset: Int64
    /// Bytes, more than 0.
    package var length: Int64

    package init(offset: Int64, length: Int64) {
        self.offset = offset
        self.length = length
    }
}

/// A file as a tar archive describes it: header and extended headers put together, content left out.
package struct TarEntry: Hashable, Sendable {
    /// As the archive has it: not made relative, `..` not resolved, the slash at the end of a directory kept.
    package var path: BytePath
    package var kind: TarKind
    /// What a symbolic link holds, or the path of the entry that a hard link is another name of; else empty.
    package var linkTarget: BytePath
    /// The low twelve bits of the mode.
    package var mode: UInt32
    package var uid: UInt32
    package var gid: UInt32
    /// Bytes of the content as extracted, the holes of a sparse file included; 0 for all but regular files.
    package var size: Int64
    package var modificationTime: Timestamp
    package var accessTime: Timestamp?
    package var changeTime: Timestamp?
    /// 0 for all but devices.
    package var deviceMajor: UInt32
    package var deviceMinor: UInt32
    /// In byte order of their names, each name once.
    package var extendedAttributes: [ExtendedAttribute]
    /// The record `SCHILY.acl.access`, the text form of acl(5), as it stands.
    package var accessACL: [UInt8]?
    /// The record `SCHILY.acl.default`.
    package var defaultACL: [UInt8]?
    /// What the archive holds of a sparse file, in rising order and never overlapping; nil for a file stored
    /// whole.
    package var sparse: [TarSegment]?

    /// True for a file that is stored with holes.
    package var isSparse: Bool { sparse != nil }

    package init(
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
package struct TarLimits: Sendable {
    /// Bytes of one extended header: the records of a pax header, or a GNU long name.
    package var extendedHeader = 8 << 20
    /// Bytes of the pax records that hold for all entries to come, together.
    package var globalRecords = 64 << 10
    /// Bytes of a path or a link target: PATH_MAX without the NUL.
    package var path = 4095
    /// Segments of one sparse file, 16 bytes of memory each.
    package var sparseSegments = 1 << 20

    package init() {}
}
