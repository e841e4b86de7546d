import VarveFormats
import VarveSystem

/// Whom a container runs as.
package struct ContainerUser: Hashable, Sendable {
    package var uid: UInt32 = 0
    package var gid: UInt32 = 0
    /// Supplementary groups, in the order of the group file.
    package var additionalGIDs: [UInt32] = []
    /// The home directory in the passwd file, if there is one.
    package var home: String?

    package init() {}

    /// Looks up the `User` of an image configuration: `""`, `USER`, `UID`, `USER:GROUP`, `UID:GID` and their
    /// mixtures (image-spec config.md).
    ///
    /// `passwd` and `group` are those of the image; without them, or without an entry, a number stands for
    /// itself. A user without a group gets the one of the passwd file and all in whose member list they
    /// stand; one with a group gets that alone. Throws `invalidInput` for a name that is not there and a
    /// number above 4294967294.
    package init(_ spec: String, passwd: [UInt8]?, group: [UInt8]?) throws(OCIError) {
        let parts = spec.split(atByte: ":", maxSplits: 1)
        let userPart = parts[0]
        let groupPart = parts.count > 1 ? parts[1] : ""
        let what = "the user \"\(shown(spec))\" of the image configuration"

        let userNumber = try Self.number(userPart, what)
        // Without a user it is 0, with whatever passwd says of it.
        let wantedUID = userPart.isEmpty ? 0 : userNumber
        var name: ArraySlice<UInt8>?
        for fields in DatabaseLines(passwd ?? [], fieldCount: 4) {
            guard let entryUID = Self.number(fields[2]), let entryGID = Self.number(fields[3]) else {
                continue
            }
            if let wantedUID {
                guard entryUID == wantedUID else { continue }
            } else {
                guard fields[0].elementsEqual(userPart.utf8) else { continue }
            }
            (uid, gid, name) = (entryUID, entryGID, fields[0])
            if fields.count > 5, !fields[5].isEmpty { home = String(validating: fields[5], as: UTF8.self) }
            break
        }
        if name == nil {
            guard let wantedUID else {
                throw .invalid(
                    "\(what) is not in the image's /etc/passwd", subject: BytePath(spec),
                    remedy: .changeImage("add the user there, or give a number"))
            }
            uid = wantedUID
        }

        if groupPart.isEmpty {
            guard let name else { return }
            for fields in DatabaseLines(group ?? [], fieldCount: 4) {
                guard let entryGID = Self.number(fields[2]) else { continue }
                let members = fields[3].split(separator: UInt8(ascii: ","))
                if members.contains(where: { $0.elementsEqual(name) }) { additionalGIDs.append(entryGID) }
            }
            return
        }
        if let number = try Self.number(groupPart, what) {
            gid = number
            return
        }
        for fields in DatabaseLines(group ?? [], fieldCount: 3) where fields[0].elementsEqual(groupPart.utf8)
        {
            guard let entryGID = Self.number(fields[2]) else { continue }
            gid = entryGID
            return
        }
        throw .invalid(
            "the group of \(what) is not in the image's /etc/group",
            remedy: .changeImage("add it there, or give a number"))
    }

    /// Nil for what is not made of digits alone.
    private static func number(_ text: String, _ what: String) throws(OCIError) -> UInt32? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        guard let number = number(Array(text.utf8)[...]) else {
            throw .invalid("\(what) has a number above 4294967294, the highest that Linux has")
        }
        return number
    }

    static func number(_ digits: ArraySlice<UInt8>) -> UInt32? {
        guard (1...20).contains(digits.count), digits.allSatisfy({ (0x30...0x39).contains($0) }),
            let text = String(validating: digits, as: UTF8.self), let number = UInt32(text), number != .max
        else { return nil }
        return number
    }
}

/// The lines of passwd(5) or group(5) split at colons. Comments and lines with fewer fields than `fieldCount`
/// are passed over: real files hold NIS entries (`+::::::`) and other things that are not accounts.
struct DatabaseLines: Sequence, IteratorProtocol {
    private var rest: ArraySlice<UInt8>
    private let fieldCount: Int

    init(_ bytes: [UInt8], fieldCount: Int) {
        rest = bytes[...]
        self.fieldCount = fieldCount
    }

    mutating func next() -> [ArraySlice<UInt8>]? {
        while var line = rest.removeLine() {
            while let last = line.last, last == 0x20 || last == 0x09 || last == 0x0d { line.removeLast() }
            while let first = line.first, first == 0x20 || first == 0x09 { line.removeFirst() }
            if line.first == UInt8(ascii: "#") { continue }
            let fields = line.split(
                separator: UInt8(ascii: ":"), maxSplits: 15, omittingEmptySubsequences: false)
            if fields.count >= fieldCount, !fields[0].isEmpty { return fields }
        }
        return nil
    }
}
