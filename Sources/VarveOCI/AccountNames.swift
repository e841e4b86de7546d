internal import VarveFormats

/// The numbers of the users and groups of an image, by the bytes of their names.
package struct AccountNames: Sendable {
    private var users: [ByteText: UInt32] = [:]
    private var groups: [ByteText: UInt32] = [:]

    /// - Parameters:
    ///   - passwd: the image's passwd(5); nil if it has none.
    ///   - group: its group(5).
    package init(passwd: [UInt8]?, group: [UInt8]?) {
        users = Self.numbers(passwd)
        groups = Self.numbers(group)
    }

    /// Nil for who is not in the passwd file.
    package func user(_ name: String) -> UInt32? { users[ByteText(name)] }
    /// Nil for who is not in the group file.
    package func group(_ name: String) -> UInt32? { groups[ByteText(name)] }

    private static func numbers(_ file: [UInt8]?) -> [ByteText: UInt32] {
        var result: [ByteText: UInt32] = [:]
        for fields in DatabaseLines(file ?? [], fieldCount: 3) {
            guard let name = String(validating: fields[0], as: UTF8.self),
                let number = ContainerUser.number(fields[2])
            else { continue }
            // The first line of a name counts, as in getpwnam(3).
            if result[ByteText(name)] == nil { result[ByteText(name)] = number }
        }
        return result
    }
}
