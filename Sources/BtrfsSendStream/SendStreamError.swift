import Glibc

/// Why a send stream cannot be read, and where: nothing of it after `offset` may be believed.
public struct SendStreamError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What is wrong. Names of commands are those of ``SendCommand/name``; attributes are named as in the kernel's
    /// `BTRFS_SEND_A_*`, in camel case.
    public enum Reason: Hashable, Sendable {
        /// read(2) failed with this error number. Only ``SendStreamReader`` reads by itself.
        case cannotRead(errno: Int32)
        /// There is not one byte.
        case empty
        /// It does not begin with `btrfs-stream` and a NUL.
        case notASendStream
        /// After the end command comes something that is not another stream.
        case trailingData
        /// Only 1, 2 and 3 are known.
        case unsupportedVersion(UInt32)
        /// What gives the bytes returned a count that cannot be: a negative one, as calls do that fail, or more than was asked for.
        case sourceFailed
        /// The input ends inside a header or a command.
        case truncated
        /// The input ends between two commands, without the end command.
        case missingEnd
        /// A command whose payload has `length` bytes; `limit` is the longest of the version, in bytes without the header.
        case commandTooLong(length: UInt32, limit: Int)
        /// The CRC-32C of a command is not the one in its header.
        case checksumMismatch(stored: UInt32, computed: UInt32)
        /// A command number that the stream's version does not have.
        case unknownCommand(UInt16)
        /// The first command of a stream must name the subvolume.
        case commandBeforeSubvolume(String)
        /// An attribute number that the stream's version does not have.
        case unknownAttribute(UInt16, command: String)
        /// An attribute reaches beyond its command.
        case truncatedAttribute(command: String)
        /// A command has an attribute twice.
        case duplicateAttribute(String, command: String)
        /// A command lacks an attribute that it needs.
        case missingAttribute(String, command: String)
        /// A number, UUID or time has this many bytes, which is not the length of its type.
        case wrongLength(Int, attribute: String, command: String)
        /// A path with a NUL, an empty part, `.`, `..`, or a slash at either end, or of more than 4,095 bytes; the target of a
        /// symbolic link with a NUL; the name of an extended attribute that is empty or has a NUL.
        case invalidPath(attribute: String, command: String)
        /// A time with more than 999,999,999 nanoseconds.
        case invalidTime(attribute: String, command: String)
    }

    /// What is wrong.
    public var reason: Reason
    /// Bytes from the start of the input to the header or command that is wrong, or to the end of the input.
    public var offset: UInt64

    /// An error at `offset` bytes from the start of the input.
    public init(_ reason: Reason, offset: UInt64) {
        self.reason = reason
        self.offset = offset
    }

    /// One sentence for a person: where, what is wrong and, where it is known, what to do.
    public var description: String { isOfLaterVersion ? "\(problem); ask the sender for version 1" : problem }

    /// The sender wrote a later version of the format than are known here, and can be asked for an earlier one.
    package var isOfLaterVersion: Bool { if case .unsupportedVersion = reason { true } else { false } }

    /// Where, and what is wrong.
    package var problem: String {
        let problem =
            switch reason {
            case .cannotRead(let number): unsafe String(cString: strerror(number))
            case .empty: "it is empty; was it written by a btrfs send that failed?"
            case .notASendStream: "it does not begin with the mark of a btrfs send stream"
            case .trailingData: "something that is no stream follows the end command"
            case .unsupportedVersion(let version):
                "its version is \(version), and versions 1 to 3 are known"
            case .sourceFailed: "reading it failed there"
            case .truncated: "it ends in the middle of a command; was the sender stopped?"
            case .missingEnd: "it ends without the end command; was the sender stopped?"
            case .commandTooLong(let length, let limit):
                "a command of \(length) bytes is longer than the \(limit) that a sender writes"
            case .checksumMismatch(let stored, let computed):
                "the checksum of a command is \(computed), and the stream says \(stored); it was damaged on its way"
            case .unknownCommand(let number): "command \(number) is not known in this version"
            case .commandBeforeSubvolume(let command): "\(command) comes before a subvolume was named"
            case .unknownAttribute(let number, let command):
                "attribute \(number) of \(command) is not known in this version"
            case .truncatedAttribute(let command): "an attribute reaches beyond the end of \(command)"
            case .duplicateAttribute(let attribute, let command): "\(command) has two attributes \(attribute)"
            case .missingAttribute(let attribute, let command): "\(command) lacks its attribute \(attribute)"
            case .wrongLength(let length, let attribute, let command):
                "attribute \(attribute) of \(command) has \(length) bytes, which its type cannot have"
            case .invalidPath(let attribute, let command):
                "attribute \(attribute) of \(command) is not a path"
            case .invalidTime(let attribute, let command):
                "attribute \(attribute) of \(command) is not a time"
            }
        return "cannot read the send stream at byte \(offset): \(problem)"
    }
}
