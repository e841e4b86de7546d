package import VarveSystem

/// A tar archive that cannot be read or written, and where.
package struct TarError: Error, Hashable, CustomStringConvertible {
    /// Bytes from the start of the (uncompressed) archive to the header or block in question.
    package var offset: Int64
    /// The entry, where its name was known by then.
    package var entry: BytePath?
    package var reason: Reason

    package init(offset: Int64, entry: BytePath?, reason: Reason) {
        self.offset = offset
        self.entry = entry
        self.reason = reason
    }

    package enum Reason: Error, Hashable {
        /// The archive ends in the middle of something.
        case endsEarly
        /// The header's checksum is not the sum of its bytes.
        case checksum(stored: Int64?, computed: Int64)
        /// A block of zeros that is not followed by a second one.
        case loneZeroBlock
        /// A numeric field of the header holds no number, or one that is out of range.
        case field(String, value: [UInt8])
        /// A pax record is malformed: its length, its `=`, its newline.
        case paxRecord(String)
        /// The value of the pax record of this name cannot be what it says.
        case paxValue(String, value: [UInt8])
        /// A pax record that has no meaning for all entries to come is given for them.
        case globalRecord(String)
        /// An entry type that is not known or not supported.
        case unknownType(UInt8)
        /// An extended header stands where none may stand.
        case misplacedHeader(String)
        /// An extended header or all global records hold more bytes than is allowed.
        case headerTooLarge(bytes: Int64, limit: Int)
        /// A path or a link target is longer than the kernel takes.
        case nameTooLong(String, bytes: Int, limit: Int)
        /// A path or a link target that no file can have.
        case name(String)
        /// The map of a sparse file contradicts itself, its file or its data.
        case sparse(String)
        case tooManySegments(limit: Int)
        /// There are more entries than the caller allows (`TarAllowance`).
        case tooManyEntries
        /// It unpacks to more bytes than the caller allows (`TarAllowance`).
        case tooLarge
        /// What the entry says about its data can be understood in two ways, and tools differ.
        case ambiguousData(String)
        /// What the entry says about its name or its target can be understood in two ways, and tools differ.
        case ambiguousName(String)
        /// The entry to write cannot be put into an archive, or its content is not what it said.
        case unwritable(String)
    }

    package var description: String { VarveError.sentence(problem, remedy) }

    /// What was being done, where in the archive, and why it failed.
    package var problem: String {
        let place =
            entry.map { "entry \(TarError.excerpt($0.bytes)) (header at byte \(offset))" } ?? "byte \(offset)"
        if case .unwritable(let why) = reason {
            return "cannot write the tar archive at \(place): \(why)"
        }
        return "cannot read the tar archive at \(place): \(why)"
    }

    private var why: String {
        switch reason {
        case .endsEarly: "the archive ends in the middle of it"
        case .checksum(let stored, let computed):
            if let stored {
                "the header's checksum is \(stored), but its bytes add up to \(computed)"
            } else {
                "this is no tar header, its checksum is not a number"
            }
        case .loneZeroBlock: "a block of zeros stands between entries, not at the end"
        case .field(let name, let value):
            "the header field \(name) holds \"\(TarError.excerpt(value))\", which is no valid \(name)"
        case .paxRecord(let why): "a pax record is malformed: \(why)"
        case .paxValue(let name, let value):
            "the pax record \(TarError.excerpt(name.utf8)) holds \"\(TarError.excerpt(value))\", "
                + "which is not valid there"
        case .globalRecord(let name):
            "a global pax header sets \(name), which some tools take for every entry that follows, and some do not"
        case .unknownType(let type):
            "the entry is of type '\(BytePath.escape([type]))', which is not supported"
        case .misplacedHeader(let why): why
        case .headerTooLarge(let bytes, let limit):
            "an extended header has \(bytes) bytes, and \(limit) is the most that is taken"
        case .nameTooLong(let what, let bytes, let limit):
            "the \(what) has \(bytes) bytes, and Linux takes \(limit) at most"
        case .name(let why): why
        case .sparse(let why): "the map of the sparse file is invalid: \(why)"
        case .tooManySegments(let limit): "the sparse file has more than \(limit) segments"
        case .tooManyEntries: "there are more entries than are allowed"
        case .tooLarge: "it unpacks to more bytes than are allowed"
        case .ambiguousData(let why), .ambiguousName(let why): why
        case .unwritable(let why): why
        }
    }

    /// It is about an archive that is written here, not about one that came from elsewhere.
    package var isOfWriter: Bool { if case .unwritable = reason { true } else { false } }

    package var remedy: VarveError.Remedy? {
        switch reason {
        case .endsEarly, .checksum:
            .replaceLayer("the layer is damaged or not a tar archive, fetch or build it again")
        case .tooManyEntries, .tooLarge: .raiseLimit(.archive)
        case .unknownType, .nameTooLong, .headerTooLarge, .tooManySegments, .globalRecord:
            .replaceLayer("build the image again without it")
        case .unwritable: nil
        default:
            .replaceLayer(
                "the tool that made the layer wrote it wrongly, build it again with another one")
        }
    }

    /// At most 80 bytes, made fit to print: what an archive says does not decide how long a message is.
    static func excerpt(_ bytes: some Collection<UInt8>) -> String {
        bytes.count <= 80 ? BytePath.escape(bytes) : BytePath.escape(bytes.prefix(77)) + "..."
    }
}
