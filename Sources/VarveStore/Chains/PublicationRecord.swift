import VarveBtrfs
import VarveSystem
import SystemPackage

/// What a chain's attribute `user.varve.published` says, in three lines: the chain's name; the UUID of the subvolume that it
/// was snapshot from, which is the chain's parent UUID; the name of the chain that this subvolume was made on top of, or
/// `none`.
///
/// It is written to that subvolume before the snapshot, and so is part of the one transaction in which the chain comes to
/// be. A copy of a chain, or another tree put in its place, has another parent than its attribute says.
struct PublicationRecord: Equatable {
    var name: ChainName
    var source: SubvolumeUUID
    var below: ChainName?

    private static let none = "none"

    init(name: ChainName, source: SubvolumeUUID, below: ChainName?) {
        self.name = name
        self.source = source
        self.below = below
    }

    init?(_ attribute: [UInt8]) {
        let lines = attribute.split(separator: UInt8(ascii: "\n"))
        guard lines.count == 3, let name = ChainName(String(decoding: lines[0], as: UTF8.self)),
            let source = SubvolumeUUID(utf8: Array(lines[1]))
        else { return nil }
        let last = String(decoding: lines[2], as: UTF8.self)
        let below = ChainName(last)
        guard below != nil || last == Self.none else { return nil }
        self.init(name: name, source: source, below: below)
    }

    var encoded: [UInt8] {
        Array("\(name)\n\(source)\n\(below?.description ?? Self.none)\n".utf8)
    }
}

extension PublicationRecord {
    /// What a subvolume bears; nil if that is nothing that can be understood.
    ///
    /// - Parameter name: what errors name.
    static func read(from subvolume: FileDescriptor, _ name: @autoclosure () -> BytePath)
        throws(VarveError) -> PublicationRecord?
    {
        try attempt("read the attributes of", name()) { () throws(Errno) in
            try subvolume.extendedAttribute(StoreLayout.publicationAttribute).flatMap {
                PublicationRecord($0)
            }
        }
    }
}
